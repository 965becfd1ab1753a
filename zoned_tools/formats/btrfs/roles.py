"""What each zone of a device is used for, for diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zoned_tools.device.zones import written_sectors
from zoned_tools.formats.btrfs.chunks import ChunkError
from zoned_tools.formats.btrfs.copies import read_block
from zoned_tools.formats.btrfs.latest import find_latest
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, SuperBlock, mirrors_on, parse, reserved_zones
from zoned_tools.formats.btrfs.trees import TreeReader

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.btrfs.chunks import Chunk
    from zoned_tools.formats.contract import Target

_SYSTEM, _METADATA = 1 << 1, 1 << 2


def zone_roles(target: Target) -> dict[str, IntArray]:
    """Zone numbers of the super blocks, of what is kept free for their regular places, of chunks, and of no owner.

    Where the super blocks are follows from the geometry alone. Chunks are those of the kernel's choice; where no
    mirror has a valid one there are none, and where the chunk tree cannot be read only the system chunks are known.
    """
    device = target.device
    geometry = device.geometry
    if not geometry.is_zoned:
        return {name: _numbers(set()) for name in ("orphan", "data", "metadata", "reserved", "super blocks")}
    pairs = mirrors_on(geometry.nr_zones, geometry.zone_bytes)
    supers = {zone for _, first in pairs for zone in (first, first + 1)}
    chunks = _chunk_zones(device, target.start_bytes)
    data, metadata = chunks.data, chunks.metadata
    reserved = _numbers(reserved_zones(geometry.nr_zones, geometry.zone_bytes))
    orphans = np.zeros(0, np.int64)
    if chunks.known:
        holding = np.flatnonzero(written_sectors(device.zones()) > 0)
        orphans = np.setdiff1d(holding, np.concatenate((data, metadata, reserved)))
    return {
        "orphan": orphans,
        "data": data,
        "metadata": metadata,
        "reserved": reserved,
        "super blocks": _numbers(supers),
    }


def is_metadata(chunk: Chunk) -> bool:
    """Whether nodes of trees are in a chunk; of mixed block groups, data too."""
    return bool(chunk.type & (_SYSTEM | _METADATA))


def _numbers(zones: set[int]) -> IntArray:
    return np.array(sorted(zones), np.int64)


class _ChunkZones(NamedTuple):
    """Zones of data chunks, and of the others; ``known``: there are no others."""

    data: IntArray
    metadata: IntArray
    known: bool


def _chunk_zones(device: Device, start_bytes: int) -> _ChunkZones:
    """Zones of chunks; each stripe occupies one zone (Linux fs/btrfs/zoned.c)."""
    known = False
    data: set[int] = set()
    metadata: set[int] = set()
    block = _kernel_choice(device, start_bytes)
    if block is not None:
        devid = block.dev_item.devid
        reader = TreeReader({devid: device}, start_bytes)
        try:
            chunks = reader.known_chunks(block)
        except ChunkError:
            chunks = []
        known = len(chunks) > 0 and reader.roots_readable(block).readable is not False
        for chunk in chunks:
            kind = metadata if is_metadata(chunk) else data
            places = (start_bytes + s.offset_bytes for s in chunk.stripes if s.devid == devid)
            kind.update(place // device.geometry.zone_bytes for place in places if place < device.geometry.size_bytes)
    return _ChunkZones(_numbers(data), _numbers(metadata), known)


def _kernel_choice(device: Device, start_bytes: int) -> SuperBlock | None:
    """The valid super block that the kernel takes, of the first mirror that has one."""
    for number in range(len(MIRROR_BYTENR)):
        row = find_latest(device, start_bytes, number)
        raw = read_block(device, int(row["offset_bytes"])) if row is not None and row["valid"] else None
        if raw is not None:
            return parse(raw)
    return None
