"""inplace-compress: super block, 5-bit entries, payloads with their tags."""

from __future__ import annotations

import lzma
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tests.formats.inplace_compress.images import CORRUPT, corrupt_bytes
from tests.fuzz.drives import PAGE, VECTORS, Base, BaseDrive, FuzzDrive, SparseContent
from tests.fuzz.mutations import Mutation, damage, how_many, number, put_number
from tests.fuzz.subjects import Subject, chosen
from zoned_tools.device.base import Geometry
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.zones import Model
from zoned_tools.formats.inplace_compress.entries import extent_entries, swap_words
from zoned_tools.formats.inplace_compress.extents import join, scan
from zoned_tools.formats.inplace_compress.layout import TAG_MAGIC, TAIL
from zoned_tools.formats.inplace_compress.open import open_volume

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.open import Volume

BASES = {
    "p1-lzo": 5,
    "p2-842": 1,
    "p3-lzo-64k": 3,
    "p4-lzo-64k-then-4k": 2,
    "p6-wb-crash": 2,
    "p6-wb-crash.crash": 2,
    "p7-prefilled": 2,
    "p8-gapbug": 2,
    "p5-lzo-two-meta": 1,
    "partition": 2,
}
_FIELDS = ((0, 8), (8, 8), (16, 8), (24, 1))
_START = 2048
"""First sector of the volume in the partition."""


