"""What dm-zoned keeps on disk: super block, mapping table, validity bitmaps, and where they are.

Blocks are absolute, as in :mod:`~zoned_tools.formats.dm_zoned.geometry`. Only arithmetic here; reading
is in :mod:`~zoned_tools.formats.dm_zoned.open`.

Source: ``struct dmz_super`` and ``struct dmz_map`` of the Linux 6.1 target
(``drivers/md/dm-zoned-metadata.c``), and the arithmetic that dmzadm 2.x is observed to use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from construct import Bytes, Int32ul, Int64ul, Struct

from zoned_tools.codec.crc import crc32_le
from zoned_tools.codec.fields import NIL_UUID, Uuid
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    import uuid

    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry

BLOCK_BYTES = LOGICAL_BLOCK_BYTES
BLOCK_BITS = BLOCK_BYTES * 8
"""Blocks that one bitmap block describes: 128 MiB of a zone."""

MAGIC = 0x445A4244
MAX_VERSION = 2
LABEL_BYTES = 32
MAX_LABEL_BYTES = LABEL_BYTES - 1
UNMAPPED = 0xFFFFFFFF
"""``dzone_id`` of a chunk that is not mapped, ``bzone_id`` of a chunk without a buffer zone."""

DEFAULT_RESERVED_SEQUENTIAL = 16
MIN_CACHE_ZONES = 3
NR_SETS = 2
MOST_SET_ZONES = 8
"""Sizes of a metadata set, in zones, that are tried where no super block tells: more than any drive needs."""

SUPERBLOCK = Struct(
    "magic" / Int32ul,
    "version" / Int32ul,
    "gen" / Int64ul,
    "sb_block" / Int64ul,
    "nr_meta_blocks" / Int32ul,
    "nr_reserved_seq" / Int32ul,
    "nr_chunks" / Int32ul,
    "nr_map_blocks" / Int32ul,
    "nr_bitmap_blocks" / Int32ul,
    "crc" / Int32ul,
    "label" / Bytes(LABEL_BYTES),  # compared whole by the kernel, so what follows the first NUL is kept
    "dmz_uuid" / Uuid(),
    "dev_uuid" / Uuid(),
    "reserved" / Bytes(BLOCK_BYTES - 112),
)
"""Block 0 of a metadata set, or of a zoned member of a multi-device target."""

_CRC_OFFSET = 44

MAP_ENTRY = Struct("dzone_id" / Int32ul, "bzone_id" / Int32ul)
"""One chunk of the mapping table."""

MAP_ENTRIES = BLOCK_BYTES // MAP_ENTRY.sizeof()
"""Chunks that one block of the mapping table describes."""

MapArray = npt.NDArray[np.uint32]
"""Mapping table: shape (chunks, 2), columns data zone id and buffer zone id."""


def ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


def bitmap_blocks_of(zone_blocks: int) -> int:
    """Blocks of the validity bitmap of a zone."""
    return max(1, zone_blocks // BLOCK_BITS)


def superblock_crc(block: bytes, gen: int) -> int:
    """CRC of a super block: seeded with the low half of its generation, CRC field taken as zero."""
    return crc32_le(gen, block[:_CRC_OFFSET] + bytes(4) + block[_CRC_OFFSET + 4 :])


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """A decoded super block; field names are those of ``struct dmz_super`` without the prefix."""

    version: int
    gen: int
    sb_block: int
    nr_meta_blocks: int
    nr_reserved_seq: int
    nr_chunks: int
    nr_map_blocks: int
    nr_bitmap_blocks: int
    label_raw: bytes = bytes(LABEL_BYTES)
    dmz_uuid: uuid.UUID = NIL_UUID
    dev_uuid: uuid.UUID = NIL_UUID
    reserved: bytes = bytes(BLOCK_BYTES - 112)
    magic: int = MAGIC
    crc: int = 0

    @classmethod
    def parse(cls, block: bytes) -> SuperBlock:
        """Decode a 4096-byte block, whatever is in it."""
        fields: Any = SUPERBLOCK.parse(block)
        return cls(
            label_raw=fields.label,
            **{name: fields[name] for name in cls.__dataclass_fields__ if name != "label_raw"},
        )

    def pack(self) -> bytes:
        """The 4096-byte block, with the CRC that belongs to its content."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        block = bytearray(SUPERBLOCK.build({**values, "label": self.label_raw, "crc": 0}))
        block[_CRC_OFFSET : _CRC_OFFSET + 4] = superblock_crc(bytes(block), self.gen).to_bytes(4, "little")
        return bytes(block)

    @property
    def label(self) -> str:
        return self.label_raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    @property
    def padding_is_zero(self) -> bool:
        """False when bytes that this metadata version does not define are set."""
        if any(self.reserved):
            return False
        return self.version > 1 or not (any(self.label_raw) or self.dmz_uuid.int or self.dev_uuid.int)


