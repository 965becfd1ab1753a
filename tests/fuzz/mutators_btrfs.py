"""btrfs: super blocks in rings, zone conditions that say which is the newest, and the trees behind them."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tests.formats.btrfs.images import make_super
from tests.fuzz.content import Content
from tests.fuzz.drives import PAGE, Base, BaseDrive, FuzzDrive, base_of_archive, written_base
from tests.fuzz.mutations import Mutation, damage, how_many, number, put_number, zone_change
from tests.fuzz.subjects import Subject, chosen
from zoned_tools.device.base import Geometry
from zoned_tools.device.zones import Model, make_table, written_sectors
from zoned_tools.errors import ZonedError
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, seal
from zoned_tools.formats.btrfs.export import open_views
from zoned_tools.formats.btrfs.layout import MAGIC_OFFSET, MIRROR_BYTENR, SUPER_BLOCK_OFFSETS, SUPER_DTYPE
from zoned_tools.formats.contract import Settings

if TYPE_CHECKING:
    from zoned_tools.device.emulated import EmulatedDrive
    from zoned_tools.formats.contract import Target

_MIB = 1 << 20
_TINY_ZONE = 4 * _MIB

BASES = {
    "ring-one": 4,
    "ring-both": 4,
    "ring-wrapped": 4,
    "ring-512": 2,
    "p02-inuse0": 2,
    "p04-full0-inuse1": 2,
    "p12-fsync-equal-gen": 2,
    "p11-conv-sb": 2,
    "p21-emulated-regular": 1,
    "p08-full0-inuse1-again": 1,
    "g01-dup-healthy": 2,
    "g17-conv9-mixed-behind": 1,
    "g18-raid1-two-healthy": 2,
    "g20-raid0-two-healthy": 1,
}

_RINGS: dict[str, tuple[list[int], list[int]]] = {
    "ring-one": (list(range(5, 12)), []),
    "ring-both": (list(range(5, 21)), list(range(21, 25))),
    "ring-wrapped": (list(range(37, 42)), list(range(21, 37))),
    "ring-512": (list(range(5, 12)), []),
}
"""Generations of the super blocks in zones 0 and 1; 16 fill a zone."""


def _load(name: str) -> Base:
    if name not in _RINGS:
        files = ("disk.img", "disk2.img") if "-two-" in name else ("disk.img",)
        return base_of_archive("btrfs-zoned", name, files)
    table = make_table(12 * _TINY_ZONE // 512, _TINY_ZONE // 512, capacity_sectors=16 * PAGE // 512)
    unit = 512 if name == "ring-512" else PAGE
    geometry = Geometry(Model.HOST_MANAGED, 12 * _TINY_ZONE, _TINY_ZONE, 12, unit, unit, unit)

    def write(drive: EmulatedDrive) -> None:
        for zone, generations in enumerate(_RINGS[name]):
            for index, generation in enumerate(generations):
                drive.write(zone * _TINY_ZONE + index * PAGE, make_super(generation, log_root=(generation % 3) * 4096))

    return Base((written_base(name, geometry, table, write),))


@dataclass
class Places:
    """Where super blocks and tree nodes are.

    Attributes:
        supers: offsets of super blocks, by position.
        nodes: offsets of blocks outside the rings that hold something.
        rings: zones of the rings.
    """

    supers: list[int]
    nodes: list[int]
    rings: list[int]


def _places(base: Base) -> Places:
    found = base.facts.get("places")
    if found is None:
        found = base.facts["places"] = _look(base.drives[0])
    return cast("Places", found)


def _look(drive: BaseDrive) -> Places:
    size, zone_bytes = drive.geometry.size_bytes, drive.geometry.zone_bytes
    magic = b"_BHRfS_M"
    supers, nodes = [], []
    spans = [(0, min(size, 8 * _MIB))]
    if len(drive.table):
        written = written_sectors(drive.table)
        ends = np.where(written >= 0, written, drive.table["length_sectors"].astype(np.int64)) * 512
        spans = [(int(zone * zone_bytes), int(zone * zone_bytes + end)) for zone, end in enumerate(ends)]
    for start, end in spans:
        raw = drive.read(start, end - start)
        for at in range(0, len(raw) - PAGE + 1, PAGE):
            if raw[at + MAGIC_OFFSET : at + MAGIC_OFFSET + 8] == magic:
                supers.append(start + at)
            elif any(raw[at : at + 64]):
                nodes.append(start + at)
    return Places(supers or [64 << 10], nodes[:2000], [0, 1] if zone_bytes else [])


def _seal_super(drive: FuzzDrive, offset: int) -> None:
    block = drive.peek(offset, PAGE)
    if len(block) == PAGE:
        at = SUPER_BLOCK_OFFSETS["csum_type"]
        kind = int.from_bytes(block[at : at + 2], "little")
        if kind in ALGORITHMS:
            drive.poke(offset, seal(block, kind))


def _seal_node(drive: FuzzDrive, offset: int, length: int) -> None:
    node = drive.peek(offset, length)
    drive.poke(offset, seal(node, 0))


class _Generator:
    def __init__(self, choose: random.Random, base: Base) -> None:
        self.choose = choose
        self.drive = base.drives[0]
        self.places = _places(base)
        self.sealed: set[int] = set()
        self.nodes: set[int] = set()

    def make(self) -> list[Mutation]:
        weighted = [(8, self.field), (3, self.anything), (3, self.exchange)]
        if len(self.drive.table):
            weighted += [(6, self.zone), (3, self.append)]
        if self.places.nodes:
            weighted += [(2, self.node)]
        made: list[Mutation] = []
        for _ in range(how_many(self.choose)):
            made += chosen(self.choose, weighted)
        if self.choose.random() < 0.8:
            made += [["seal", 0, "super", offset] for offset in sorted(self.sealed)]
            made += [["seal", 0, "node", offset, 4 * PAGE] for offset in sorted(self.nodes)]
        return made

    def position(self) -> int:
        """A super block, mostly one of the newest of a zone."""
        supers = self.places.supers
        if self.choose.random() < 0.3:
            return self.choose.choice(supers)
        zone_bytes = self.drive.geometry.zone_bytes or _TINY_ZONE
        last = {offset // zone_bytes: offset for offset in supers}
        end = self.choose.choice(list(last.values()))
        return self.choose.choice([o for o in (end, end, end - PAGE, end - 2 * PAGE) if o in supers])

    def field(self) -> list[Mutation]:
        choose, offset = self.choose, self.position()
        name = choose.choice((*SUPER_BLOCK_OFFSETS, "generation", "generation", "bytenr", "log_root", "root"))
        at = SUPER_BLOCK_OFFSETS[name]
        size = SUPER_DTYPE[name].itemsize
        self.sealed.add(offset)
        if size > 8:
            inner = choose.randrange(size)
            return [
                ["put", 0, offset + at + inner, choose.randbytes(min(choose.choice((1, 8, 16)), size - inner)).hex()]
            ]
        old = int.from_bytes(self.drive.read(offset + at, size), "little")
        return [put_number(number(choose, size, old), size, 0, offset + at)]

    def zone(self) -> list[Mutation]:
        return [zone_change(self.choose, 0, self.drive.table, self.places.rings)]

    def append(self) -> list[Mutation]:
        """A copy of a super block behind the last one, below a write pointer that has moved, or not."""
        choose, zone_bytes = self.choose, self.drive.geometry.zone_bytes
        zone = choose.choice((0, 1))
        row = self.drive.table[zone]
        slots = int(row["capacity_sectors"]) * 512 // PAGE
        written = min(max(int(written_sectors(self.drive.table)[zone]) * 512 // PAGE, 0), slots - 1)
        offset = zone * zone_bytes + written * PAGE
        made: list[Mutation] = [["copy", 0, self.position(), offset, PAGE]]
        if choose.random() < 0.7:
            made.append(["zone", 0, zone, 14 if written + 1 >= slots else 2, (written + 1) * PAGE // 512])
        if choose.random() < 0.5:
            made.append(put_number(choose.randrange(60), 8, 0, offset + SUPER_BLOCK_OFFSETS["generation"]))
            self.sealed.add(offset)
        return made

    def exchange(self) -> list[Mutation]:
        one, other = self.position(), self.position()
        return [[self.choose.choice(("copy", "swap")), 0, one, other, PAGE]]

    def anything(self) -> list[Mutation]:
        return [damage(self.choose, 0, self.position(), PAGE, self.places.supers)]

    def node(self) -> list[Mutation]:
        choose = self.choose
        offset = choose.choice(self.places.nodes) // (4 * PAGE) * 4 * PAGE
        self.nodes.add(offset)
        at, size = choose.choice(((48, 8), (56, 8), (80, 8), (88, 8), (96, 4), (100, 1), (101, 17), (118, 4), (122, 4)))
        if choose.random() < 0.3:
            return [damage(choose, 0, offset, 4 * PAGE)]
        return [["put", 0, offset + at, choose.randbytes(size).hex()]]


def newest_super(target: Target, settings: Mapping[str, str], places: Iterable[Hashable] | None = None) -> Content:
    """The newest valid super block but its checksum and place, which differ between mirrors."""
    try:
        block = open_views(target, Settings(settings))[0].mapper.read(MIRROR_BYTENR[0] // PAGE, 1)
    except ZonedError:
        return Content(opened=False)
    return Content({"newest": (block[32:48], block[56:])})


def _mutate(choose: random.Random, base: Base) -> list[Mutation]:
    return _Generator(choose, base).make()


SUBJECT = Subject(
    "btrfs", BASES, _load, _mutate, {"super": _seal_super, "node": _seal_node}, newest_super, session=None
)
