"""dm-zoned: super blocks, mapping tables, bitmaps of two sets, and the zones that they speak of."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tests.fuzz.drives import PAGE, VECTORS, Base, FuzzDrive, base_of_archive
from tests.fuzz.mutations import Mutation, damage, how_many, number, put_number, zone_change
from tests.fuzz.subjects import Subject, chosen
from zoned_tools.device.overlay import Overlay
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import UNMAPPED, MetadataLayout, superblock_crc
from zoned_tools.formats.dm_zoned.open import open_blocks, read_map

if TYPE_CHECKING:
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry

BASES = {
    "hm64x1-clean": 5,
    "hm64x1-crash": 4,
    "dual-clean": 4,
    "v1-clean": 2,
    "v1runt-clean": 2,
    "ha32x4-clean": 2,
    "triple-clean": 1,
    "hm6x256-clean": 1,
    "hm300x1-clean": 1,
    "hm64x1-fresh": 1,
}

_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 4), (44, 4), (112, 8))
_NAMES = ((48, 32), (80, 16), (96, 16))
_CRC_OFFSET, _GEN_OFFSET = 44, 8


def _load(name: str) -> Base:
    image, _, state = name.rpartition("-")
    facts = json.loads((VECTORS / "dm-zoned" / f"{image}.json").read_text())
    return base_of_archive("dm-zoned", image, facts["images"][state]["files"])


@dataclass
class Places:
    """Where things are on a base image: ``(drive, offset)`` of every block that is metadata.

    Attributes:
        zones: ids of the zones that are mapped, and of others.
    """

    geometry: TargetGeometry
    layout: MetadataLayout
    table: np.ndarray[tuple[int, int], np.dtype[np.uint32]]
    mapped: list[int]

    def at(self, block: int) -> tuple[int, int]:
        return self.geometry.locate(block)

    def map_entry(self, number_: int, chunk: int) -> tuple[int, int]:
        drive, offset = self.at(self.layout.map_block(number_))
        return drive, offset + 8 * chunk

    def bitmap(self, number_: int, zone: int) -> tuple[int, int]:
        return self.at(self.layout.bitmap_block(number_, zone))

    def superblocks(self) -> list[tuple[int, int]]:
        """Those of both sets, and of the members."""
        found = [self.at(self.layout.set_block(number_)) for number_ in (0, 1)]
        if self.geometry.is_multi:
            found += [(member.index, member.start_bytes) for member in self.geometry.members[1:]]
        return found

    def metadata(self) -> list[tuple[int, int]]:
        blocks = [
            self.layout.set_block(number_) + index for number_ in (0, 1) for index in range(self.layout.nr_meta_blocks)
        ]
        return [self.at(block) for block in blocks]


def _places(base: Base) -> Places:
    found = base.facts.get("places")
    if found is None:
        devices = tuple(Overlay(FuzzDrive(drive)) for drive in base.drives)
        blocks = open_blocks(Target("dm-zoned", devices))
        state = read_state(blocks)
        assert state.layout is not None
        assert state.chosen is not None
        table = read_map(blocks, state.layout, state.chosen)[: state.layout.nr_chunks]
        mapped = sorted(
            {int(zone) for zone in table.reshape(-1) if zone != UNMAPPED and zone < blocks.geometry.nr_zones}
        )
        found = Places(blocks.geometry, state.layout, table, mapped)
        base.facts["places"] = found
    return cast("Places", found)


def _seal_super(drive: FuzzDrive, offset: int) -> None:
    block = drive.peek(offset, PAGE)
    if len(block) == PAGE:
        crc = superblock_crc(block, int.from_bytes(block[_GEN_OFFSET : _GEN_OFFSET + 8], "little"))
        drive.poke(offset + _CRC_OFFSET, crc.to_bytes(4, "little"))


class _Generator:
    def __init__(self, choose: random.Random, base: Base) -> None:
        self.choose = choose
        self.base = base
        self.places = _places(base)
        self.sealed: set[tuple[int, int]] = set()

    def make(self) -> list[Mutation]:
        weighted = [
            (5, self.super_field),
            (9, self.map_entry),
            (8, self.bits),
            (5, self.zone),
            (2, self.exchange),
            (3, self.anything),
        ]
        made: list[Mutation] = []
        for _ in range(how_many(self.choose)):
            made += chosen(self.choose, weighted)
        if self.choose.random() < 0.85:
            made += [["seal", drive, "super", offset] for drive, offset in sorted(self.sealed)]
        return made

    def sets(self) -> list[int]:
        """Both sets, as after a write of the tables that lasted; or one of them."""
        return self.choose.choice(([0, 1], [0, 1], [0], [1]))

    def super_field(self) -> list[Mutation]:
        drive, offset = self.choose.choice(self.places.superblocks())
        self.sealed.add((drive, offset))
        if self.choose.random() < 0.15:
            at, size = self.choose.choice(_NAMES)
            name = self.choose.choice((bytes(size), self.choose.randbytes(size)))
            return [["put", drive, offset + at, name.hex()]]
        at, size = self.choose.choice(_FIELDS)
        old = int.from_bytes(self.base.drives[drive].read(offset + at, size), "little")
        return [put_number(number(self.choose, size, old), size, drive, offset + at)]

    def zone_id(self) -> int:
        """Something for an entry of the mapping table."""
        places, choose = self.places, self.choose
        nr_zones = places.geometry.nr_zones
        match choose.randrange(8):
            case 0:
                return UNMAPPED
            case 1 | 2:
                return choose.choice(places.mapped or [0])
            case 3:
                return choose.choice((nr_zones, nr_zones + 1, 1 << 31, UNMAPPED - 1, choose.getrandbits(32)))
            case 4:
                return choose.choice(list(places.layout.metadata_zones))
            case _:
                return choose.randrange(nr_zones)

    def map_entry(self) -> list[Mutation]:
        choose, places = self.choose, self.places
        used = np.flatnonzero(places.table[:, 0] != UNMAPPED).tolist()
        chunk = choose.choice(used) if used and choose.random() < 0.8 else choose.randrange(places.layout.nr_chunks)
        values = [int(v) for v in places.table[chunk]]
        match choose.randrange(5):
            case 0:
                values = [self.zone_id(), self.zone_id()]
            case 1:
                values.reverse()
            case 2:
                values = [int(v) for v in places.table[choose.choice(used or [0])]]
            case _:
                values[choose.randrange(2)] = self.zone_id()
        raw = b"".join(value.to_bytes(4, "little") for value in values)
        return [["put", *self.places.map_entry(n, chunk), raw.hex()] for n in self.sets()]

    def bits(self) -> list[Mutation]:
        choose, places = self.choose, self.places
        nr_zones = places.geometry.nr_zones
        zone = choose.choice(places.mapped) if places.mapped and choose.random() < 0.8 else choose.randrange(nr_zones)
        width = max(places.geometry.zone_blocks // 8, 1)
        kind, at, byte = choose.randrange(4), choose.randrange(width), choose.choice((0, 0xFF, choose.randrange(256)))
        length, bit = min(choose.choice((1, 2, 8, width)), width - at), choose.randrange(8)
        if choose.random() < 0.1:  # behind the last block of the zone
            at = choose.randrange(width, PAGE) if width < PAGE else at
        made: list[Mutation] = []
        for set_number in self.sets():
            drive, offset = places.bitmap(set_number, zone)
            match kind:
                case 0:
                    made.append(["flip", drive, offset + at, bit])
                case 1 | 2:
                    made.append(["fill", drive, offset + at, length, byte])
                case _:
                    other_drive, other = places.bitmap(set_number, choose.choice(places.mapped or [0]))
                    if other_drive == drive:
                        made.append(["copy", drive, other, offset, PAGE])
        return made

    def zone(self) -> list[Mutation]:
        places = self.places
        members = [m for m in places.geometry.members if m.is_zoned]
        member = self.choose.choice(members)
        table = self.base.drives[member.index].table
        mapped = [z - member.first_zone for z in places.mapped if 0 <= z - member.first_zone < len(table)]
        return [zone_change(self.choose, member.index, table, mapped)]

    def exchange(self) -> list[Mutation]:
        """Blocks of one set over those of the other, or exchanged with others of the same set."""
        choose, layout = self.choose, self.places.layout
        index = choose.randrange(layout.nr_meta_blocks)
        other = choose.choice((index, index, choose.randrange(layout.nr_meta_blocks)))
        one, two = choose.choice(((0, 1), (1, 0), (0, 0), (1, 1)))
        drive, offset = self.places.at(layout.set_block(one) + index)
        other_drive, source = self.places.at(layout.set_block(two) + other)
        if index == 0:
            self.sealed.add((drive, offset))
        if other_drive != drive:
            return []
        return [[choose.choice(("copy", "swap")), drive, source, offset, PAGE]]

    def anything(self) -> list[Mutation]:
        places = self.places.metadata()
        drive, offset = self.choose.choice(places)
        return [damage(self.choose, drive, offset, PAGE, [o for d, o in places if d == drive])]


def _mutate(choose: random.Random, base: Base) -> list[Mutation]:
    return _Generator(choose, base).make()


SUBJECT = Subject("dm-zoned", BASES, _load, _mutate, {"super": _seal_super})