def encode_label(label: str) -> bytes:
    """NUL-padded label field.

    Raises:
        ValueError: longer than 31 bytes.
    """
    raw = label.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_LABEL_BYTES:
        raise ValueError(f"Label too long (max {MAX_LABEL_BYTES} characters)")
    return raw.ljust(LABEL_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class MetadataLayout:
    """Sizes of the metadata of a target and where its two sets are.

    ``first_zone`` is the zone of the primary super block, ``set_zones`` how many zones one
    set occupies. Blocks are absolute unless called relative.
    """

    first_zone: int
    zone_blocks: int
    nr_zones: int
    bitmap_blocks_per_zone: int
    nr_chunks: int
    nr_reserved_seq: int

    @classmethod
    def of(cls, geometry: TargetGeometry, first_zone: int, nr_chunks: int, nr_reserved_seq: int) -> MetadataLayout:
        return cls(
            first_zone,
            geometry.zone_blocks,
            geometry.nr_zones,
            geometry.bitmap_blocks_per_zone,
            nr_chunks,
            nr_reserved_seq,
        )

    @property
    def nr_map_blocks(self) -> int:
        return ceil_div(self.nr_chunks, MAP_ENTRIES)

    @property
    def nr_bitmap_blocks(self) -> int:
        return self.nr_zones * self.bitmap_blocks_per_zone

    @property
    def nr_meta_blocks(self) -> int:
        """Blocks of one set, its super block included."""
        return 1 + self.nr_map_blocks + self.nr_bitmap_blocks

    @property
    def set_zones(self) -> int:
        return ceil_div(self.nr_meta_blocks, self.zone_blocks)

    @property
    def metadata_zones(self) -> range:
        """Zone ids of both sets."""
        return range(self.first_zone, self.first_zone + NR_SETS * self.set_zones)

    def set_block(self, number: int) -> int:
        """Super block of set 0 or 1."""
        return (self.first_zone + number * self.set_zones) * self.zone_blocks

    def map_block(self, number: int) -> int:
        """First block of the mapping table of a set."""
        return self.set_block(number) + 1

    def bitmap_block(self, number: int, zone: int = 0) -> int:
        """First bitmap block of ``zone`` in a set."""
        return self.set_block(number) + 1 + self.nr_map_blocks + zone * self.bitmap_blocks_per_zone

    def superblock(self, number: int, gen: int, version: int = MAX_VERSION) -> SuperBlock:
        """Super block of a set, without names."""
        return SuperBlock(
            version=version,
            gen=gen,
            sb_block=self.set_block(number),
            nr_meta_blocks=self.nr_meta_blocks,
            nr_reserved_seq=self.nr_reserved_seq,
            nr_chunks=self.nr_chunks,
            nr_map_blocks=self.nr_map_blocks,
            nr_bitmap_blocks=self.nr_bitmap_blocks,
        )
