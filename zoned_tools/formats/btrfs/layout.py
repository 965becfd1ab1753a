"""The btrfs super block and where its copies live; no I/O.

Everything on disk is little-endian. One super block is 4096 bytes. The checksum covers
bytes 0x20 to the end and fills the first 4, 8 or 32 bytes of the ``csum`` field.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Padding, Struct

from zoned_tools.codec.fields import Label, Uuid, dtype_of

SUPER_BYTES = 4096
CSUM_BYTES = 32
"""Size of the checksum field at the start of super blocks and tree nodes; it is not covered by itself."""

MAGIC = int.from_bytes(b"_BHRfS_M", "little")
TEMPORARY_MAGIC = int.from_bytes(b"!BHRfS_M", "little")
"""What mkfs writes while it builds; a few such blocks stay at the start of the rings of mirrors 1 and 2."""

MAGIC_OFFSET = 0x40
GENERATION_OFFSET = 0x48
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

ALL_ONES = 0xFFFFFFFFFFFFFFFF

DEV_ITEM = Struct(
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

BACKUP_ROOT = Struct(
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

SUPER_BLOCK = Struct(
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
    "dev_item" / DEV_ITEM,
    "label" / Label(256),
    "cache_generation" / Int64ul,
    "uuid_tree_generation" / Int64ul,
    "metadata_uuid" / Uuid(),
    "nr_global_roots" / Int64ul,
    "reserved" / Bytes(216),
    "sys_chunk_array" / Bytes(SYS_CHUNK_ARRAY_BYTES),
    "backup_roots" / Array(4, BACKUP_ROOT),
    "padding" / Bytes(565),
)
assert SUPER_BLOCK.sizeof() == SUPER_BYTES

SUPER_DTYPE = dtype_of(SUPER_BLOCK)
"""A super block as a numpy record."""

SUPER_BLOCK_OFFSETS: dict[str, int] = {
    name: int(SUPER_DTYPE.fields[name][1])  # type: ignore[index] # a dtype with names has fields
    for name in SUPER_DTYPE.names or ()
}
"""Byte offset of every field."""

DEV_ITEM_FSID_OFFSET = 0x11B

CHUNK = Struct(
    "length" / Int64ul,
    "owner" / Int64ul,
    "stripe_len" / Int64ul,
    "type" / Int64ul,
    "io_align" / Int32ul,
    "io_width" / Int32ul,
    "sector_size" / Int32ul,
    "num_stripes" / Int16ul,
    "sub_stripes" / Int16ul,
)
STRIPE = Struct("devid" / Int64ul, "offset" / Int64ul, "dev_uuid" / Uuid())
KEY = Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul)

NODE_HEADER = Struct(
    "csum" / Bytes(CSUM_BYTES),
    "fsid" / Uuid(),
    "bytenr" / Int64ul,
    "flags" / Int64ul,
    "chunk_tree_uuid" / Uuid(),
    "generation" / Int64ul,
    "owner" / Int64ul,
    "nritems" / Int32ul,
    "level" / Int8ul,
)
NODE_HEADER_BYTES = NODE_HEADER.sizeof()
NODE_HEADER_DTYPE = dtype_of(NODE_HEADER)

LEAF_ITEM_DTYPE = dtype_of(
    Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul, "data_offset" / Int32ul, "data_bytes" / Int32ul)
)
NODE_POINTER_DTYPE = dtype_of(
    Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul, "block" / Int64ul, "generation" / Int64ul)
)
ROOT_ITEM = Struct(
    "inode" / Padding(160),
    "generation" / Int64ul,
    "root_dirid" / Int64ul,
    "bytenr" / Int64ul,
    "byte_limit" / Int64ul,
    "bytes_used" / Int64ul,
    "last_snapshot" / Int64ul,
    "flags" / Int64ul,
    "refs" / Int32ul,
    "drop_key" / Bytes(17),
    "drop_level" / Int8ul,
    "level" / Int8ul,
)
"""Start of a tree's entry in the root tree (239 bytes of it)."""

CHUNK_ITEM_TYPE = 228
ROOT_ITEM_TYPE = 132
FIRST_CHUNK_TREE_OBJECTID = 256
MAX_LEVEL = 8

TREE_NAMES = {
    1: "root tree",
    2: "extent tree",
    3: "chunk tree",
    4: "device tree",
    5: "file system tree",
    7: "checksum tree",
    8: "quota tree",
    9: "uuid tree",
    10: "free space tree",
    11: "block group tree",
    12: "raid stripe tree",
}

COMPAT_RO_NAMES = {0: "FREE_SPACE_TREE", 1: "FREE_SPACE_TREE_VALID", 2: "VERITY", 3: "BLOCK_GROUP_TREE"}
INCOMPAT_NAMES = {
    0: "MIXED_BACKREF",
    1: "DEFAULT_SUBVOL",
    2: "MIXED_GROUPS",
    3: "COMPRESS_LZO",
    4: "COMPRESS_ZSTD",
    5: "BIG_METADATA",
    6: "EXTENDED_IREF",
    7: "RAID56",
    8: "SKINNY_METADATA",
    9: "NO_HOLES",
    10: "METADATA_UUID",
    11: "RAID1C34",
    12: "ZONED",
    13: "EXTENT_TREE_V2",
    14: "RAID_STRIPE_TREE",
    16: "SIMPLE_QUOTA",
    17: "REMAP_TREE",
}
FLAG_NAMES = {
    0: "WRITTEN",
    1: "RELOC",
    2: "ERROR",
    32: "SEEDING",
    33: "METADUMP",
    34: "METADUMP_V2",
    35: "CHANGING_FSID",
    36: "CHANGING_FSID_V2",
}

