"""The rules that a single super block must keep, as the kernel tests them at mount.

(Linux fs/btrfs/disk-io.c, btrfs_validate_super; fs/btrfs/zoned.c, btrfs_check_zoned_mode;
fs/btrfs/volumes.c, read_one_dev and btrfs_read_sys_array.)
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.btrfs.checksum import ALGORITHMS
from zoned_tools.formats.btrfs.chunks import LEAST_STRIPES, ROW_BYTES, Chunk, ChunkError, sys_chunks, type_fault
from zoned_tools.formats.btrfs.layout import (
    ALL_ONES,
    COMPAT_RO_BLOCK_GROUP_TREE,
    COMPAT_RO_FREE_SPACE_TREE,
    COMPAT_RO_FREE_SPACE_TREE_VALID,
    FLAG_ERROR,
    INCOMPAT_EXTENT_TREE_V2,
    INCOMPAT_MIXED_GROUPS,
    INCOMPAT_NO_HOLES,
    INCOMPAT_RAID_STRIPE_TREE,
    MAX_LEVEL,
    MAX_NODE_BYTES,
    MAX_ZONE_BYTES,
    MIN_ZONE_BYTES,
    SYS_CHUNK_ARRAY_BYTES,
    SYS_CHUNK_ARRAY_MIN_BYTES,
    SuperBlock,
    reserved_zones,
)
from zoned_tools.formats.btrfs.names import (
    COMPAT_RO_NAMES,
    FLAG_NAMES,
    INCOMPAT_NAMES,
    KERNELS_OF_INCOMPAT,
    MOUNTED_FLAGS,
    UNFINISHED,
    bit_names,
    unknown_bits,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY_DEVICES = 1 << 31

NumberArray: TypeAlias = npt.NDArray[np.uint64]


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def field_faults(block: SuperBlock) -> Iterator[tuple[str, str]]:
    """``(field, sentence)`` of everything in a super block for which the kernel refuses to mount."""
    if block.csum_type not in ALGORITHMS:
        yield "csum_type", f"checksum type {block.csum_type} is unknown"
    unknown = block.flags & ~sum(1 << bit for bit in MOUNTED_FLAGS | UNFINISHED.keys())
    if unknown:
        yield "flags", f"unknown flags {unknown:#x} are set"
    if block.incompat_flags & INCOMPAT_EXTENT_TREE_V2:
        yield "incompat_flags", "EXTENT_TREE_V2 is on, which no released kernel mounts"
    yield from _level_faults(block)
    yield from _size_faults(block)
    yield from _address_faults(block)
    if block.bytes_used < 6 * block.nodesize:
        yield "bytes_used", f"{block.bytes_used} bytes in use are less than six nodes"
    if block.num_devices < 1:
        yield "num_devices", "it has no device"
    if not SYS_CHUNK_ARRAY_MIN_BYTES <= block.sys_array_size <= SYS_CHUNK_ARRAY_BYTES:
        yield "sys_array_size", f"a system chunk array of {block.sys_array_size} bytes is not possible"
    needs = COMPAT_RO_FREE_SPACE_TREE_VALID
    if block.compat_ro_flags & COMPAT_RO_BLOCK_GROUP_TREE and (
        not block.compat_ro_flags & needs or not block.incompat_flags & INCOMPAT_NO_HOLES
    ):
        yield "compat_ro_flags", "BLOCK_GROUP_TREE needs FREE_SPACE_TREE_VALID and NO_HOLES"


def _level_faults(block: SuperBlock) -> Iterator[tuple[str, str]]:
    for field in ("root_level", "chunk_root_level", "log_root_level"):
        level = getattr(block, field)
        if level >= MAX_LEVEL:
            yield field, f"a tree level of {level} is not possible"


def _address_faults(block: SuperBlock) -> Iterator[tuple[str, str]]:
    sector = block.sectorsize or 1
    for field in ("root", "chunk_root", "log_root"):
        address = getattr(block, field)
        if address % sector:
            yield field, f"{field} {address} is not a multiple of the sector size"


def _size_faults(block: SuperBlock) -> Iterator[tuple[str, str]]:
    if not _is_power_of_two(block.sectorsize) or not 4096 <= block.sectorsize <= MAX_NODE_BYTES:
        yield "sectorsize", f"a sector size of {block.sectorsize} is not possible"
    elif block.sectorsize not in (4096, mmap.PAGESIZE):
        yield "sectorsize", f"a sector size of {block.sectorsize} needs pages of {block.sectorsize} bytes"
    if not _is_power_of_two(block.nodesize) or not block.sectorsize <= block.nodesize <= MAX_NODE_BYTES:
        yield "nodesize", f"a node size of {block.nodesize} is not possible"
    if block.leafsize != block.nodesize:
        yield "leafsize", f"leaf size {block.leafsize} differs from node size {block.nodesize}"
    if not _is_power_of_two(block.stripesize):
        yield "stripesize", f"a stripe size of {block.stripesize} is not possible"


def field_doubts(block: SuperBlock) -> Iterator[tuple[str, str]]:
    """``(field, sentence)`` of what the kernel only warns of."""
    if block.num_devices > MANY_DEVICES:
        yield "num_devices", f"{block.num_devices} devices are suspiciously many"
    if block.generation < block.chunk_root_generation:
        yield (
            "chunk_root_generation",
            f"chunk root generation {block.chunk_root_generation} is above generation {block.generation}",
        )
    if block.cache_generation != ALL_ONES and block.generation < block.cache_generation:
        yield "cache_generation", f"cache generation {block.cache_generation} is above generation {block.generation}"
    if block.flags & FLAG_ERROR:
        yield "flags", "the ERROR flag is set"
    unknown = unknown_bits(block.compat_ro_flags, COMPAT_RO_NAMES)
    if unknown:
        yield "compat_ro_flags", f"unknown read-only compatible features {unknown:#x}: only read-only mounts work"


def feature_faults(block: SuperBlock) -> Iterator[tuple[str, str]]:
    """``(code, sentence)`` of features that do not go with zoned mode, or are not known."""
    flags = block.incompat_flags
    if flags & INCOMPAT_MIXED_GROUPS:
        yield "mixed-groups", "mixed block groups (MIXED_GROUPS) do not work in zoned mode"
    unknown = unknown_bits(flags, INCOMPAT_NAMES)
    if unknown:
        yield "feature-unknown", f"unknown incompatible features: {', '.join(bit_names(unknown, {}))}"
    if uses_space_cache_v1(block):
        yield "space-cache-v1", "it has a version 1 free space cache, which zoned mode cannot write"


def uses_space_cache_v1(block: SuperBlock) -> bool:
    """Whether there is a v1 cache: it has a generation, and no free space tree took its place."""
    has_cache = block.cache_generation not in (0, ALL_ONES)
    return has_cache and not block.compat_ro_flags & COMPAT_RO_FREE_SPACE_TREE


def zone_size_fault(zone_bytes: int) -> str:
    """What is wrong with a zone size; empty when it is within the kernel's limits."""
    if zone_bytes < MIN_ZONE_BYTES:
        return f"zones of {zone_bytes} bytes are smaller than {MIN_ZONE_BYTES}"
    if zone_bytes > MAX_ZONE_BYTES:
        return f"zones of {zone_bytes} bytes are larger than {MAX_ZONE_BYTES}"
    return "" if _is_power_of_two(zone_bytes) else f"zones of {zone_bytes} bytes are not a power of two"


