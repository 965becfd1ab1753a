"""Names of what is in super blocks: trees, feature bits, flags; and texts from disk as they may be shown."""

from __future__ import annotations

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
    38: "CHANGING_BG_TREE",
    39: "CHANGING_DATA_CSUM",
    40: "CHANGING_META_CSUM",
}
MOUNTED_FLAGS = frozenset({0, 1, 2, 32, 33, 34})
"""Bits of flags with which the kernel mounts (btrfs-zoned.md 4.1)."""

UNFINISHED = {
    35: "btrfstune -u (or -U UUID)",
    36: "btrfstune -m (or -M UUID)",
    38: "btrfstune --convert-to-block-group-tree (or --convert-from-block-group-tree)",
    39: "btrfstune --csum TYPE",
    40: "btrfstune --csum TYPE",
}
"""Bits of flags of a conversion that was cut off, and what goes on with it."""

KERNELS_OF_INCOMPAT = {
    13: "only kernels built with BTRFS_DEBUG (to 6.12) or BTRFS_EXPERIMENTAL (from 6.13) mount it",
    14: "only kernels from 6.7 built with BTRFS_DEBUG (to 6.12) or BTRFS_EXPERIMENTAL (from 6.13) mount it",
    16: "kernels from 6.7 mount it",
    17: "only the newest kernels built with BTRFS_EXPERIMENTAL mount it",
}
"""Bits of incompatible features that not every kernel with zoned support knows."""

DEMANDED_TREES = {14: (12, "raid stripe tree"), 17: (13, "remap tree")}
"""Bits of incompatible features, and the tree that each needs."""

SHOWN_FIELDS = (
    "generation",
    "root",
    "sys_array_size",
    "chunk_root_generation",
    "root_level",
    "chunk_root",
    "chunk_root_level",
    "log_root",
    "log_root_transid",
    "log_root_level",
    "total_bytes",
    "bytes_used",
    "sectorsize",
    "nodesize",
    "leafsize",
    "stripesize",
    "root_dir",
    "num_devices",
)
"""Numbers of a super block, in the order of ``dump-super``."""

SHOWN_DEVICE_FIELDS = (
    "type",
    "total_bytes",
    "bytes_used",
    "io_align",
    "io_width",
    "sector_size",
    "devid",
    "dev_group",
    "seek_speed",
    "bandwidth",
    "generation",
)
BACKUP_TREES = ("tree_root", "chunk_root", "extent_root", "fs_root", "dev_root", "csum_root")


def bit_names(value: int, names: dict[int, str]) -> list[str]:
    """Names of the set bits, ascending; ``unknown (0x...)`` for the others together."""
    known = [name for bit, name in names.items() if value >> bit & 1]
    rest = value & ~sum(1 << bit for bit in names)
    return [*known, f"unknown flag: {rest:#x}"] if rest else known


def unknown_bits(value: int, names: dict[int, str]) -> int:
    """The bits of ``value`` that have no name."""
    return value & ~sum(1 << bit for bit in names)


def magic_text(magic: int) -> str:
    """The eight characters of a magic, others than printable ones as dots."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in magic.to_bytes(8, "little"))


def printable(text: str) -> str:
    """``text`` with control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
