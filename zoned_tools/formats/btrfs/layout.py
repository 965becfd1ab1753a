"""The btrfs super block and where its copies live; no I/O.

Everything on disk is little-endian. One super block is 4096 bytes. The checksum covers
bytes 0x20 to the end and fills the first 4, 8 or 32 bytes of the ``csum`` field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from zoned_tools.codec.fields import Label, Uuid, dtype_of
from zoned_tools.formats.btrfs import constants

NAME = constants.NAME
SUPER_BYTES = 4096
CSUM_BYTES = 32
"""Size of the checksum field at the start of super blocks and tree nodes; it is not covered by itself."""

MAGIC = int.from_bytes(b"_BHRfS_M", "little")
TEMPORARY_MAGIC = int.from_bytes(b"!BHRfS_M", "little")
"""What mkfs writes while it builds; a few such blocks stay at the start of the rings of mirrors 1 and 2."""

MAGIC_OFFSET = 0x40
GENERATION_OFFSET = 0x48
DEV_ITEM_FSID_OFFSET = 0x11B
SYS_CHUNK_ARRAY_BYTES = 2048
SYS_CHUNK_ARRAY_MIN_BYTES = 97
"""One key and a chunk with one stripe."""

MIRROR_BYTENR = (64 << 10, 64 << 20, 256 << 30)
"""The regular place of each mirror: the ``bytenr`` field of its blocks, wherever they really are."""

MIRROR_RING_START_BYTES = (0, 512 << 30, 4 << 40)
"""Where the pair of zones of each mirror starts on a zoned device."""

MIN_ZONE_BYTES = 4 << 20
MAX_ZONE_BYTES = 8 << 30
MIN_ACTIVE_ZONES = 8
"""Drives with a smaller limit of active zones are refused by the kernel (0: no limit)."""

MAX_LEVEL = 8
MAX_NODE_BYTES = 65536
ALL_ONES = 0xFFFFFFFFFFFFFFFF

INCOMPAT_MIXED_GROUPS = 1 << 2
INCOMPAT_SKINNY_METADATA = 1 << 8
INCOMPAT_NO_HOLES = 1 << 9
INCOMPAT_METADATA_UUID = 1 << 10
INCOMPAT_ZONED = 1 << 12
INCOMPAT_EXTENT_TREE_V2 = 1 << 13
INCOMPAT_RAID_STRIPE_TREE = 1 << 14
COMPAT_RO_FREE_SPACE_TREE = 1 << 0
COMPAT_RO_FREE_SPACE_TREE_VALID = 1 << 1
COMPAT_RO_BLOCK_GROUP_TREE = 1 << 3
FLAG_ERROR = 1 << 2

_DEV_ITEM = Struct(
    "devid" / Int64ul,
    "total_bytes" / Int64ul,
    "bytes_used" / Int64ul,
    "io_align" / Int32ul,
    "io_width" / Int32ul,
    "sector_size" / Int32ul,
    "type" / Int64ul,
    "generation" / Int64ul,
    "start_offset" / Int64ul,
    "dev_group" / Int32ul,
    "seek_speed" / Int8ul,
    "bandwidth" / Int8ul,
    "uuid" / Uuid(),
    "fsid" / Uuid(),
)

_BACKUP_ROOT = Struct(
    "tree_root" / Int64ul,
    "tree_root_gen" / Int64ul,
    "chunk_root" / Int64ul,
    "chunk_root_gen" / Int64ul,
    "extent_root" / Int64ul,
    "extent_root_gen" / Int64ul,
    "fs_root" / Int64ul,
    "fs_root_gen" / Int64ul,
    "dev_root" / Int64ul,
    "dev_root_gen" / Int64ul,
    "csum_root" / Int64ul,
    "csum_root_gen" / Int64ul,
    "total_bytes" / Int64ul,
    "bytes_used" / Int64ul,
    "num_devices" / Int64ul,
    "unused_64" / Bytes(32),
    "tree_root_level" / Int8ul,
    "chunk_root_level" / Int8ul,
    "extent_root_level" / Int8ul,
    "fs_root_level" / Int8ul,
    "dev_root_level" / Int8ul,
    "csum_root_level" / Int8ul,
    "unused_8" / Bytes(10),
)

_SUPER_BLOCK = Struct(
    "csum" / Bytes(CSUM_BYTES),
    "fsid" / Uuid(),
    "bytenr" / Int64ul,
    "flags" / Int64ul,
    "magic" / Int64ul,
    "generation" / Int64ul,
    "root" / Int64ul,
    "chunk_root" / Int64ul,
    "log_root" / Int64ul,
    "log_root_transid" / Int64ul,
    "total_bytes" / Int64ul,
    "bytes_used" / Int64ul,
    "root_dir" / Int64ul,
    "num_devices" / Int64ul,
    "sectorsize" / Int32ul,
    "nodesize" / Int32ul,
    "leafsize" / Int32ul,
    "stripesize" / Int32ul,
    "sys_array_size" / Int32ul,
    "chunk_root_generation" / Int64ul,
    "compat_flags" / Int64ul,
    "compat_ro_flags" / Int64ul,
    "incompat_flags" / Int64ul,
    "csum_type" / Int16ul,
    "root_level" / Int8ul,
    "chunk_root_level" / Int8ul,
    "log_root_level" / Int8ul,
    "dev_item" / _DEV_ITEM,
    "label" / Label(256),
    "cache_generation" / Int64ul,
    "uuid_tree_generation" / Int64ul,
    "metadata_uuid" / Uuid(),
    "nr_global_roots" / Int64ul,
    "reserved" / Bytes(216),
    "sys_chunk_array" / Bytes(SYS_CHUNK_ARRAY_BYTES),
    "backup_roots" / Array(4, _BACKUP_ROOT),
    "padding" / Bytes(565),
)
assert _SUPER_BLOCK.sizeof() == SUPER_BYTES

SUPER_DTYPE = dtype_of(_SUPER_BLOCK)
"""A super block as a numpy record."""

SUPER_BLOCK_OFFSETS: dict[str, int] = {
    name: int(SUPER_DTYPE.fields[name][1])  # type: ignore[index] # a dtype with names has fields
    for name in SUPER_DTYPE.names or ()
}
"""Byte offset of every field."""


@dataclass(frozen=True, slots=True)
class DeviceItem:
    """The device that a super block is on, as the super block tells it."""

    devid: int
    total_bytes: int
    bytes_used: int
    io_align: int
    io_width: int
    sector_size: int
    type: int
    generation: int
    start_offset: int
    dev_group: int
    seek_speed: int
    bandwidth: int
    uuid: UUID
    fsid: UUID


@dataclass(frozen=True, slots=True)
class BackupRoot:
    """The roots of one of the last four commits."""

    tree_root: int
    tree_root_gen: int
    chunk_root: int
    chunk_root_gen: int
    extent_root: int
    extent_root_gen: int
    fs_root: int
    fs_root_gen: int
    dev_root: int
    dev_root_gen: int
    csum_root: int
    csum_root_gen: int
    total_bytes: int
    bytes_used: int
    num_devices: int
    unused_64: bytes
    tree_root_level: int
    chunk_root_level: int
    extent_root_level: int
    fs_root_level: int
    dev_root_level: int
    csum_root_level: int
    unused_8: bytes


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """Every field of a super block, by the name that ``dump-super`` prints."""

    csum: bytes
    fsid: UUID
    bytenr: int
    flags: int
    magic: int
    generation: int
    root: int
    chunk_root: int
    log_root: int
    log_root_transid: int
    total_bytes: int
    bytes_used: int
    root_dir: int
    num_devices: int
    sectorsize: int
    nodesize: int
    leafsize: int
    stripesize: int
    sys_array_size: int
    chunk_root_generation: int
    compat_flags: int
    compat_ro_flags: int
    incompat_flags: int
    csum_type: int
    root_level: int
    chunk_root_level: int
    log_root_level: int
    dev_item: DeviceItem
    label: str
    cache_generation: int
    uuid_tree_generation: int
    metadata_uuid: UUID
    nr_global_roots: int
    reserved: bytes
    sys_chunk_array: bytes
    backup_roots: tuple[BackupRoot, ...]
    padding: bytes

    @property
    def is_zoned(self) -> bool:
        """Whether the ZONED feature is on."""
        return bool(self.incompat_flags & INCOMPAT_ZONED)


def parse(raw: bytes) -> SuperBlock:
    """Decode a super block's 4096 bytes, whatever they are: nothing is judged."""
    values = _values(_SUPER_BLOCK.parse(raw), SuperBlock)
    values["dev_item"] = DeviceItem(**_values(values["dev_item"], DeviceItem))
    values["backup_roots"] = tuple(BackupRoot(**_values(root, BackupRoot)) for root in values["backup_roots"])
    return SuperBlock(**values)


