"""The cases of :mod:`write_logs`: every layout is formatted, checked, repaired and written to.

Vectors are unpacked and damaged here with nothing but the standard library, so that the cases stay what they are
whatever becomes of the code.
"""

from __future__ import annotations

import json
import lzma
import os
import random
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

from tests.archives import expand_extents, poke, set_zone
from tests.project.write_logs import Case, Step, kept_directory
from zoned_tools.cli.run import run

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
BLOCK = 4096
MIB = 1 << 20
HEADER_BYTES, DESCRIPTOR_BYTES = 192, 64
"""Of a zone table beside an image."""

EMPTY, IMPLICIT_OPEN, FULL = 1, 2, 14

UUIDS = [f"{n}2345678-1234-4234-8234-12345678900{n}" for n in range(1, 5)]


@cache
def facts(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


@cache
def consents(layout: str) -> str:
    """``--allow`` with every code of a layout."""
    out = StringIO()
    with redirect_stdout(out):
        run("zoned", ["explain", "--json"])
    codes = [row["id"] for row in json.loads(out.getvalue())["codes"]]
    return " ".join(f"--allow {code}" for code in codes if code.startswith(f"{layout}."))


# -- images


def _unpacked(vector: str) -> Path:
    """Directory with the files of a vector; of the large ones of ZDM only the last is kept."""
    directory = kept_directory() / vector.replace("/", "-")
    if directory.exists():
        return directory
    folder, name = vector.split("/", 1)
    if folder == "zdm":
        for other in directory.parent.glob("zdm-*"):
            shutil.rmtree(other)
    directory.mkdir(parents=True)
    if folder == "zdm":
        expand_extents(VECTORS / folder / name, directory / "disk.img")
    elif folder == "inplace-compress":
        packed = VECTORS / folder / "images" / f"{name}.img.xz"
        (directory / "disk.img").write_bytes(lzma.decompress(packed.read_bytes()))
    else:
        with tarfile.open(VECTORS / f"{vector}.tar.xz") as archive:
            archive.extractall(directory, filter="data")
    return directory


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its holes."""
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        os.truncate(target, size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)


def unpack(vector: str, *files: str) -> None:
    """Put a vector's files into the current directory."""
    for path in sorted(_unpacked(vector).iterdir()):
        if not files or path.name.removesuffix(".zones") in files:
            _copy(path, Path(path.name))


def vector(name: str, *files: str) -> Step:
    return partial(unpack, name, *files)


def peek(image: str, offset: int, length: int) -> bytes:
    with open(image, "rb") as file:
        file.seek(offset)
        return file.read(length)


def file_of(name: str, content: Callable[[], bytes | str]) -> Step:
    def write() -> None:
        made = content()
        Path(name).write_bytes(made.encode() if isinstance(made, str) else made)

    return write


# -- workloads


def iolog(lines: Iterable[str]) -> str:
    return "\n".join(["fio version 2 iolog", "d add", "d open", *(f"d {line}" for line in lines), "d close", ""])


def random_requests(size_blocks: int, seed: int, number: int, longest: int = 40) -> Iterator[str]:
    """Writes, overwrites of a few places, discards, flushes, and waits in which a target reclaims."""
    choose = random.Random(seed).random
    for _ in range(number):
        kind = choose()
        blocks = 1 + int(choose() * longest)
        hot = choose() < 0.4
        first = int(choose() ** (4 if hot else 1) * (size_blocks - blocks))
        if kind < 0.74:
            yield f"write {first * BLOCK} {blocks * BLOCK}"
        elif kind < 0.77:
            yield f"write {first * BLOCK + 512} {blocks * BLOCK - 1024}"
        elif kind < 0.90:
            yield f"trim {first * BLOCK} {4 * blocks * BLOCK if first + 4 * blocks <= size_blocks else BLOCK}"
        elif kind < 0.97:
            yield "datasync 0 0"
        else:
            yield "wait 2000000 0"


def chunk_requests(size_blocks: int, chunk_blocks: int) -> Iterator[str]:
    """Fills chunks one after the other, then writes into the middle of each: buffer zones run out."""
    for chunk in range(size_blocks // chunk_blocks):
        at = chunk * chunk_blocks
        yield f"write {at * BLOCK} {chunk_blocks // 2 * BLOCK}"
        yield f"write {(at + chunk_blocks // 2) * BLOCK} {chunk_blocks // 4 * BLOCK}"
    yield "datasync 0 0"
    for chunk in range(size_blocks // chunk_blocks):
        yield f"write {(chunk * chunk_blocks + chunk_blocks // 4) * BLOCK} {3 * BLOCK}"
        if chunk % 5 == 4:
            yield f"trim {(chunk * chunk_blocks) * BLOCK} {chunk_blocks * BLOCK}"
            yield "wait 1500000 0"
    yield "sync 0 0"


def operations(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Operation lists of the vectors."""
    for row in rows:
        kind = row[0]
        if kind in ("w", "write", "zero"):
            yield f"write {row[1] * BLOCK} {row[2] * BLOCK}"
        elif kind in ("d", "discard"):
            yield f"trim {row[1] * BLOCK} {row[2] * BLOCK}"
        elif kind in ("f", "flush"):
            yield "datasync 0 0"


def mixed_content(seed: int, blocks: int) -> bytes:
    """Zeroes, words that compress well, noise that does not, and blocks of both."""
    choose = random.Random(seed)
    words = [b"zone", b"sector", b"pointer", b"block", b"mapper", b"extent", b"payload", b"flush", b"ring"]
    made = []
    for number in range(blocks):
        kind = number % 7
        text = b" ".join(words[int(choose.random() * len(words))] for _ in range(700))[:BLOCK].ljust(BLOCK)
        noise = bytes(int(choose.random() * 256) for _ in range(BLOCK if kind in (1, 5, 6) else 0))
        made.append((bytes(BLOCK), noise, text, text, bytes(BLOCK), noise[:1500] + text[1500:], noise)[kind])
    return b"".join(made)


# -- dm-zoned

DM_NAMES = ("hm64x1", "hm64x4", "hm300x1", "hm6x256", "dual", "triple", "ha32x4", "v1", "v1runt")
DM_QUICK = ("hm64x1-clean", "hm64x1-crash", "dual-clean", "triple-crash", "v1-clean", "v1runt-clean")
DM_QUICK_REPLAYS = (
    "hm64x1-clean-chunks", "hm64x1-fresh-random", "hm64x1-fresh-60", "hm64x1-fresh-vector", "dual-fresh-vector",
    "triple-fresh-random", "v1runt-fresh-vector",
)  # fmt: skip


def _dm_images(name: str, state: str) -> list[str]:
    return list(facts(f"dm-zoned/{name}")["images"][state]["files"])


def _dm_zone_operation(image: str, zone_bytes: int, operation: list[Any]) -> None:
    zone_blocks = zone_bytes // BLOCK
    match operation:
        case ["reset", zone]:
            poke(image, zone * zone_bytes, bytes(zone_bytes))
        case ["append", zone, count, seed]:
            (wp,) = struct.unpack("<Q", peek(f"{image}.zones", HEADER_BYTES + zone * DESCRIPTOR_BYTES + 24, 8))
            for block in range(wp // BLOCK, wp // BLOCK + count):
                poke(image, block * BLOCK, struct.pack("<QQ", block, seed) * 256)
        case ["copyblocks", source, target, offsets]:
            for offset in offsets:
                data = peek(image, (source * zone_blocks + offset) * BLOCK, BLOCK)
                poke(image, (target * zone_blocks + offset) * BLOCK, data)


def _dm_damage(base: str, variant: dict[str, Any]) -> None:
    images = _dm_images(base, "clean")
    for change in variant["patches"]:
        number, offset, data = change if len(change) == 3 else (0, *change)
        poke(images[number], offset, bytes.fromhex(data))
    zone_bytes = facts(f"dm-zoned/{base}")["geometry"]["zone_mib"] * MIB
    for operation in variant.get("zone_ops", []):
        _dm_zone_operation(images[0], zone_bytes, operation)
    for zone, written, condition in variant.get("zones_after", []):
        set_zone(images[0], zone, wp=zone * zone_bytes + written, condition=condition)


def _dm_formats() -> Iterator[Case]:
    for number, row in enumerate(facts("dm-zoned/format-params")):
        size, seq = row["zone_mib"], f" --seq={row['seq']}" if row["seq"] is not None else ""
        create = f"zoned image create --zone-size {size}MiB"
        if "zones" in row:
            name, paths = f"{row['zones']}z-{row['conventional']}c", "a.img"
            made: list[Step] = [f"{create} a.img --zones {row['zones']} --conventional {row['conventional']}"]
        else:
            members = row["members"]
            name = f"{row['regular_mib']}m-" + "-".join(f"{m['size_mib']}m{m['conventional']}c" for m in members)
            paths = " ".join(["r.img", *(f"{n}.img" for n in range(len(members)))])
            made = [partial(_empty_file, "r.img", row["regular_mib"] * MIB)]
            made += [
                f"{create} {n}.img --size {m['size_mib']}MiB --conventional {m['conventional']}"
                for n, m in enumerate(members)
            ]
        steps = (*made, f"dmzadm --format {paths} --label=test{seq} --verbose", f"dmzadm --check {paths}")
        slow = row["zone_mib"] > 4 or row.get("zones", 0) > 300
        yield Case(f"dm-zoned/format/{name}-{size}mib{seq.replace(' --', '-')}-{number}", steps, slow)
    create = "zoned image create a.img --zones 40 --zone-size 1MiB --conventional 8"
    named = " ".join(f"--device-uuid {u}" for u in UUIDS[1:2])
    for name, options in {
        "plain": "",
        "verbose": "--verbose",
        "vverbose": "--vverbose",
        "json": "--json",
        "dry-run": "--dry-run",
        "dry-run-json": "--dry-run --json",
        "uuids": f"--label=disk --uuid {UUIDS[0]} {named}",
        "quoted-label": "--label \"'quoted name'\"",
        "long-label": f"--label={'x' * 32}",
        "seq-0": "--seq=0",
        "seq-too-many": "--seq=40",
        "version-1": "--metadata-version=1 --label=ignored",
        "version-3": "--metadata-version=3",
        "bad-uuid": "--uuid 12",
        "set": "--use-set 0",
        "undo": "--undo a.undo",
    }.items():
        again = ("dmzadm --check a.img --verbose", "dmzadm --format a.img", "dmzadm --format a.img --force --seq 2")
        yield Case(f"dm-zoned/format/options-{name}", (create, f"dmzadm --format a.img {options}", *again))
    for name, options in {
        "host-aware": "--zones 40 --zone-size 1MiB --conventional 6 --model host-aware",
        "zns": "--zones 40 --zone-size 1MiB --model zns",
        "runt": "--size 40500KiB --zone-size 1MiB --conventional 6",
        "capacity": "--zones 40 --zone-size 1MiB --conventional 6 --zone-capacity 768KiB",
        "512": "--zones 40 --zone-size 1MiB --conventional 6 --block-size 512",
        "limits": "--zones 40 --zone-size 1MiB --conventional 6 --max-open 4 --max-active 6",
    }.items():
        create = f"zoned image create a.img {options}"
        yield Case(f"dm-zoned/format/drive-{name}", (create, "dmzadm --format a.img", "dmzadm --check a.img"))


def _empty_file(name: str, size: int) -> None:
    with open(name, "xb") as file:
        file.truncate(size)


UNDO = "zoned undo a.undo disk.img"


def _dm_vectors() -> Iterator[Case]:
    for name in DM_NAMES:
        known = facts(f"dm-zoned/{name}")
        first = known["images"]["fresh"]
        again = " ".join(word for word in known["format_options"])
        for state, image in known["images"].items():
            paths = " ".join(image["files"])
            made = vector(f"dm-zoned/{name}", *image["files"])
            yield Case(
                f"dm-zoned/read/{name}-{state}",
                (
                    made,
                    f"dmzadm --check {paths}",
                    f"dmzadm --check {paths} --verbose",
                    f"dmzadm --check {paths} --json",
                    f"zoned check {paths}",
                    f"zoned probe {paths}",
                    f"zoned inspect {paths} --json",
                    f"zoned map {paths}",
                    f"zoned table {paths}",
                    f"zoned export {paths} -o out.raw --quiet",
                ),
                slow=f"{name}-{state}" not in DM_QUICK,
            )
            yield Case(
                f"dm-zoned/dump/{name}-{state}",
                (
                    made,
                    f"zoned dump {paths} -o dump.json",
                    f"dmzadm --format {paths} --force --metadata-version {first['superblocks'][0]['version']}",
                    f"zoned restore {paths} -i dump.json --force --dry-run",
                    f"zoned restore {paths} -i dump.json --force --undo restore.undo",
                    f"dmzadm --check {paths}",
                    f"zoned undo restore.undo {paths}",
                    f"dmzadm --check {paths}",
                ),
                slow=f"{name}-{state}" not in DM_QUICK,
            )
            yield Case(
                f"dm-zoned/relabel/{name}-{state}",
                (
                    made,
                    f"dmzadm --relabel {paths} --label=other --dry-run",
                    f"dmzadm --relabel {paths} --label=other --undo a.undo",
                    f"dmzadm --relabel {paths} --label=other",
                    f"dmzadm --relabel {paths}",
                    f"dmzadm --check {paths}",
                ),
                slow=f"{name}-{state}" not in DM_QUICK,
            )
            yield Case(
                f"dm-zoned/format/again-{name}-{state}",
                (
                    made,
                    f"dmzadm --format {paths} {again}",
                    f"dmzadm --format {paths} {again} --force --undo a.undo --uuid {UUIDS[0]} --device-uuid {UUIDS[1]}",
                    f"dmzadm --check {paths}",
                    f"zoned undo a.undo {paths}",
                ),
                slow=f"{name}-{state}" not in DM_QUICK,
            )
            if state == "crash":
                yield from _dm_repairs(f"{name}-crash", (made,), paths)
            yield from _dm_replays(f"{name}-{state}", made, paths, known)


def _dm_replays(name: str, made: Step, paths: str, known: dict[str, Any]) -> Iterator[Case]:
    size, zone_blocks = known["logical_size"] // BLOCK, known["geometry"]["zone_mib"] * MIB // BLOCK
    seed = sum(name.encode())
    traces: dict[str, tuple[Callable[[], str], str]] = {
        "random": (lambda: iolog(random_requests(size, seed, 250)), ""),
        "chunks": (lambda: iolog(chunk_requests(min(size, 60 * zone_blocks), zone_blocks)), "idle_rlow=60 rlow=20"),
    }
    if name.endswith("-fresh") and "ops_after" in known:
        rows = [*(known["ops_before_crash_point"] or []), *known["ops_after"]]
        traces["vector"] = (lambda: iolog(operations(rows)), "")
    for trace, (content, options) in traces.items():
        steps: tuple[Step, ...] = (
            made,
            file_of("trace", content),
            f"zoned replay {paths} --trace trace {options}",
            f"dmzadm --check {paths} --verbose",
        )
        yield Case(f"dm-zoned/replay/{name}-{trace}", steps, f"{name}-{trace}" not in DM_QUICK_REPLAYS)
        if trace == "random":
            for at in (7, 60, 333):
                crash: tuple[Step, ...] = (
                    *steps[:2],
                    f"zoned replay {paths} --trace trace rlow=60,idle_rlow=100 --seed 5 --crash-at {at}",
                    f"zoned check {paths}",
                    f"zoned replay {paths} --trace trace --option rlow=60 --pattern zero",
                    f"dmzadm --check {paths}",
                )
                yield Case(f"dm-zoned/replay/{name}-crash-at-{at}", crash, f"{name}-{at}" not in DM_QUICK_REPLAYS)
            dry = (
                *steps[:2],
                f"zoned replay {paths} --trace trace --dry-run",
                f"zoned replay {paths} --trace trace --check-each idle_rlow=0",
            )
            yield Case(f"dm-zoned/replay/{name}-check-each", dry, slow=True)


def _dm_repairs(name: str, made: tuple[Step, ...], paths: str) -> Iterator[Case]:
    allow = consents("dm-zoned")
    short = allow.replace("dm-zoned.", "")
    look = f"dmzadm --check {paths}"
    yield Case(
        f"dm-zoned/damaged/{name}",
        (*made, look, f"{look} --verbose", f"zoned check {paths}", f"zoned check {paths} --repair --dry-run"),
    )
    for kind, repair, slow in (
        ("plain", f"zoned check {paths} --repair", True),
        ("allow", f"zoned check {paths} --repair {allow}", False),
        ("set-0", f"zoned check {paths} --repair --use-set 0", True),
        ("set-1", f"zoned check {paths} --repair --use-set 1 {allow}", True),
        ("settings", f"zoned check {paths} --repair -o overlap=buffer -o reclaim=clear", True),
        ("dmzadm", f"dmzadm --repair {paths}", False),
        ("dmzadm-allow", f"dmzadm --repair {paths} {short}", True),
        ("dmzadm-set-0", f"dmzadm --repair {paths} --use-set 0 {short}", True),
        ("dmzadm-set-1", f"dmzadm --repair {paths} --use-set 1", True),
        ("dmzadm-settings", f"dmzadm --repair {paths} --set overlap=buffer --set reclaim=clear {short}", True),
        ("json", f"dmzadm --repair {paths} --json", True),
    ):
        yield Case(f"dm-zoned/repair/{name}-{kind}", (*made, repair, look), slow)
    undone = (
        f"zoned check {paths} --repair {allow} --undo a.undo",
        f"zoned undo a.undo {paths} --dry-run",
        f"zoned undo a.undo {paths}",
    )
    yield Case(f"dm-zoned/repair/{name}-undo", (*made, *undone, look), slow=True)
    outputs = " ".join(f"--output {n}.copy" for n in range(len(paths.split())))
    yield Case(f"dm-zoned/repair/{name}-output", (*made, f"zoned check {paths} --repair {outputs}"), slow=True)
    read = (f"zoned export {paths} -o out.raw --quiet --skip-errors", f"zoned dump {paths}", f"zoned inspect {paths}")
    yield Case(f"dm-zoned/damaged/{name}-export", (*made, *read), slow=True)
    trace = file_of("trace", lambda: iolog(random_requests(12000, 3, 60)))
    yield Case(
        f"dm-zoned/replay/damaged-{name}", (*made, trace, f"zoned replay {paths} --trace trace", look), slow=True
    )


def dm_zoned() -> Iterator[Case]:
    yield from _dm_formats()
    yield from _dm_vectors()
    for file in ("hm64x1", "dual"):
        document = facts(f"dm-zoned/corruptions-{file}")
        base = document["base"]
        images = _dm_images(base, "clean")
        for variant in document["variants"]:
            made = (vector(f"dm-zoned/{base}", *images), partial(_dm_damage, base, variant))
            yield from _dm_repairs(f"{base}-{variant.get('id') or variant['name']}", made, " ".join(images))


# -- ZDM

ZDM_START = {"fmt-64z-1mib": 2048, "pop-1mib-hm": 2048, "fmt-whole": 0}
ZDM_NAMES = (
    "fmt-16z", "fmt-64z-1mib", "fmt-1101z", "fmt-whole", "pop-small", "pop-clean", "pop-journal", "pop-1mib-hm",
    "pop-gc", "pop-1101z", "gen-third-slot", "cut-torn-md", "cut-wp", "cut-direct", "stale-trim", "old-r108",
    "old-r110", "old-r110-pad", "old-r127",
)  # fmt: skip
ZDM_QUICK = ("pop-journal",)
ZDM_QUICK_DAMAGE = ("fwd-beyond-wp", "rev-missing")


def _zdm_damage(case: dict[str, Any]) -> None:
    for patch in case["patches"]:
        poke("disk.img", patch["block"] * BLOCK + patch["offset"], bytes.fromhex(patch["hex"]))
    for patch in case["zone_patches"]:
        set_zone("disk.img", patch["zone"], wp=patch.get("wp"), condition=patch.get("cond"))


def _zdm_repairs(name: str, made: tuple[Step, ...], start: int, *, slow: bool) -> Iterator[Case]:
    where = f"--start {start} disk.img"
    allow = consents("zdm")
    look = (f"zdmadm --check {where}", f"zdmadm --probe {where}", f"zoned check {where}")
    yield Case(
        f"zdm/repair/{name}",
        (
            *made,
            *look,
            f"zoned check {where} --repair --dry-run",
            f"zoned check {where} --repair",
            f"zdmadm -k {where}",
            f"zoned check {where} --repair {allow}",
            f"zdmadm -k {where}",
        ),
        slow,
    )


def _zdm_undo_and_replay(name: str, start: int) -> Iterator[Case]:
    where = f"--start {start} disk.img"
    made, look = vector(f"zdm/{name}"), f"zdmadm --check {where}"
    undone = (f"zoned check {where} --repair --undo a.undo --json", UNDO, look)
    yield Case(f"zdm/repair/{name}-undo", (made, *undone), slow=True)
    trace = file_of("trace", lambda: iolog(random_requests(40000, 3, 60)))
    read = (f"zoned map {where}", f"zoned zdm status {where}", f"zoned zdm zones {where}", f"zoned inspect {where}")
    yield Case(f"zdm/replay/{name}", (made, *read, trace, f"zoned replay {where} --trace trace", look), slow=True)


def zdm() -> Iterator[Case]:
    for name in ZDM_NAMES:
        start = ZDM_START.get(name, 524288)
        where = f"--start {start} disk.img"
        made = vector(f"zdm/{name}")
        yield from _zdm_repairs(name, (made,), start, slow=name not in ZDM_QUICK)
        yield from _zdm_undo_and_replay(name, start)
        dumped = (
            f"zoned dump {where} -o dump.json",
            f"zdmadm --wipe --force {where}",
            f"zoned restore {where} -i dump.json --force --undo a.undo",
            f"zdmadm --check {where}",
        )
        yield Case(f"zdm/dump/{name}", (made, *dumped), slow=name != "pop-clean")
        changed = (
            f"zdmadm --set --gc off --cache-size 77 {where} --json",
            f"zdmadm --restore --dry-run {where}",
            f"zdmadm --restore --trim 0 --journal-age 3 {where}",
            f"zdmadm --unload --dry-run {where}",
            f"zdmadm --wipe {where}",
            f"zdmadm --wipe --force --dry-run {where}",
            f"zdmadm --wipe --force --reset-zones --undo a.undo {where}",
            f"zdmadm --probe {where}",
            UNDO,
        )
        yield Case(f"zdm/set/{name}", (made, *changed), slow=name != "pop-clean")
    for file in ("corrupt-clean", "corrupt-journal"):
        document = facts(f"zdm/{file}")
        for case in document["cases"]:
            made_damaged = (vector(f"zdm/{case['base']}"), partial(_zdm_damage, case))
            quick = file == "corrupt-clean" and case["name"] in ZDM_QUICK_DAMAGE
            start = ZDM_START.get(case["base"], 524288)
            yield from _zdm_repairs(f"{file}-{case['name']}", made_damaged, start, slow=not quick)
    yield from _zdm_replays()
    yield from _zdm_formats()


def _zdm_replays() -> Iterator[Case]:
    where = "--start 524288 disk.img"
    for name in ("engine-1", "engine-2"):
        known = facts(f"zdm/{name}")
        trace = file_of("trace", partial(lambda rows: iolog(operations(rows)), known["ops"]))
        steps = (
            vector(f"zdm/{known['base']}"),
            trace,
            f"zoned replay {where} --trace trace",
            f"zdmadm --check {where}",
        )
        yield Case(f"zdm/replay/{name}", steps, slow=name == "engine-1")
        crash = f"zoned replay {where} --trace trace --crash-at 500 --seed 9 --option sb-uuid={UUIDS[0]}"
        again = f"zoned replay {where} --trace trace --pattern zero"
        yield Case(f"zdm/replay/{name}-crash", (*steps[:2], crash, f"zoned check {where}", again), slow=True)
    many = file_of("trace", lambda: iolog(random_requests(120000, 4, 3000, 600)))
    for name in ("pop-gc", "pop-clean", "pop-1101z"):
        steps = (vector(f"zdm/{name}"), many, f"zoned replay {where} --trace trace", f"zdmadm --check {where}")
        yield Case(f"zdm/replay/{name}-much", steps, slow=True)


def _zdm_formats() -> Iterator[Case]:
    create = "zoned image create a.img --zones 16 --zone-size 256MiB --conventional"
    for name, (drive, options, slow) in {
        "plain": (f"{create} 8", "--start 524288", False),
        "options": (
            f"{create} 8",
            f"--start 524288 --label attic -R 20 -t 0 --uuid {UUIDS[0]} --gc on -q 4 --json",
            True,
        ),
        "1mib": (f"{create} 8", "--start 2048 -a 1 --cache-timeout 99 -v", True),
        "whole": (f"{create} 8", "--force", True),
        "host-aware": (f"{create} 0 --model host-aware", "--start 524288 --reset-zones", True),
        "host-managed": (f"{create} 0", "--start 524288", True),
        "dry-run": (f"{create} 8", "--start 524288 --dry-run", False),
        "undo": (f"{create} 8", "--start 524288 --undo a.undo", True),
        "ignored": (f"{create} 8", f"--start 524288 --dry-run --label {'x' * 64} --journal-age 501 --gc maybe", False),
        "large": (f"{create} 8 --force --zones 1101", "--start 524288", True),
    }.items():
        steps = (
            drive,
            f"zdmadm --create {options} a.img",
            "zdmadm --probe a.img",
            "zdmadm --check --start 524288 a.img",
        )
        yield Case(f"zdm/format/{name}", (*steps, f"zdmadm --create {options} a.img"), slow)


# -- zonefs


def _zonefs_put(name: str, seed: int, length: int) -> Step:
    return file_of(name, lambda: random.Random(seed).randbytes(length))


def _zonefs_volume(name: str, made: Sequence[Step], *, slow: bool = False) -> Iterator[Case]:
    yield Case(
        f"zonefs/read/{name}",
        (
            *made,
            "zoned zonefs check disk.img",
            "zoned probe disk.img",
            "zoned zonefs ls -l disk.img",
            "zoned zonefs ls --json disk.img --kernel 6.1",
            "zoned zonefs stat -f disk.img",
            "zoned inspect disk.img",
            "zoned dump disk.img",
            "mkzonefs disk.img",
        ),
        slow,
    )
    repair = "zoned check --layout zonefs disk.img --repair"
    allow = consents("zonefs")
    chosen = f"-o label=named -o uuid={UUIDS[0]} --option features:perm=600"
    for kind, lines in {
        "plain": (f"{repair} --dry-run", repair),
        "allow": (f"{repair} {allow} --undo a.undo", "zoned zonefs check disk.img", UNDO),
        "settings": (f"{repair} {chosen} --json", "zoned zonefs check disk.img"),
    }.items():
        yield Case(f"zonefs/repair/{name}-{kind}", (*made, *lines), slow)
    put = "zoned zonefs put --quiet disk.img"
    yield Case(
        f"zonefs/write/{name}",
        (
            *made,
            _zonefs_put("data", 1, 10000),
            _zonefs_put("blocks", 2, 300 * BLOCK),
            f"{put} /seq/0 data",
            f"{put} /seq/0 data --pad --dry-run",
            f"{put} /seq/0 data --pad --json",
            f"{put} /seq/1 blocks",
            f"{put} /seq/1 blocks",
            f"{put} /seq/3 data --pad --offset 4096",
            f"{put} /cnv/0 data --offset 8KiB",
            f"{put} /cnv/1 blocks --offset 512",
            "zoned zonefs truncate disk.img /seq/0 max",
            "zoned zonefs truncate disk.img /seq/1 0 --dry-run",
            "zoned zonefs truncate disk.img /seq/1 0",
            "zoned zonefs truncate disk.img /seq/2 4096",
            f"{put} /seq/1 data --pad",
            "zoned zonefs truncate disk.img /cnv/0 0",
            "zoned zonefs ls -l disk.img",
        ),
        slow,
    )
    dumped = (
        "zoned dump disk.img -o dump.json",
        "mkzonefs -f -L new disk.img",
        "zoned restore disk.img -i dump.json --force",
    )
    yield Case(f"zonefs/dump/{name}", (*made, *dumped, "zoned zonefs ls -l disk.img"), slow)
    again = ("mkzonefs -f -v disk.img", f"mkzonefs -f --uuid {UUIDS[1]} -o aggr_cnv,uid=7,gid=8,perm=0444 disk.img")
    yield Case(f"zonefs/format/again-{name}", (*made, *again, "zoned zonefs check disk.img"), slow)


def zonefs() -> Iterator[Case]:
    for path in sorted((VECTORS / "zonefs").glob("p*.tar.xz")):
        name = path.name.removesuffix(".tar.xz")
        yield from _zonefs_volume(name, [vector(f"zonefs/{name}")])
    for path in sorted((VECTORS / "zonefs" / "superblocks").glob("*.bin")):
        for base in ("p1-default", "p3-noconv-runt"):
            made = (vector(f"zonefs/{base}"), partial(lambda path: poke("disk.img", 0, path.read_bytes()), path))
            slow = base != "p1-default"
            for case in _zonefs_volume(f"{base}-{path.stem}", made):
                quick = case.name.startswith("zonefs/repair/")
                yield Case(case.name, case.steps, slow or not quick)
    for zone0, condition in (("reset", EMPTY), ("open", IMPLICIT_OPEN), ("read-only", 13), ("offline", 15)):
        made = (vector("zonefs/p3-noconv-runt"), partial(set_zone, "disk.img", 0, wp=0, condition=condition))
        yield from _zonefs_volume(f"p3-zone0-{zone0}", made, slow=zone0 != "reset")
    yield from _zonefs_formats()


def _zonefs_formats() -> Iterator[Case]:
    for number, row in enumerate(facts("zonefs/mkzonefs-cli")):
        device = row["device"]
        create = (
            f"zoned image create a.img --size {device['size_mib']}MiB --zone-size {device['zone_mib']}MiB "
            f"--conventional {device['nr_conv']} --block-size {device['block']}"
        )
        if "cap_mib" in device:
            create += f" --zone-capacity {device['cap_mib']}MiB"
        words = ["a.img" if word == "DEV" else f"'{word}'" for word in row["args"]]
        line = " ".join(["mkzonefs", *words])
        yield Case(f"zonefs/format/cli-{number:02}", (create, line, "zoned zonefs stat -f a.img", line))
    create = "zoned image create a.img --zones 12 --zone-size 1MiB --conventional"
    for name, drive, options in (
        ("label", f"{create} 2", f"-L attic --uuid {UUIDS[2]}"),
        ("json", f"{create} 2", "--json -o uid=5"),
        ("dry-run", f"{create} 0", "--dry-run -o perm=700"),
        ("dry-run-json", f"{create} 0", "--dry-run --json"),
        ("zns", f"{create} 0 --model zns --max-open 3 --max-active 4", "-v"),
        ("host-aware", f"{create} 2 --model host-aware", "-v"),
    ):
        fill = ("zoned zone finish a.img --zone 5 --count 3", "zoned zone open a.img --zone 9")
        yield Case(f"zonefs/format/{name}", (drive, *fill, f"mkzonefs {options} a.img", "zoned report a.img"))


# -- btrfs


def btrfs() -> Iterator[Case]:
    for name, known in facts("btrfs-zoned/expected").items():
        made = vector(f"btrfs-zoned/{name}")
        large = name == "p13-mirrors-8GiB-zones"
        repair = "zoned check --layout btrfs disk.img --repair"
        allow = consents("btrfs")
        yield Case(
            f"btrfs/read/{name}",
            (
                made,
                "zoned check disk.img",
                "zoned probe disk.img",
                "zoned btrfs supers disk.img --roots",
                "zoned btrfs supers disk.img --latest",
                "zoned btrfs supers disk.img --full",
                "zoned inspect disk.img",
                "zoned export disk.img -o super.bin",
                f"{repair} --dry-run",
            ),
            slow=not name.startswith(("pv", "p01", "p11", "p13")),
        )
        yield Case(
            f"btrfs/repair/{name}",
            (made, f"{repair} --undo a.undo", "zoned check disk.img", UNDO),
        )
        yield Case(f"btrfs/repair/{name}-allow", (made, f"{repair} {allow} --json", "zoned check disk.img"))
        yield Case(f"btrfs/repair/{name}-deep", (made, f"{repair} --deep {allow}"), slow=True)
        yield Case(
            f"btrfs/repair/{name}-output", (made, f"{repair} --output b.img"), slow=large or not name.startswith("pv")
        )
        generations = known["roots"]["generations"] if "roots" in known else []
        for place in ("first", "middle", "last") if generations else ():
            generation = generations[{"first": 0, "middle": len(generations) // 2, "last": -1}[place]]
            line = f"zoned btrfs rollback --to-generation {generation} disk.img"
            steps = (
                f"{line} --dry-run",
                f"{line} --undo a.undo --json",
                "zoned check disk.img",
                UNDO,
            )
            again = (f"{line} --drop-log", "zoned btrfs supers disk.img", line)
            yield Case(f"btrfs/rollback/{name}-{place}", (made, *steps, *again), slow=large or place != "middle")


# -- inplace-compress

CONSENTS = ("relink", "zero-unreadable", "salvage-raw", "decode-mistagged", "swap-words", "clear-slack")


def _inplace_damage(case: dict[str, Any]) -> None:
    for offset, data in case["patches"]:
        poke("disk.img", offset, bytes.fromhex(data))
    if "truncate_to" in case:
        os.truncate("disk.img", case["truncate_to"])


def _inplace_repairs(name: str, made: Sequence[Step], *, slow: bool = False) -> Iterator[Case]:
    every = "zoned inplace-compress"
    repair = "zoned check --layout inplace-compress disk.img --repair"
    yield Case(
        f"inplace-compress/read/{name}",
        (
            *made,
            "zoned check --layout inplace-compress disk.img",
            f"{every} check disk.img --deep --processes 1",
            f"{every} check disk.img --metadata-only --json",
            f"{repair} --dry-run",
        ),
        slow,
    )
    yield Case(
        f"inplace-compress/repair/{name}",
        (*made, f"{every} repair disk.img --undo a.undo", UNDO),
        slow,
    )
    settings = " ".join(f"--set {word}" for word in CONSENTS if word != "zero-unreadable")
    yield Case(f"inplace-compress/repair/{name}-check", (*made, repair, f"{repair} {settings}"), slow=True)
    yield Case(f"inplace-compress/repair/{name}-allow", (*made, f"{repair} {consents('inplace-compress')}"), slow)
    together = " ".join(f"--{word}" for word in CONSENTS if word != "salvage-raw")
    yield Case(f"inplace-compress/repair/{name}-all", (*made, f"{every} repair disk.img {together}"), slow)
    for word in CONSENTS:
        needed = {"relink": "map", "swap-words": "endian", "clear-slack": "slack", "decode-mistagged": "tag"}.get(
            word, ""
        )
        steps = (*made, f"{every} repair disk.img --{word} --dry-run", f"{every} repair disk.img --{word}")
        yield Case(f"inplace-compress/repair/{name}-{word}", steps, slow=slow or needed not in name or not needed)
    sized = f"{every} repair disk.img --data-blocks 1022 --table 'writethrough,compressor=lzo'"
    yield Case(f"inplace-compress/repair/{name}-sized", (*made, sized), slow=True)
    read = (
        "zoned export disk.img -o out.raw --quiet --skip-errors -j 1",
        "zoned dump disk.img",
        f"{every} stat disk.img",
    )
    yield Case(f"inplace-compress/export/{name}", (*made, *read), slow=True)


def inplace_compress() -> Iterator[Case]:
    every = "zoned inplace-compress"
    for name, known in facts("inplace-compress/expected").items():
        made = vector(f"inplace-compress/{name}")
        large = name.startswith(("p9", "p2", "p5"))
        yield from _inplace_repairs(name, [made], slow=large)
        read = ("zoned export disk.img -o out.raw --quiet -j 1", "zoned map disk.img", "zoned table disk.img",
                f"{every} stat disk.img", "zoned probe disk.img", "zoned inspect disk.img")  # fmt: skip
        yield Case(f"inplace-compress/volume/{name}", (made, *read), slow=large)
        dumped = (
            "zoned dump disk.img -o dump.json",
            f"{every} format disk.img",
            f"{every} format disk.img --force --compressor lzo",
            "zoned restore disk.img -i dump.json --force --dry-run",
            "zoned restore disk.img -i dump.json --force --undo a.undo",
            f"{every} check disk.img",
        )
        yield Case(f"inplace-compress/dump/{name}", (made, *dumped), slow=large)
        for options in ("window=2", "window=32", "writeback=5", "window=32,emulate=misplaced-data", "discard=refuse"):
            trace = file_of("trace", partial(_inplace_trace, known["data_blocks"], sum(name.encode())))
            steps = (made, trace, f"zoned replay disk.img --trace trace {options}", f"{every} check disk.img --deep")
            slow = large or options not in ("window=2", "window=32") or name.startswith(("p6", "p8", "p4"))
            yield Case(f"inplace-compress/replay/{name}-{options}", steps, slow)
        crash = "zoned replay disk.img --trace trace --crash-at 40 writeback=5"
        trace = file_of("trace", partial(_inplace_trace, known["data_blocks"], 8))
        cut = (made, trace, crash, f"{every} check disk.img", "zoned replay disk.img --trace trace --check-each")
        yield Case(f"inplace-compress/replay/{name}-crash", cut, slow=True)
    for name, case in facts("inplace-compress/corrupt").items():
        damaged = (vector(f"inplace-compress/{case['base']}"), partial(_inplace_damage, case))
        yield from _inplace_repairs(name, damaged, slow=name.startswith("842-"))
    yield from _inplace_formats()


def _inplace_trace(size: int, seed: int) -> str:
    return iolog(random_requests(size, seed, 80, 12))


def _inplace_formats() -> Iterator[Case]:
    every = "zoned inplace-compress"
    made = partial(_empty_file, "a.img", 8 * MIB)
    for name, options in {
        "plain": "",
        "842": "--compressor 842",
        "small": "--data-blocks 100 --json",
        "too-many": "--data-blocks 100000",
        "table": "--table '0 8000 inplacecompress device=a.img,writethrough,compressor=lzo'",
        "contradiction": "--table 'compressor=842' --compressor lzo",
        "dry-run": "--dry-run",
        "start": "--start 2048",
        "undo": "--undo a.undo",
    }.items():
        lines = (f"{every} format a.img {options}", f"{every} check a.img", f"{every} format a.img {options}")
        yield Case(f"inplace-compress/format/{name}", (made, *lines))
    for name, options, slow in (
        ("lzo", "--exact --window 2", False),
        ("lzo-32", "--exact --window 32", False),
        ("842", "--compressor 842 --window 2", True),
        ("842-32", "--compressor 842 --window 32", True),
        ("start", "--exact --start 2048", True),
        ("json", "--exact --data-blocks 500 --json", True),
        ("too-small", "--exact --data-blocks 10", False),
    ):
        content = file_of("raw", lambda: mixed_content(5, 200))
        line = f"{every} import raw a.img -j 1 --quiet {options}"
        steps = (made, content, line, f"{every} check a.img --deep -j 1", line, f"{line} --force")
        yield Case(f"inplace-compress/import/{name}", steps, slow)
    for name, compressor in (("noise", "lzo"), ("noise-842", "842")):
        content = file_of("raw", lambda: random.Random(3).randbytes(300000) + bytes(100 * BLOCK) + b"end")
        line = f"{every} import raw a.img -j 1 --quiet --compressor {compressor}"
        back = "zoned export a.img -o back.raw --quiet -j 1"
        yield Case(f"inplace-compress/import/{name}", (made, content, line, back))


# -- drives


def drives() -> Iterator[Case]:
    base = "zoned image create a.img --zones 16 --zone-size 1MiB"
    for name, options in {
        "managed": "--conventional 3",
        "aware": "--conventional 3 --model host-aware",
        "zns": "--model zns --zone-capacity 768KiB --max-open 3 --max-active 4",
        "limits": "--max-open 2 --max-active 3",
    }.items():
        zone = "zoned zone"
        yield Case(
            f"drive/zones/{name}",
            (
                f"{base} {options}",
                f"{zone} open a.img --zone 4 --count 2",
                f"{zone} open a.img --zone 4 --count 9",
                f"{zone} close a.img --zone 4",
                f"{zone} finish a.img --zone 6 --count 2 --dry-run",
                f"{zone} finish a.img --zone 6 --count 2",
                f"{zone} finish a.img --offset 16384",
                f"{zone} reset a.img --zone 7",
                f"{zone} reset a.img --zone 0 --count 16",
                f"{zone} open a.img --zone 12",
                f"{zone} finish a.img --all",
                "zoned report a.img",
                f"{zone} reset a.img --all",
                "zoned report a.img --format csv",
                f"{base} {options}",
                f"{base} {options} --force --block-size 512 --json",
            ),
        )
    for path in sorted((VECTORS / "zone-report").glob("*/disk.img.zones")):
        folder = path.parent
        copy = partial(_zone_report, folder)
        yield Case(
            f"drive/import/{folder.name}",
            (
                copy,
                "zoned image import a.img --zones disk.img.zones --data raw --quiet",
                "zoned report a.img",
                "zoned image import b.img --zones blkzone_report.txt --data raw --quiet --model host-managed",
                "zoned image info b.img --json",
                "zoned zone reset a.img --zone 3 --count 4",
                "zoned zone finish b.img --zone 5",
                "zoned image convert b.img directory",
            ),
        )
    filled = (
        "zoned image create a.img --zones 16 --zone-size 1MiB --conventional 4",
        "mkzonefs a.img",
        _zonefs_put("data", 4, 40 * BLOCK),
        "zoned zonefs put --quiet a.img /seq/2 data",
        "zoned zonefs put --quiet a.img /cnv/1 data",
        "zoned zonefs truncate a.img /seq/3 max",
    )
    back = (
        "zoned image convert a.img directory --quiet",
        "zoned zonefs put --quiet directory /seq/2 data",
        "zoned zonefs put --quiet directory /seq/5 data",
        "zoned zonefs truncate directory /seq/4 max",
        "zoned zonefs truncate directory /seq/2 0",
        "mkzonefs -f directory",
        "dmzadm --format directory --force --label=loop --seq=2",
        "zoned image convert directory b.img --quiet",
        "dmzadm --check b.img",
    )
    yield Case("drive/convert/zonefs", (*filled, *back))
    trace = file_of("trace", lambda: iolog(random_requests(1500, 6, 120, 20)))
    replay = (
        "dmzadm --format directory --force --seq=2 --label=a",
        trace,
        "zoned replay directory --trace trace rlow=70",
    )
    yield Case(
        "drive/convert/dm-zoned", (*filled, back[0], *replay, "dmzadm --check directory", "zoned report directory")
    )


def _zone_report(folder: Path) -> None:
    for name in ("disk.img.zones", "blkzone_report.txt"):
        shutil.copy(folder / name, name)
    (sectors,) = struct.unpack("<Q", peek("disk.img.zones", 32, 8))
    _empty_file("raw", sectors * 512)
    for at in range(0, sectors * 512, MIB):
        poke("raw", at, random.Random(at).randbytes(BLOCK))


def all_cases() -> Iterator[Case]:
    for layout in (drives, dm_zoned, zdm, zonefs, btrfs, inplace_compress):
        yield from layout()
