"""Reclaim: move the live blocks of a full zone elsewhere and empty it.

A zone is reset only when the durable generation refers to nothing in it and records it as
empty; so at a power cut a zone may hold more than is recorded, never less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.errors import ZonedError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import ZONE_BLOCKS
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.mapper.allocate import ZoneAllocator
    from zoned_tools.formats.zdm.mapping import DiscardExtents
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.pages import PageStore


class MovesBlocks(Protocol):
    """What reclaim needs of a mapper: its state, and moving blocks from zone to zone."""

    state: State
    zones: ZoneAllocator
    pages: PageStore
    discards: DiscardExtents

    def sync(self, *, everything: bool = False) -> None:
        """Make the current state durable; ``everything``: no entry stays in the map cache."""
        ...

    def dissolve(self, extents: list[tuple[int, int]]) -> None:
        """Turn discard extents ``(first block, blocks)`` into cleared forward entries."""
        ...

    def clear(self, logical: IntArray) -> None:
        """Clear forward entries of hidden blocks."""
        ...

    def store(self, logical: IntArray, data: memoryview, stream: int, avoid: int = -1) -> None:
        """Write blocks to fresh places, not in zone ``avoid``, and map them there."""
        ...

    def relieve_cache(self) -> None:
        """Keep the map cache small enough for the cache pages of a generation."""
        ...


_FORCED_BELOW = 5
_COPY_BLOCKS = 256


def needed_stale(empty_zones: int, data_zones: int) -> int:
    """Dead blocks that make a full zone worth reclaiming; less and less as empty zones run out."""
    if empty_zones < _FORCED_BELOW:
        return 1
    if empty_zones < 7:
        return 0x40
    if empty_zones * 100 < 5 * data_zones:
        return 0x400
    if empty_zones * 100 < 25 * data_zones:
        return 0x7FFF
    return 0xFF00


def free_zones(mapper: MovesBlocks) -> int:
    """Free zones until enough are empty, or nothing is worth it; returns how many were emptied."""
    zones = mapper.zones
    dissolved, emptied = False, 0
    for _ in range(_FORCED_BELOW):
        empty = int(np.count_nonzero(zones.empty))
        stale = zones.stale()
        stale[[zones.gc_reserve, zones.meta_reserve]] = -1
        victim = int(np.argmax(stale))
        if stale[victim] >= needed_stale(empty, len(stale)):
            empty_zone(mapper, victim)
            emptied += 1
        elif empty < _FORCED_BELOW and not dissolved and len(mapper.discards):
            # What is discarded as an extent is credited only when the extent is dissolved.
            mapper.dissolve(list(mapper.discards))
            mapper.sync(everything=True)
            dissolved = True
            continue
        else:
            break
        if np.count_nonzero(zones.empty) >= _FORCED_BELOW:
            break
    return emptied


def empty_zone(mapper: MovesBlocks, zone: int) -> None:
    """Move everything that lives in ``zone``, make that durable, and empty the zone."""
    mapper.sync(everything=True)
    logical, physical, hidden = _live_blocks(mapper, zone)
    mapper.clear(hidden)
    stream = int(mapper.zones.stream_bytes[zone]) or 1
    at = 0
    while at < len(logical):
        count = _run_length(physical, at)
        data = mapper.state.volume.read(int(physical[at]), count)
        mapper.store(logical[at : at + count], memoryview(data), stream, avoid=zone)
        mapper.relieve_cache()
        at += count
    mapper.sync(everything=True)
    _forget_owners(mapper, zone)
    mapper.zones.release(zone)
    if not mapper.zones.sequential[zone]:
        mapper.sync(everything=True)
        return
    device = mapper.state.volume.device
    try:
        mapper.sync(everything=True)
        device.manage(ZoneOperation.RESET, mapper.state.geometry.first_device_zone + zone)
        device.flush()
    except ZonedError:
        mapper.zones.adopt(zone)
        raise


def _live_blocks(mapper: MovesBlocks, zone: int) -> tuple[IntArray, IntArray, IntArray]:
    """Logical and physical block of what lives in a zone, and logical blocks that only hidden entries keep there."""
    geometry = mapper.state.geometry
    owners = mapper.pages.entries(Direction.REVERSE, zone * ZONE_BLOCKS, ZONE_BLOCKS).astype(np.int64)
    first = geometry.table_base + zone * ZONE_BLOCKS
    inside = (owners >= geometry.data_start) & (owners < geometry.data_start + geometry.area_blocks)
    at = np.flatnonzero(inside)
    logical = owners[at] - geometry.data_start
    named = mapper.pages.gather(Direction.FORWARD, logical)
    agree = named == at + first
    at, logical = at[agree], logical[agree]
    hidden = mapper.discards.mask_of(logical)
    return logical[~hidden], at[~hidden] + first, logical[hidden]


def _run_length(physical: IntArray, at: int) -> int:
    """How many blocks from ``at`` on lie side by side, at most what is copied at a time."""
    part = physical[at : at + _COPY_BLOCKS]
    broken = np.flatnonzero(np.diff(part) != 1)
    return int(broken[0]) + 1 if len(broken) else len(part)


def _forget_owners(mapper: MovesBlocks, zone: int) -> None:
    """Clear the reverse entries of a zone that nothing refers to any more."""
    indices = np.arange(zone * ZONE_BLOCKS, (zone + 1) * ZONE_BLOCKS, dtype=np.int64)
    mapper.pages.scatter(Direction.REVERSE, indices, np.full(ZONE_BLOCKS, layout.UNMAPPED, np.int64))