def pack(block: SuperBlock) -> bytes:
    """The 4096 bytes of a super block; the checksum is that of its field, see :func:`~.checksum.seal`."""
    values = {
        **_values(block, SuperBlock),
        "dev_item": _values(block.dev_item, DeviceItem),
        "backup_roots": [_values(root, BackupRoot) for root in block.backup_roots],
    }
    return bytes(_SUPER_BLOCK.build(values))


def _values(record: object, kind: type[DeviceItem | BackupRoot | SuperBlock]) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(kind)}


@dataclass(frozen=True, slots=True)
class RootFields:
    """The fields of a super block that lead to its trees; fifty times faster than parsing all of it."""

    fsid: UUID
    metadata_uuid: UUID
    generation: int
    root: int
    chunk_root: int
    log_root: int
    chunk_root_generation: int
    root_level: int
    chunk_root_level: int
    log_root_level: int
    nodesize: int
    csum_type: int
    incompat_flags: int
    sys_array_size: int
    sys_chunk_array: bytes

    @classmethod
    def of(cls, raw: bytes) -> RootFields:
        """The fields of a super block's 4096 bytes."""
        record = np.frombuffer(raw, SUPER_DTYPE, 1)[0]
        values: dict[str, Any] = {name: record[name].item() for name in _ROOT_FIELD_NAMES}
        for name in ("fsid", "metadata_uuid"):
            values[name] = UUID(bytes=bytes(values[name]))
        values["sys_chunk_array"] = bytes(values["sys_chunk_array"])
        return cls(**values)


