"""The commands that change drives, each with the files that it is tried on."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tests.archives import poke
from tests.project.write_log_cases import (
    BLOCK,
    DESCRIPTOR_BYTES,
    HEADER_BYTES,
    MIB,
    UUIDS,
    _dm_damage,
    _zdm_damage,
    consents,
    facts,
    file_of,
    iolog,
    random_requests,
    vector,
)
from tests.project.write_logs import Step


@dataclass(frozen=True)
class Command:
    """A command line and what it is tried on.

    Attributes:
        made: command lines and functions that make the files, in an empty directory.
        drives: images and directories whose state is compared.
        results: other files that the command writes.
        success: exit statuses that promise that all of the work is done.
        again: the command line that finishes what was cut short; the same one unless it is said.
        saves: whether an undo file is written first.
        gradual: whether a part of the work can stay, in zones or files that are new each for itself.
        adds: whether a second run does some of the work once more (appending, replaying, another generation): then
            a check finds nothing in the end.
        where: options of that check, or all of what it is called with.
        mends: run ahead of another run, whatever comes of it: what a power cut in a commit leaves for a repair.
        shows: the drives whose logical device has the same content at the end as after a run without any fault.
        once: whether another run has nothing to do when all is done, and is refused.
        rescues: whether what cannot be read is left out, as it is from a damaged drive.
        kept: drives that the command only reads.
    """

    name: str
    made: tuple[Step, ...]
    line: str
    drives: tuple[str, ...] = ("disk.img",)
    results: tuple[str, ...] = ()
    success: tuple[int, ...] = (0,)
    again: str = ""
    saves: bool = True
    gradual: bool = False
    adds: bool = False
    where: str = ""
    mends: str = ""
    shows: str = ""
    once: bool = False
    rescues: bool = False
    kept: tuple[str, ...] = ()


def _empty_file(name: str, size: int) -> None:
    with open(name, "xb") as file:
        file.truncate(size)


def _content(name: str, seed: int, length: int) -> Step:
    return file_of(name, lambda: random.Random(seed).randbytes(length))


def _cut_table(image: str) -> None:
    """A zone table in which the descriptors of two conventional zones are half written."""
    poke(f"{image}.zones", HEADER_BYTES + DESCRIPTOR_BYTES + 32, bytes(DESCRIPTOR_BYTES))


SMALL = "--zones 16 --zone-size 128KiB --conventional 4"
CREATE = f"zoned image create disk.img {SMALL}"
FILLED = (
    CREATE,
    f"mkzonefs --uuid {UUIDS[0]} disk.img",
    _content("data", 4, 12 * BLOCK),
    "zoned zonefs put --quiet disk.img /seq/2 data",
    "zoned zonefs put --quiet disk.img /seq/3 data",
    "zoned zonefs put --quiet disk.img /cnv/1 data",
)
DM_CREATE = "zoned image create disk.img --zones 24 --zone-size 1MiB --conventional 6"
DM_UUIDS = f"--uuid {UUIDS[0]} --device-uuid {UUIDS[1]}"
DM_FORMAT = f"dmzadm --format disk.img --seq=2 --label=fresh {DM_UUIDS}"
DM_TRACE = file_of("trace", lambda: iolog(random_requests(2000, 6, 60, 20)))
DM_FILLED = (DM_CREATE, DM_FORMAT, DM_TRACE, "zoned replay disk.img --trace trace")


def drives() -> Iterator[Command]:
    yield Command("image create", (), CREATE, again=f"{CREATE} --force", saves=False)
    yield Command("image create --force", FILLED, f"{CREATE} --force", saves=False)
    saved: tuple[Step, ...] = (
        *FILLED,
        partial(os.rename, "disk.img.zones", "saved"),
        partial(os.rename, "disk.img", "raw"),
    )
    line = "zoned image import disk.img --zones saved --data raw --quiet"
    yield Command("image import", saved, line, again=f"{line} --force", saves=False)
    yield Command("image import --force", (*FILLED, *saved[-2:], CREATE), f"{line} --force", saves=False)
    yield Command(
        "image repair", (*FILLED, partial(_cut_table, "disk.img")), "zoned image repair disk.img",
        success=(0, 1), saves=False,
    )  # fmt: skip
    yield Command(
        "image adopt", (*DM_FILLED, partial(os.unlink, "disk.img.zones")), "zoned image adopt disk.img",
        again="zoned image adopt disk.img --force", saves=False,
    )  # fmt: skip
    yield Command(
        "image convert", FILLED, "zoned image convert disk.img directory --quiet", ("disk.img", "directory"),
        again="zoned check directory", saves=False,
    )  # fmt: skip
    for operation in ("reset", "finish"):
        yield Command(
            f"zone {operation}", FILLED, f"zoned zone {operation} --zone 4 --count 12 --force disk.img", gradual=True
        )
        yield Command(
            f"zone {operation} of a zloop directory",
            (*FILLED, "zoned image convert disk.img directory --quiet"),
            f"zoned zone {operation} --zone 5 --count 5 --force directory",
            ("directory",),
            gradual=True,
        )


def dm_zoned() -> Iterator[Command]:
    yield Command("dmzadm --format", (DM_CREATE,), DM_FORMAT, again=f"{DM_FORMAT} --force")
    yield Command("dmzadm --format --force", DM_FILLED, f"{DM_FORMAT} --force".replace("fresh", "again"))
    two = "disk.img zoned.img"
    made = (partial(_empty_file, "disk.img", 8 * MIB), DM_CREATE.replace("disk.img", "zoned.img"))
    line = f"dmzadm --format {two} --seq=2 --label=two --uuid {UUIDS[0]}"
    line += f" --device-uuid {UUIDS[1]} --device-uuid {UUIDS[2]}"
    yield Command("dmzadm --format of two devices", made, line, ("disk.img", "zoned.img"), again=f"{line} --force")
    yield Command("dmzadm --relabel", DM_FILLED, "dmzadm --relabel disk.img --label=other")
    yield Command("dm-zoned replay", DM_FILLED, "zoned replay disk.img --trace trace", saves=False, adds=True)
    damaged = (vector("dm-zoned/hm64x1", "disk.img"), partial(poke, "disk.img", 0, b"\xff" * BLOCK))
    yield Command("dm-zoned check --repair", damaged, "zoned check --repair disk.img", success=(0, 1))
    for name in ("map-dup-dzone", "stale-primary"):
        variant = next(row for row in facts("dm-zoned/corruptions-hm64x1")["variants"] if row["id"] == name)
        damaged = (vector("dm-zoned/hm64x1", "disk.img"), partial(_dm_damage, "hm64x1", variant))
        line = f"zoned check --repair {consents('dm-zoned')} disk.img"
        yield Command(f"dm-zoned check --repair --allow, {name}", damaged, line, success=(0, 1))
    aware = (vector("dm-zoned/ha32x4", "disk.img"),)
    line = f"dmzadm --format --force disk.img --seq=2 --label=aware {DM_UUIDS}"
    yield Command("dmzadm --format of a host-aware drive", aware, line)
    dumped = (*DM_FILLED, "zoned dump --keep-names disk.img -o dump.json", f"{DM_FORMAT} --force")
    yield Command("dm-zoned restore", dumped, "zoned restore disk.img -i dump.json --force")
    dump = "zoned dump --keep-names disk.img -o dump.json"
    yield Command("dump", DM_FILLED, dump, results=("dump.json",), again=f"{dump} --force", saves=False, rescues=True)
    yield Command(
        "dump --force",
        (*DM_FILLED, _content("dump.json", 8, 9000)),
        f"{dump} --force",
        results=("dump.json",),
        saves=False,
        rescues=True,
    )
    export = "zoned export disk.img -o out.raw --quiet"
    yield Command(
        "export", DM_FILLED, export, results=("out.raw",), again=f"{export} --force", saves=False, gradual=True
    )


DM_SEVERAL = "disk.img zoned.img"


def _chunk_requests() -> Iterator[str]:
    """Chunks that are emptied, buffered ones, and some in random zones: one of each kind that reclaim knows."""
    yield from (f"write {chunk * MIB} {40 * BLOCK}" for chunk in range(8))
    yield "wait 20000000 0"
    yield from (f"write {chunk * MIB} {4 * BLOCK}" for chunk in (0, 3))
    yield from (f"trim {chunk * MIB} {MIB}" for chunk in (1, 6))
    yield "datasync 0 0"


def dm_zoned_offline() -> Iterator[Command]:
    """What no kernel tool offers: the content stays whatever goes wrong."""
    image = DM_CREATE.replace("24", "16")
    trace = (
        file_of("trace", lambda: iolog(_chunk_requests())),
        "zoned replay disk.img --trace trace --set idle_rlow=70",
    )
    used: tuple[Step, ...] = (image, DM_FORMAT, *trace)
    mends = "dmzadm --repair disk.img --no-undo"
    for words in ("free", "free --compact"):
        yield Command(
            f"dm-zoned {words}", used, f"zoned dm-zoned {words} disk.img", adds=True, mends=mends, shows="disk.img"
        )
    raw = file_of("raw", lambda: random.Random(3).randbytes(3 * MIB + 700) + bytes(2 * MIB) + b"end" * 9000)
    line = "zoned import raw disk.img --quiet --commit-every 1"
    yield Command(
        "dm-zoned import", (image, DM_FORMAT, raw), line, again=f"{line} --resume", adds=True, mends=mends,
        shows="disk.img",
    )  # fmt: skip
    alone: tuple[Step, ...] = tuple(
        step.replace("disk.img", "zoned.img") if isinstance(step, str) else step for step in used
    )
    made: tuple[Step, ...] = (*alone, partial(_empty_file, "disk.img", 12 * MIB))
    attach = f"zoned dm-zoned attach {DM_SEVERAL} --device-uuid {UUIDS[2]}"
    both = ("disk.img", "zoned.img")
    yield Command("dm-zoned attach", made, attach, both, once=True, shows=DM_SEVERAL)
    filled = (
        *made, attach, file_of("trace", lambda: iolog(f"write {n * MIB} {9 * BLOCK}" for n in (2, 9))),
        f"zoned replay {DM_SEVERAL} --trace trace",
    )  # fmt: skip
    yield Command(
        "dm-zoned detach", filled, f"zoned dm-zoned detach {DM_SEVERAL}", both, adds=True, once=True, where="zoned.img",
        mends=f"dmzadm --repair {DM_SEVERAL} --no-undo", shows="zoned.img",
    )  # fmt: skip


def zdm() -> Iterator[Command]:
    create = "zoned image create disk.img --zones 16 --zone-size 256MiB --conventional 8"
    line = f"zdmadm --create --start 524288 --uuid {UUIDS[0]} disk.img"
    yield Command("zdmadm --create", (create,), line, again=f"{line} --force")
    raw = file_of("raw", lambda: random.Random(4).randbytes(2 * MIB + 300) + bytes(5 * MIB) + b"end" * 9000)
    where = "--start 524288 "
    importing = f"zoned import {where}raw disk.img --quiet --commit-every 1"
    trace = file_of("trace", lambda: iolog((f"write 0 {BLOCK}", f"trim 0 {BLOCK}")))
    started = (create, line, trace, f"zoned replay {where}disk.img --trace trace")  # the first start has a random UUID
    yield Command(
        "zdm import", (*started, raw), importing, again=f"{importing} --resume", adds=True, where=where,
        shows=f"{where}disk.img",
    )  # fmt: skip
    clean = vector("zdm/pop-clean")
    for name in ("ident-crc", "key-newest"):
        case = next(row for row in facts("zdm/corrupt-clean")["cases"] if row["name"] == name)
        repair = f"zoned check --start 524288 --repair {consents('zdm')} disk.img"
        damaged = (clean, partial(_zdm_damage, case))
        yield Command(
            f"zdm check --repair, {name}", damaged, repair, success=(0, 1), adds=True, where="--start 524288 "
        )


def zonefs() -> Iterator[Command]:
    line = f"mkzonefs --uuid {UUIDS[1]} -L new disk.img"
    forced = line.replace("disk.img", "-f disk.img")
    yield Command("mkzonefs", (CREATE,), line, again=forced, saves=False)
    yield Command("mkzonefs -f", FILLED, forced, saves=False, gradual=True)
    damaged = (*FILLED, partial(poke, "disk.img", 200, b"\xff" * 8))
    yield Command(
        "zonefs check --repair", damaged, f"zoned check --layout zonefs --repair {consents('zonefs')} disk.img",
        success=(0, 1),
    )  # fmt: skip
    dumped = (*FILLED, "zoned dump --keep-names disk.img -o dump.json", forced)
    yield Command("zonefs restore", dumped, "zoned restore disk.img -i dump.json --force")
    loop = (*FILLED, "zoned image convert disk.img directory --quiet")
    yield Command(
        "mkzonefs of a zloop directory", loop, forced.replace("disk.img", "directory"), ("directory",),
        saves=False, gradual=True,
    )  # fmt: skip
    put = "zoned zonefs put --quiet disk.img"
    yield Command(
        "zonefs put into a zloop directory", loop, put.replace("disk.img", "directory /seq/5 data"), ("directory",),
        saves=False, adds=True,
    )  # fmt: skip
    yield Command("zonefs put", FILLED, f"{put} /seq/5 data", saves=False, adds=True)
    yield Command(
        "zonefs put over a file",
        (*FILLED, _content("new", 5, 9 * BLOCK)),
        f"{put} /cnv/1 new",
        saves=False,
        gradual=True,
    )
    yield Command("zonefs truncate 0", FILLED, "zoned zonefs truncate disk.img /seq/2 0")
    yield Command("zonefs truncate max", FILLED, "zoned zonefs truncate disk.img /seq/2 max")


def btrfs() -> Iterator[Command]:
    made = vector("btrfs-zoned/p08-full0-inuse1-again")
    generation = facts("btrfs-zoned/expected")["p08-full0-inuse1-again"]["roots"]["generations"][1]
    yield Command("btrfs rollback", (made,), f"zoned btrfs rollback --to-generation {generation} disk.img")
    torn_ring = vector("btrfs-zoned/pv01-torn-last")
    yield Command("btrfs check --repair", (torn_ring,), "zoned check --repair disk.img", success=(0, 1))
    behind = vector("btrfs-zoned/g05-dup-reset2")
    yield Command("btrfs check --repair of copies", (behind,), "zoned check --repair disk.img", success=(0, 1))
    output = "zoned check --repair disk.img --output copy.img"
    yield Command(
        "btrfs check --repair --output",
        (torn_ring,),
        output,
        ("disk.img", "copy.img"),
        success=(0, 1),
        kept=("disk.img",),
        again="zoned check --repair copy.img",
    )


def _inplace_damage() -> None:
    case = facts("inplace-compress/corrupt")["lzo-map-tail-lost"]
    for offset, data in case["patches"]:
        poke("disk.img", offset, bytes.fromhex(data))


def inplace_compress() -> Iterator[Command]:
    every = "zoned inplace-compress"
    made = partial(_empty_file, "disk.img", 2 * MIB)
    line = f"{every} format disk.img"
    yield Command("inplace-compress format", (made,), line, again=f"{line} --force")
    old = (made, line, file_of("trace", lambda: iolog(random_requests(300, 5, 40, 12))))
    filled = (*old, "zoned replay disk.img --trace trace")
    yield Command("inplace-compress format --force", filled, f"{line} --force --compressor 842")
    yield Command("inplace-compress replay", old, "zoned replay disk.img --trace trace", saves=False, adds=True)
    raw = file_of("raw", lambda: random.Random(3).randbytes(30000) + bytes(20 * BLOCK) + b"end" * 9000)
    importing = f"{every} import raw disk.img -j 1 --quiet"
    yield Command(
        "inplace-compress import", (made, raw), importing, again=f"{importing} --force", saves=False, gradual=True
    )
    forced = (*filled, raw)
    yield Command("inplace-compress import --force", forced, f"{importing} --force", saves=False, gradual=True)
    dumped = (*filled, "zoned dump --keep-names disk.img -o dump.json", f"{line} --force --compressor 842")
    yield Command("inplace-compress restore", dumped, "zoned restore disk.img -i dump.json --force")
    damaged = (vector("inplace-compress/p1-lzo"), _inplace_damage)
    repair = f"zoned check --repair {consents('inplace-compress')} disk.img"
    yield Command("inplace-compress check --repair", damaged, repair, success=(0, 1))


def undo() -> Iterator[Command]:
    repaired = {command.name: command for command in (*dm_zoned(), *inplace_compress())}
    both = [repaired["dm-zoned check --repair --allow, map-dup-dzone"], repaired["inplace-compress check --repair"]]
    for name, made, line, drive in (
        *((command.name, command.made, command.line, "disk.img") for command in both),
        ("zone reset", FILLED, "zoned zone reset --all --force disk.img", "disk.img"),
        ("dmzadm --format", DM_FILLED, f"{DM_FORMAT} --force".replace("fresh", "again") , "disk.img"),
        (
            "btrfs rollback", next(btrfs()).made, next(btrfs()).line, "disk.img",
        ),
    ):  # fmt: skip
        yield Command(
            f"undo of {name}",
            (*made, f"{line} --undo a.undo"),
            f"zoned undo a.undo {drive}",
            (drive,),
            saves=False,
            gradual=True,
        )


def all_commands(*, heavy: bool) -> dict[str, Command]:
    """By name; with ``heavy`` those that take seconds, too."""
    rooms = (drives, dm_zoned, dm_zoned_offline, zonefs, btrfs, inplace_compress, undo, *((zdm,) if heavy else ()))
    return {command.name: command for room in rooms for command in room()}