def feature_notes(block: SuperBlock) -> Iterator[tuple[int, str]]:
    """``(bit, sentence)`` of incompatible features that not every kernel with zoned support knows."""
    for bit, kernels in KERNELS_OF_INCOMPAT.items():
        if block.incompat_flags >> bit & 1:
            yield bit, f"{INCOMPAT_NAMES[bit]}: {kernels}"


def unfinished(block: SuperBlock) -> Iterator[tuple[int, str]]:
    """``(bit, sentence)`` of conversions by btrfstune that were cut off, with what goes on with them."""
    for bit, command in UNFINISHED.items():
        if block.flags >> bit & 1:
            yield bit, f"{FLAG_NAMES[bit]}: a conversion was cut off; run {command} again"


def chunk_array_faults(block: SuperBlock) -> Iterator[str]:
    """What is wrong with the system chunk array."""
    try:
        chunks = sys_chunks(block)
    except ChunkError as error:
        yield str(error)
        return
    for chunk in chunks:
        for fault in _chunk_faults(block, chunk):
            yield f"chunk {chunk.logical}: {fault}"


def _chunk_faults(block: SuperBlock, chunk: Chunk) -> Iterator[str]:
    fault = type_fault(chunk.type)
    if fault:
        yield fault
    if chunk.stripe_len != ROW_BYTES:
        yield f"a stripe length of {chunk.stripe_len} is not possible"
    if chunk.sector_size != block.sectorsize:
        yield f"its sector size is {chunk.sector_size}, the file system's {block.sectorsize}"
    if chunk.length_bytes == 0:
        yield "it has no length"
    least = LEAST_STRIPES.get(chunk.profile, 1)
    if len(chunk.stripes) < least:
        yield f"{len(chunk.stripes)} stripes, {chunk.profile} needs {least}"