_ROOT_FIELD_NAMES = tuple(field.name for field in fields(RootFields))

Roots: TypeAlias = "RootFields | SuperBlock"
"""What leads to trees: a parsed super block serves as well as the few fields of it."""


def metadata_uuid(super_block: Roots) -> UUID:
    """What tree nodes and ``dev_item.fsid`` carry: the fsid unless METADATA_UUID says otherwise."""
    return super_block.metadata_uuid if super_block.incompat_flags & INCOMPAT_METADATA_UUID else super_block.fsid


def mirror_first_zone(mirror: int, zone_bytes: int) -> int | None:
    """First zone of a mirror's pair; None when zones are too large for the pair to start at a zone."""
    start = MIRROR_RING_START_BYTES[mirror]
    return None if start % zone_bytes else start // zone_bytes


def mirrors_on(nr_zones: int, zone_bytes: int) -> list[tuple[int, int]]:
    """``(mirror, first zone)`` of the pairs that a drive has; a runt counts as a zone.

    (Linux fs/btrfs/zoned.c, btrfs_get_dev_zone_info: a pair needs its second zone.)
    """
    pairs = []
    for mirror in range(len(MIRROR_BYTENR)):
        first = mirror_first_zone(mirror, zone_bytes)
        if first is not None and first + 1 < nr_zones:
            pairs.append((mirror, first))
    return pairs


def reserved_zones(nr_zones: int, zone_bytes: int) -> set[int]:
    """Zones that never belong to a block group: the pairs, and those that hold a regular place."""
    zones = {zone for _, first in mirrors_on(nr_zones, zone_bytes) for zone in (first, first + 1)}
    zones.update(place // zone_bytes for place in MIRROR_BYTENR if place // zone_bytes < nr_zones)
    return zones