def _load(name: str) -> Base:
    start = _START * 512 if name == "partition" else 0
    image = "p1-lzo" if start else name
    if image in CORRUPT:
        raw = corrupt_bytes(image)
    else:
        raw = lzma.decompress((VECTORS / "inplace-compress" / "images" / f"{image}.img.xz").read_bytes())
    content = SparseContent()
    content.put(start, raw)
    if start:
        entry = bytes(4) + b"\x83" + bytes(3) + _START.to_bytes(4, "little") + (len(raw) // 512).to_bytes(4, "little")
        content.put(446, entry.ljust(64, b"\0") + b"\x55\xaa")
    drive = BaseDrive(name, Geometry(Model.REGULAR, start + len(raw)), no_zones(), content)
    return Base((drive,), _START if start else None)


@dataclass
class Places:
    """What is where on a base image; offsets are bytes of the drive."""

    volume: Volume
    start: int
    entries: Array
    extents: Extents

    @property
    def bitmap(self) -> int:
        return self.volume.bitmap_offset_bytes

    def data(self, block: int) -> int:
        return self.volume.block_offset_bytes(block)


def _places(base: Base) -> Places:
    found = base.facts.get("places")
    if found is None:
        start = (base.start_sector or 0) * 512
        volume = open_volume(Overlay(FuzzDrive(base.drives[0])), start)
        chunks = list(volume.entry_chunks())
        extents = join(list(scan(volume.entry_chunks())))
        found = Places(
            volume, start, np.concatenate([entries for _, entries in chunks]), extents.select(extents.payload > 0)
        )
        base.facts["places"] = found
    return cast("Places", found)


class _Generator:
    def __init__(self, choose: random.Random, base: Base) -> None:
        self.choose = choose
        self.base = base
        self.drive = base.drives[0]
        self.places = _places(base)

    def make(self) -> list[Mutation]:
        weighted = [
            (3, self.super_field),
            (7, self.entry),
            (5, self.extent),
            (4, self.tag),
            (3, self.payload),
            (2, self.bitmap),
            (1, self.anything),
            (1, self.byte_order),
        ]
        made: list[Mutation] = []
        for _ in range(how_many(self.choose)):
            made += chosen(self.choose, weighted)
        return made

    def super_field(self) -> list[Mutation]:
        at, size = self.choose.choice(_FIELDS)
        place = self.places.start + at
        old = int.from_bytes(self.drive.read(place, size), "little")
        return [put_number(number(self.choose, size, old), size, 0, place)]

    def block(self) -> int:
        """A block of an extent, or next to one, or any."""
        choose, extents = self.choose, self.places.extents
        if not len(extents) or choose.random() < 0.2:
            return choose.randrange(self.places.volume.data_blocks)
        index = choose.randrange(len(extents))
        block = int(extents.head[index]) + choose.randrange(int(extents.blocks[index]) + 1)
        return min(block, self.places.volume.data_blocks - 1)

    def written(self, first: int, values: list[int]) -> list[Mutation]:
        """The bytes that make entries from ``first`` on be ``values``."""
        first_byte, end_byte = first * 5 // 8, -(-(first + len(values)) * 5 // 8)
        raw = int.from_bytes(self.drive.read(self.places.bitmap + first_byte, end_byte - first_byte), "little")
        for index, value in enumerate(values):
            shift = (first + index) * 5 - first_byte * 8
            raw = raw & ~(31 << shift) | (value & 31) << shift
        return [["put", 0, self.places.bitmap + first_byte, raw.to_bytes(end_byte - first_byte, "little").hex()]]

    def entry(self) -> list[Mutation]:
        choose, block = self.choose, self.block()
        value = int(self.places.entries[block])
        match choose.randrange(5):
            case 0:
                value ^= TAIL
            case 1:
                value += choose.choice((-1, 1))
            case 2:
                value = choose.choice((0, 8, TAIL, TAIL | 8, TAIL | 1, 9, 15, 31))
            case _:
                value = choose.randrange(32)
        return self.written(block, [value])

    def extent(self) -> list[Mutation]:
        """A whole extent of another length or payload, or over others."""
        choose, block = self.choose, self.block()
        blocks = min(choose.choice((1, 2, 2, 3, 8, 16, 32, 33, 100)), self.places.volume.data_blocks - block)
        payload = choose.choice((1, 2, 8, 8 * blocks, 8 * blocks - 1, choose.randrange(8 * blocks + 1)))
        return self.written(block, [int(v) for v in extent_entries(blocks, min(payload, 8 * blocks))])

    def tag(self) -> list[Mutation]:
        """The eight bytes at the end of a compressed payload."""
        choose, extents = self.choose, self.places.extents
        packed = np.flatnonzero(extents.is_compressed).tolist()
        if not packed:
            return self.payload()
        index = choose.choice(packed)
        end = self.places.data(int(extents.head[index])) + int(extents.payload[index]) * 512
        if choose.random() < 0.3:
            return [["put", 0, end - 8, (TAG_MAGIC ^ 1 << choose.randrange(32)).to_bytes(4, "little").hex()]]
        old = int.from_bytes(self.drive.read(end - 4, 4), "little")
        return [put_number(number(choose, 4, old, 8192), 4, 0, end - choose.choice((4, 4, 8)))]

    def payload(self) -> list[Mutation]:
        """Bytes of a payload, or another payload in its place."""
        choose, extents = self.choose, self.places.extents
        if not len(extents):
            return self.anything()
        index, other = choose.randrange(len(extents)), choose.randrange(len(extents))
        offset, source = (self.places.data(int(extents.head[i])) for i in (index, other))
        length = int(extents.payload[index]) * 512
        return [damage(choose, 0, offset, length, [source])]

    def bitmap(self) -> list[Mutation]:
        """Bits behind the last entry, or a block of the bitmap."""
        volume = self.places.volume
        if self.choose.random() < 0.4:
            return [["flip", 0, self.places.bitmap + volume.bitmap_bytes - 1, self.choose.randrange(8)]]
        block = self.choose.randrange(volume.meta_blocks)
        length = min(PAGE, volume.bitmap_bytes)
        return [damage(self.choose, 0, self.places.bitmap + block * PAGE, length, [self.places.start])]

    def byte_order(self) -> list[Mutation]:
        """A bitmap as a host of the other byte order stores it."""
        volume = self.places.volume
        if volume.bitmap_bytes > PAGE:
            return self.bitmap()
        stored = self.drive.read(self.places.bitmap, volume.bitmap_bytes)
        return [["put", 0, self.places.bitmap, swap_words(stored).hex()]]

    def anything(self) -> list[Mutation]:
        if self.places.start and self.choose.random() < 0.5:
            return [damage(self.choose, 0, 446, 66)]
        return [damage(self.choose, 0, self.places.start, 64)]


def _mutate(choose: random.Random, base: Base) -> list[Mutation]:
    return _Generator(choose, base).make()


SUBJECT = Subject("inplace-compress", BASES, _load, _mutate, {}, everywhere=frozenset({"MAP_ENDIAN"}))