def known_sys_chunks(block: SuperBlock) -> list[Chunk]:
    """The system chunks; none where the array cannot be decoded, which :func:`chunk_array_faults` tells."""
    try:
        return sys_chunks(block)
    except ChunkError:
        return []


_PARITY_PROFILES = frozenset({"RAID5", "RAID6"})
_DATA = 1


def profile_faults(chunks: list[Chunk], incompat_flags: int) -> Iterator[tuple[int, str]]:
    """``(logical address, sentence)`` of chunks whose profile zoned mode does not support (btrfs-zoned.md 8.2).

    Metadata and system chunks may have every profile but those with parity.
    """
    stripe_tree = incompat_flags & INCOMPAT_RAID_STRIPE_TREE
    for chunk in chunks:
        profile = chunk.profile
        if profile in _PARITY_PROFILES:
            yield chunk.logical, f"chunk {chunk.logical}: profile {profile} does not work in zoned mode"
        elif chunk.type & _DATA and profile != "single" and not stripe_tree:
            yield chunk.logical, f"chunk {chunk.logical}: data in profile {profile} needs a raid stripe tree"


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Chunks that cannot lie where they say, as columns of one length.

    Attributes:
        chunk: logical address, uint64.
        offset_bytes: where it says that it lies on the device, uint64.
        length_bytes: its length there, uint64.
    """

    chunk: NumberArray
    offset_bytes: NumberArray
    length_bytes: NumberArray


def misplaced(chunks: list[Chunk], devid: int, size_bytes: int, zone_bytes: int, nr_zones: int) -> dict[str, Misplaced]:
    """Code to the chunks of one device that break its rule; each chunk is under its first.

    Args:
        zone_bytes: 0 when it is not known: then zones are not looked at.
    """
    here = [
        (chunk.logical, stripe.offset_bytes, chunk.stripe_bytes)
        for chunk in chunks
        for stripe in chunk.stripes
        if stripe.devid == devid
    ]
    columns = np.array(here, np.uint64).reshape(-1, 3)
    _, offset, length = columns.T
    size = np.uint64(size_bytes)
    outside = (length == 0) | (offset > size) | (length > size - np.minimum(offset, size))
    faults = {"chunk-outside": outside}
    if zone_bytes:
        zone = np.uint64(zone_bytes)
        unaligned = ~outside & ((offset % zone != 0) | (length % zone != 0))
        reserved = np.array(sorted(reserved_zones(nr_zones, zone_bytes)), np.uint64)
        sound = ~outside & ~unaligned
        end = np.where(sound, offset + length, offset)
        hits = np.searchsorted(reserved, end // zone) - np.searchsorted(reserved, offset // zone)
        faults |= {"chunk-unaligned": unaligned, "chunk-in-reserved-zone": sound & (hits > 0)}
    return {code: Misplaced(*columns[mask].T) for code, mask in faults.items() if mask.any()}
