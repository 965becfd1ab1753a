"""What dm-zoned keeps on disk: super block, mapping table, validity bitmaps, and where they are.

One *target* is a single zoned device, or a regular device followed by zoned ones. All
zones of all members get consecutive zone ids; ``absolute block = zone id * zone blocks +
block in zone`` names every 4096-byte block of the target. Only arithmetic here; reading
is in :mod:`~zoned_tools.formats.dm_zoned.metadata`.

Source: ``struct dmz_super`` and ``struct dmz_map`` of the Linux 6.1 target
(``drivers/md/dm-zoned-metadata.c``), and the arithmetic that dmzadm 2.x is observed to use.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from construct import Bytes, Int32ul, Int64ul, Struct

from zoned_tools.codec.crc import crc32_le
from zoned_tools.codec.fields import NIL_UUID, Uuid
from zoned_tools.device.base import Geometry
from zoned_tools.device.zones import (
    SECTOR_BYTES,
    BoolArray,
    IntArray,
    Model,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    has_condition,
    is_conventional,
    make_table,
    written_sectors,
)
from zoned_tools.errors import GeometryError

LAYOUT_NAME = "dm-zoned"
BLOCK_BYTES = 4096
BLOCK_SECTORS = BLOCK_BYTES // SECTOR_BYTES
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
_V1_PADDING_OFFSET = 48

MAP_ENTRY = Struct("dzone_id" / Int32ul, "bzone_id" / Int32ul)
"""One chunk of the mapping table."""

MAP_ENTRIES = BLOCK_BYTES // MAP_ENTRY.sizeof()
"""Chunks that one block of the mapping table describes."""

MapArray = npt.NDArray[np.uint32]
"""Mapping table: shape (chunks, 2), columns data zone id and buffer zone id."""


def ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


def superblock_crc(block: bytes, gen: int) -> int:
    """CRC of a super block: seeded with the low half of its generation, CRC field taken as zero."""
    return crc32_le(gen, block[:_CRC_OFFSET] + bytes(4) + block[_CRC_OFFSET + 4 :])


@dataclass(frozen=True, slots=True)
class Superblock:
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
    def parse(cls, block: bytes) -> Superblock:
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


class ZoneKind(IntEnum):
    """The kernel target's word for a zone."""

    CACHE = 0
    """Emulated zone of the regular device of a multi-device target."""
    RANDOM = 1
    """Conventional zone of a zoned device."""
    SEQUENTIAL = 2
    """Sequential zone, write required or preferred."""


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a target.

    ``start_bytes`` is where the target's zones begin on the device, ``block_offset`` the
    absolute block number of its first block, ``size_bytes`` the length from there on.
    """

    index: int
    path: str
    model: Model
    first_zone: int
    nr_zones: int
    block_offset: int
    size_bytes: int
    start_bytes: int = 0

    @property
    def is_zoned(self) -> bool:
        return self.model is not Model.REGULAR


@dataclass(frozen=True)
class TargetGeometry:
    """Zones of all members of a target as arrays indexed by zone id.

    Attributes:
        members: the devices, in order.
        zone_bytes: size of every zone but runt ones.
        kinds: :class:`ZoneKind` of each zone, shape (zones,), uint8.
        preferred: sequential-write-preferred zones (host-aware drives).
        runt: zones shorter than ``zone_bytes`` (the last one of a member).
        read_only, offline: zones in that condition.
        wp_blocks: blocks below the write pointer, -1 where it is undefined (cache and random
            zones, read-only and offline zones); a full zone counts all its blocks.
        not_empty: sequential zones whose write pointer is not at their start.
        full: zones in condition FULL.
    """

    members: tuple[Member, ...]
    zone_bytes: int
    kinds: npt.NDArray[np.uint8]
    preferred: BoolArray
    runt: BoolArray
    read_only: BoolArray
    offline: BoolArray
    wp_blocks: IntArray
    not_empty: BoolArray
    full: BoolArray

    @property
    def nr_zones(self) -> int:
        """All zones: runt, read-only and offline ones included."""
        return len(self.kinds)

    @property
    def is_multi(self) -> bool:
        return len(self.members) > 1

    @property
    def zone_blocks(self) -> int:
        return self.zone_bytes // BLOCK_BYTES

    @property
    def zone_sectors(self) -> int:
        return self.zone_bytes // SECTOR_BYTES

    @property
    def bitmap_blocks_per_zone(self) -> int:
        return max(1, self.zone_blocks // BLOCK_BITS)

    @cached_property
    def sequential(self) -> BoolArray:
        mask: BoolArray = self.kinds == ZoneKind.SEQUENTIAL
        return mask

    @cached_property
    def cache(self) -> BoolArray:
        """Zones that may hold metadata and buffers: conventional ones, or the regular device's."""
        wanted = ZoneKind.CACHE if self.is_multi else ZoneKind.RANDOM
        mask: BoolArray = self.kinds == wanted
        return mask

    @cached_property
    def dead(self) -> BoolArray:
        """Zones that cannot be written any more."""
        return self.read_only | self.offline

    @cached_property
    def counted(self) -> BoolArray:
        """Zones that count as usable in the format arithmetic if they are not dead.

        A runt zone of a zoned member never does; the runt emulated zone of a regular device
        does, in the reference tool and in the kernel target.
        """
        mask: BoolArray = ~self.runt | (self.kinds == ZoneKind.CACHE)
        return mask

    @cached_property
    def nr_usable(self) -> int:
        return int(np.count_nonzero(self.counted & ~self.dead))

    @cached_property
    def nr_cache(self) -> int:
        """Cache zones as the format arithmetic counts them."""
        return int(np.count_nonzero(self.cache & self.counted & ~self.dead))

    @cached_property
    def tertiary_zones(self) -> tuple[int, ...]:
        """First zone of each zoned member of a multi-device target: it holds a super block only."""
        return tuple(m.first_zone for m in self.members[1:])

    def zone_length_blocks(self, zone: int) -> int:
        """Blocks of ``zone``, the runt's real length taken into account."""
        member = self.member_of(zone)
        start_bytes = (zone - member.first_zone) * self.zone_bytes
        return min(self.zone_bytes, member.size_bytes - start_bytes) // BLOCK_BYTES

    def member_of(self, zone: int) -> Member:
        """The device that holds ``zone``."""
        for member in reversed(self.members):
            if zone >= member.first_zone:
                return member
        raise IndexError(zone)

    def locate(self, block: int) -> tuple[int, int]:
        """``(device index, byte offset on it)`` of an absolute block."""
        member = self.member_of(block // self.zone_blocks)
        return member.index, member.start_bytes + (block - member.block_offset) * BLOCK_BYTES

    def primary_candidates(self) -> tuple[int, ...]:
        """Zones whose first block may be the primary super block, likeliest first.

        The kernel takes the first usable cache zone; when a zone died after the format the
        super block still is in the first cache zone of all.
        """
        every = np.flatnonzero(self.cache & self.counted)
        usable = self.first_metadata_zone()
        zones = [usable] if usable is not None else []
        if len(every) and int(every[0]) not in zones:
            zones.append(int(every[0]))
        return tuple(zones)

    def first_metadata_zone(self) -> int | None:
        """Lowest cache zone that is neither read-only nor offline; None when there is none."""
        usable = np.flatnonzero(self.cache & self.counted & ~self.dead)
        return int(usable[0]) if len(usable) else None


def build_geometry(parts: Sequence[tuple[str, Geometry, ZoneTable]], start_bytes: int = 0) -> TargetGeometry:
    """Geometry of a target from each member's path, geometry and zone table (empty for a regular device).

    Raises:
        GeometryError: the devices cannot form a target (status 1, as the reference's open errors).
    """
    zone_bytes = _common_zone_bytes(parts)
    members: list[Member] = []
    tables: list[ZoneTable] = []
    first_zone = 0
    for index, (path, geometry, table) in enumerate(parts):
        if geometry.is_zoned:
            part = _zoned_part(path, table, zone_bytes, start_bytes)
        else:
            part = _emulated_zones(geometry.size_bytes - start_bytes, zone_bytes, path)
        members.append(
            Member(
                index,
                path,
                geometry.model,
                first_zone,
                len(part),
                first_zone * (zone_bytes // BLOCK_BYTES),
                geometry.size_bytes - start_bytes,
                start_bytes,
            )
        )
        first_zone += len(part)
        tables.append(part)
    return _join(tuple(members), zone_bytes, tables)


def _common_zone_bytes(parts: Sequence[tuple[str, Geometry, ZoneTable]]) -> int:
    first_path, first, _ = parts[0]
    if len(parts) == 1:
        if not first.is_zoned:
            raise GeometryError("Not a zoned block device", device=first_path)
    elif first.is_zoned:
        raise GeometryError("Not a regular block device", device=first_path)
    zone_bytes = 0
    for path, geometry, _ in parts if len(parts) == 1 else parts[1:]:
        if not geometry.is_zoned:
            raise GeometryError("Not a zoned block device", device=path)
        if zone_bytes and geometry.zone_bytes != zone_bytes:
            sectors = f"{geometry.zone_bytes // SECTOR_BYTES}/{zone_bytes // SECTOR_BYTES}"
            raise GeometryError(f"zone_nr_sectors mismatch ({sectors})", device=path)
        zone_bytes = geometry.zone_bytes
        if zone_bytes <= 0 or zone_bytes % BLOCK_BYTES:
            raise GeometryError(f"Invalid zone size of {zone_bytes} bytes", device=path)
    return zone_bytes


def _zoned_part(path: str, table: ZoneTable, zone_bytes: int, start_bytes: int) -> ZoneTable:
    """The zones from ``start_bytes`` on."""
    if start_bytes % zone_bytes or start_bytes // zone_bytes >= len(table):
        raise GeometryError(f"byte {start_bytes} is not the start of a zone", device=path)
    part = table[start_bytes // zone_bytes :]
    if bool((part["capacity_sectors"] < part["length_sectors"]).any()):
        raise GeometryError("Unsupported device with zone capacity smaller than zone size", device=path)
    return part


def _emulated_zones(size_bytes: int, zone_bytes: int, path: str) -> ZoneTable:
    """Conventional zones for a regular device, the last one shorter when the size is no multiple."""
    if size_bytes < BLOCK_BYTES:
        raise GeometryError("the device is too small", device=path)
    nr_zones = ceil_div(size_bytes, zone_bytes)
    return make_table(size_bytes // SECTOR_BYTES, zone_bytes // SECTOR_BYTES, nr_conventional=nr_zones)


def _join(members: tuple[Member, ...], zone_bytes: int, tables: list[ZoneTable]) -> TargetGeometry:
    table = np.concatenate(tables)
    conventional = is_conventional(table)
    kinds = np.where(conventional, ZoneKind.RANDOM, ZoneKind.SEQUENTIAL).astype(np.uint8)
    if len(members) > 1:
        kinds[: members[0].nr_zones] = ZoneKind.CACHE
    written = written_sectors(table)
    wp_blocks = np.where(written >= 0, written // BLOCK_SECTORS, -1)
    return TargetGeometry(
        members=members,
        zone_bytes=zone_bytes,
        kinds=kinds,
        preferred=table["type"] == ZoneType.SEQ_PREFERRED,
        runt=table["length_sectors"] != zone_bytes // SECTOR_BYTES,
        read_only=has_condition(table, ZoneCondition.READ_ONLY),
        offline=has_condition(table, ZoneCondition.OFFLINE),
        wp_blocks=wp_blocks,
        not_empty=written > 0,
        full=has_condition(table, ZoneCondition.FULL) & ~conventional,
    )


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

    def superblock(self, number: int, gen: int, version: int = MAX_VERSION) -> Superblock:
        """Super block of a set, without names."""
        return Superblock(
            version=version,
            gen=gen,
            sb_block=self.set_block(number),
            nr_meta_blocks=self.nr_meta_blocks,
            nr_reserved_seq=self.nr_reserved_seq,
            nr_chunks=self.nr_chunks,
            nr_map_blocks=self.nr_map_blocks,
            nr_bitmap_blocks=self.nr_bitmap_blocks,
        )


def max_chunks(geometry: TargetGeometry, set_zones: int, nr_reserved_seq: int) -> int:
    """Largest ``nr_chunks`` that the kernel target accepts; may be negative."""
    return geometry.nr_usable - NR_SETS * set_zones - nr_reserved_seq


def held_zones(geometry: TargetGeometry, layout: MetadataLayout) -> BoolArray:
    """Mask of the zones that never hold data: metadata zones, and first zones of zoned members."""
    mask = np.zeros(geometry.nr_zones, np.bool_)
    mask[layout.metadata_zones.start : layout.metadata_zones.stop] = True
    mask[list(geometry.tertiary_zones)] = True
    return mask


def nr_first_write_zones(geometry: TargetGeometry, layout: MetadataLayout) -> int:
    """Full-size cache and random zones that can take the first write to a chunk."""
    mask = (geometry.kinds != ZoneKind.SEQUENTIAL) & ~geometry.runt & ~geometry.dead & ~held_zones(geometry, layout)
    return int(np.count_nonzero(mask))
