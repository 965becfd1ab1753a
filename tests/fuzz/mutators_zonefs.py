"""zonefs: one super block, and the zone table that is everything else."""

from __future__ import annotations

import random
import zlib
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

from tests.fuzz.content import UNREADABLE, Content
from tests.fuzz.drives import PAGE, VECTORS, Base, FuzzDrive, base_of_archive, written_base
from tests.fuzz.mutations import Mutation, damage, how_many, number, put_number, zone_change
from tests.fuzz.session import Used
from tests.fuzz.subjects import Subject, chosen
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import DeviceError, ZonedError
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES, with_checksum
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree, open_tree

if TYPE_CHECKING:
    from tests.fuzz.drives import BaseDrive
    from zoned_tools.device.emulated import EmulatedDrive
    from zoned_tools.formats.contract import Target

BASES = {
    "tiny": 5,
    "tiny-sequential": 4,
    "partition": 2,
    "p1-default": 1,
    "p2-aggr-owner-label": 1,
    "p3-noconv-runt": 1,
    "p4-cap-limits": 2,
    "p5-readonly-offline": 1,
    "p6-one-conv-aggr": 1,
    "p7a-interleaved-aggr": 1,
    "pc1-zone0-not-full": 1,
}

_ZONE = 64 << 10
_FIELDS = ((0, 4), (4, 4), (88, 8), (96, 4), (100, 4), (104, 4), (108, 8), (4088, 8))
_START = 4
"""First zone of the volume in the partition."""

MAX_FILES = 40


def _load(name: str) -> Base:
    match name:
        case "tiny":
            return Base((_tiny(8, 3),))
        case "tiny-sequential":
            return Base((_tiny(6, 0),))
        case "partition":
            return Base((_tiny(12, 7, _START),), _START * _ZONE // 512)
        case _:
            return base_of_archive("zonefs", name)


def _tiny(zones: int, conventional: int, first: int = 0) -> BaseDrive:
    """A drive whose files are written to some extent."""
    table = make_table(zones * _ZONE // 512, _ZONE // 512, nr_conventional=conventional, capacity_sectors=96)
    geometry = Geometry(Model.HOST_MANAGED, zones * _ZONE, _ZONE, zones, 4096, 4096, 4096)
    superblock = (VECTORS / "zonefs" / "superblocks" / "ok-all-features.bin").read_bytes()

    def write(drive: EmulatedDrive) -> None:
        if first:
            entry = bytes(4) + b"\x83" + bytes(3) + (first * _ZONE // 512).to_bytes(4, "little")
            entry += ((zones - first) * _ZONE // 512).to_bytes(4, "little")
            drive.write(0, (bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa" + bytes(4096 - 512))
        drive.write(first * _ZONE, superblock)
        if first >= conventional:
            drive.manage(ZoneOperation.FINISH, first)
        for zone in range(first + 1, zones - 1):
            drive.write(zone * _ZONE, random.Random(zone).randbytes(min(zone, 8) * PAGE))

    return written_base("tiny", geometry, table, write)


def _seal_super(drive: FuzzDrive, offset: int) -> None:
    raw = drive.peek(offset, SUPER_BLOCK_BYTES)
    if len(raw) == SUPER_BLOCK_BYTES:
        drive.poke(offset, with_checksum(raw))


def _mutate(choose: random.Random, base: Base) -> list[Mutation]:
    drive = base.drives[0]
    at = (base.start_sector or 0) * 512
    first = at // drive.geometry.zone_bytes
    sealed = False

    def field() -> list[Mutation]:
        nonlocal sealed
        sealed = True
        if choose.random() < 0.2:
            place, size = choose.choice(((8, 64), (72, 16)))
            return [["put", 0, at + place, choose.randbytes(size).hex()]]
        place, size = choose.choice(_FIELDS)
        old = int.from_bytes(drive.read(at + place, size), "little")
        return [put_number(number(choose, size, old), size, 0, at + place)]

    def zone() -> list[Mutation]:
        return [zone_change(choose, 0, drive.table, [first, first, first + 1])]

    def anything() -> list[Mutation]:
        return [damage(choose, 0, at, SUPER_BLOCK_BYTES)]

    def table() -> list[Mutation]:
        return [damage(choose, 0, 446, 66)] if at else zone()

    made: list[Mutation] = []
    for _ in range(how_many(choose)):
        made += chosen(choose, ((5, field), (6, zone), (2, anything), (1, table)))
    return made + ([["seal", 0, "super", at]] if sealed and choose.random() < 0.8 else [])


# -- content and sessions


def tree_content(target: Target, settings: Mapping[str, str], places: Iterable[Hashable] | None = None) -> Content:
    """Size and content of the files."""
    try:
        tree = open_tree(target, writable=False)
    except ZonedError:
        return Content(opened=False)
    paths = [p for p in places if isinstance(p, str)] if places is not None else _paths(tree)[:MAX_FILES]
    return Content({path: _digest(tree, path) for path in paths})


def _paths(tree: ZonefsTree) -> list[str]:
    return [stat.path for stat in tree.walk() if not stat.is_directory]


def _digest(tree: ZonefsTree, path: str) -> Hashable:
    try:
        stat = tree.stat(path)
        ends = tree.read(path, 0, PAGE) + tree.read(path, max(stat.size_bytes - PAGE, 0), PAGE)
    except ZonedError:
        return UNREADABLE
    return stat.size_bytes, zlib.crc32(ends)


def tree_session(target: Target, settings: Mapping[str, str], choose: random.Random) -> Used:
    """Append to files, overwrite, truncate; what was written reads back."""
    options = {"errors": choose.choice(("remount-ro", "zone-ro", "repair"))}
    if choose.random() < 0.3:
        options["explicit-open"] = "1"
    tree = open_tree(target, writable=True, options=options)
    used = Used()
    paths = _paths(tree)
    written: dict[str, tuple[int, bytes]] = {}
    for _ in range(choose.randrange(1, 8)):
        path = choose.choice(paths)
        used.touched.add(path)
        written.pop(path, None)
        handle = None
        try:
            handle = tree.open(path, writing=True)
            stat = tree.stat(path)
            unit = stat.block_bytes
            data = choose.randbytes(unit * choose.randrange(1, 4))
            match choose.randrange(5):
                case 0 | 1:
                    at = stat.size_bytes if stat.size_bytes < (stat.capacity_bytes or 0) else 0
                    done = tree.write(path, at, data)
                    written[path] = at, data[:done]
                case 2:
                    tree.truncate(path, choose.choice((0, stat.capacity_bytes or 0, 4096)))
                case 3:
                    done = tree.append(path, data)
                    written[path] = stat.size_bytes, data[:done]
                case _:
                    tree.read(path, choose.randrange(stat.size_bytes + 2), len(data))
        except DeviceError:
            pass
        finally:
            if handle is not None:
                tree.release(handle)
    used.faults += _verify(tree, written, "in the session")
    tree.close()
    used.faults += _verify(open_tree(target, writable=False), written, "after the session")
    return used


def _verify(tree: ZonefsTree, written: dict[str, tuple[int, bytes]], when: str) -> list[str]:
    faults = []
    for path, (at, data) in written.items():
        try:
            if tree.read(path, at, len(data)) != data:
                faults.append(f"file {path} reads back differently {when}")
        except ZonedError as error:
            faults.append(f"file {path} cannot be read {when}: {error.message}")
    return faults


SUBJECT = Subject("zonefs", BASES, _load, _mutate, {"super": _seal_super}, tree_content, tree_session)