INCOMPAT_MIXED_GROUPS = 1 << 2
INCOMPAT_RAID56 = 1 << 7
INCOMPAT_NO_HOLES = 1 << 9
INCOMPAT_METADATA_UUID = 1 << 10
INCOMPAT_ZONED = 1 << 12
INCOMPAT_RAID_STRIPE_TREE = 1 << 14
COMPAT_RO_FREE_SPACE_TREE = 1 << 0
COMPAT_RO_FREE_SPACE_TREE_VALID = 1 << 1
COMPAT_RO_BLOCK_GROUP_TREE = 1 << 3
FLAG_ERROR = 1 << 2

BLOCK_GROUP_TYPES = {0: "DATA", 1: "SYSTEM", 2: "METADATA"}
PROFILES = {
    3: "RAID0",
    4: "RAID1",
    5: "DUP",
    6: "RAID10",
    7: "RAID5",
    8: "RAID6",
    9: "RAID1C3",
    10: "RAID1C4",
}
COPY_PROFILES = frozenset({"single", "DUP", "RAID1", "RAID1C3", "RAID1C4"})
"""Profiles whose every stripe holds the whole chunk."""


def bit_names(value: int, names: dict[int, str]) -> list[str]:
    """Names of the set bits, ascending; ``unknown (0x...)`` for the others together."""
    known = [name for bit, name in names.items() if value >> bit & 1]
    rest = value & ~sum(1 << bit for bit in names)
    return [*known, f"unknown flag: {rest:#x}"] if rest else known


def unknown_bits(value: int, names: dict[int, str]) -> int:
    """The bits of ``value`` that have no name."""
    return value & ~sum(1 << bit for bit in names)


def profile_name(chunk_type: int) -> str:
    """``single``, ``DUP``, ``RAID1``... of a chunk's type."""
    names = [name for bit, name in PROFILES.items() if chunk_type >> bit & 1]
    return "|".join(names) or "single"


def chunk_type_text(chunk_type: int) -> str:
    """As dump-super prints it: ``SYSTEM|single``."""
    groups = [name for bit, name in BLOCK_GROUP_TYPES.items() if chunk_type >> bit & 1]
    return "|".join([*groups, profile_name(chunk_type)])


class ChunkError(ValueError):
    """A chunk item or the system chunk array cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Stripe:
    devid: int
    offset_bytes: int
    dev_uuid: uuid.UUID


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: ``length_bytes`` of logical addresses from ``logical``, and where they are."""

    logical: int
    length_bytes: int
    owner: int
    stripe_len: int
    type: int
    io_align: int
    io_width: int
    sector_size: int
    sub_stripes: int
    stripes: tuple[Stripe, ...]

    @property
    def profile(self) -> str:
        return profile_name(self.type)

    @classmethod
    def decode(cls, logical: int, raw: bytes) -> tuple[Chunk, int]:
        """Decode a chunk item at the start of ``raw``; returns it and its length.

        Raises:
            ChunkError: ``raw`` ends inside it, or it has no stripe.
        """
        size = CHUNK.sizeof()
        if len(raw) < size:
            raise ChunkError("a chunk item is cut off")
        head: Any = CHUNK.parse(raw[:size])
        end = size + head.num_stripes * STRIPE.sizeof()
        if head.num_stripes == 0:
            raise ChunkError(f"the chunk at {logical} has no stripe")
        if len(raw) < end:
            raise ChunkError(f"the chunk at {logical} claims {head.num_stripes} stripes, more than there is room for")
        stripes = [STRIPE.parse(raw[at : at + STRIPE.sizeof()]) for at in range(size, end, STRIPE.sizeof())]
        chunk = cls(
            logical,
            head.length,
            head.owner,
            head.stripe_len,
            head.type,
            head.io_align,
            head.io_width,
            head.sector_size,
            head.sub_stripes,
            tuple(Stripe(s.devid, s.offset, s.dev_uuid) for s in stripes),
        )
        return chunk, end


def iterate_sys_chunks(array: bytes) -> Iterator[Chunk]:
    """The chunks of a system chunk array, already cut to its size.

    Raises:
        ChunkError: a key is not that of a system chunk, or the array ends inside an item.
    """
    at = 0
    while at < len(array):
        key_end = at + KEY.sizeof()
        if key_end > len(array):
            raise ChunkError("the system chunk array ends inside a key")
        key = KEY.parse(array[at:key_end])
        if key.objectid != FIRST_CHUNK_TREE_OBJECTID or key.type != CHUNK_ITEM_TYPE:
            raise ChunkError(f"the system chunk array has a key ({key.objectid} {key.type} {key.offset}) of no chunk")
        chunk, size = Chunk.decode(key.offset, array[key_end:])
        yield chunk
        at = key_end + size


def sys_chunks(super_block: Any) -> list[Chunk]:
    """The chunks in a parsed super block's system chunk array.

    Raises:
        ChunkError: the array's size or content is wrong.
    """
    size = super_block.sys_array_size
    if not SYS_CHUNK_ARRAY_MIN_BYTES <= size <= SYS_CHUNK_ARRAY_BYTES:
        raise ChunkError(f"a system chunk array of {size} bytes is not possible")
    return list(iterate_sys_chunks(super_block.sys_chunk_array[:size]))


def metadata_uuid(super_block: Any) -> uuid.UUID:
    """What tree nodes and ``dev_item.fsid`` carry: the fsid unless METADATA_UUID says otherwise."""
    chosen = super_block.metadata_uuid if super_block.incompat_flags & INCOMPAT_METADATA_UUID else super_block.fsid
    assert isinstance(chosen, uuid.UUID)
    return chosen


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
