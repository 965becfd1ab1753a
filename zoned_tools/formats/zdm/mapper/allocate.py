"""Where writes go: streams, zones, write pointers and free estimates.

A stream keeps filling one zone, so that data which their writer expects to die together
lie together. Free estimates are credited one generation late: the block that holds them
is overwritten in place before the generation is, and must be true for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.errors import ZonedError
from zoned_tools.formats.shared.zones import ZoneFacts
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import GROUP_ZONES, ZONE_BLOCKS

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.zdm.open import State

DEFAULT_STREAM, LAST_STREAM = 1, 254
_KEPT_FLAGS = layout.WP_RRECALC | layout.WP_GC_READY


def stream_of(hint: int) -> int:
    """Stream id for a caller's hint: 0 is the default, 255 is kept for metadata."""
    if hint > 255:
        hint >>= 8
    return DEFAULT_STREAM if hint == 0 else min(hint & 0xFF, LAST_STREAM)


def zones_of_groups(groups: list[int], count: int) -> BoolArray:
    """Mask over ``count`` data zones of those whose words are in one of ``groups``."""
    mask: BoolArray = np.isin(np.arange(count) // GROUP_ZONES, np.array(groups, np.int64))
    return mask


@dataclass(frozen=True, slots=True)
class Held:
    """Blocks that are given back later or never: one element a data zone.

    Attributes:
        blocks: how many.
        highest: end of the highest one in the zone, 0 when there is none.
    """

    blocks: IntArray
    highest: IntArray


class ZoneAllocator:
    """Write pointers and free estimates of the data zones, and the zone of each stream.

    Attributes:
        wp: next free block of each zone.
        free: ``65536 - allocated + freed`` of each zone, as the next generation records it.
    """

    def __init__(self, state: State) -> None:
        self.geometry = state.geometry
        self._device = state.volume.device
        zones = state.zones
        count = self.geometry.data_zones
        recorded = np.minimum((state.wp & layout.WP_MASK).astype(np.int64), ZONE_BLOCKS)
        known = zones.sequential & (zones.wp_blocks >= 0)
        # Where the record is damaged, the drive alone counts.
        void = zones_of_groups(state.wp_bad, count)
        ahead = known & (recorded > zones.wp_blocks) & ~void
        self.wp: IntArray = np.where(known & ~ahead, zones.wp_blocks, recorded)
        self.flags: npt.NDArray[np.uint32] = np.where(void, 0, state.wp & np.uint32(_KEPT_FLAGS)).astype(np.uint32)
        self.flags[zones.conventional] |= np.uint32(layout.WP_NON_SEQ)
        self.free: IntArray = np.minimum((state.zf & layout.ZF_MASK).astype(np.int64), ZONE_BLOCKS)
        self.stream_bytes = (state.zf >> np.uint32(layout.ZF_STREAM_SHIFT)).astype(np.uint32)
        self.stream_bytes[zones_of_groups(state.zf_bad, count)] = 0
        self.sequential = zones.sequential
        self.capacity = zones.capacity_blocks
        # A zone whose record is ahead of the drive takes no more data until it is repaired.
        self.closed: BoolArray = zones.dead | ahead
        self._freed = np.zeros(count, np.int64)
        current = state.current
        self.streams: IntArray = current.streams.copy() if current else np.full(256, -1, np.int64)
        self.streams[self.streams >= count] = -1
        self.gc_reserve = self._reserve(int(current.key.gc_resv) if current else count - 1, count - 1)
        self.meta_reserve = self._reserve(int(current.key.meta_resv) if current else count - 2, count - 2)
        self._last_opened = 0
        self._mark_full()

    def _reserve(self, value: int, default: int) -> int:
        zone = value & layout.RESERVE_ZONE_MASK
        return zone if zone < self.geometry.data_zones else default

    def _mark_full(self) -> None:
        full = self.wp >= self.capacity
        self.flags[full] |= np.uint32(layout.WP_GC_READY)

    # -- taking blocks

    @property
    def empty(self) -> BoolArray:
        """Zones that are empty and free to be opened; the reserves are not."""
        mask: BoolArray = (self.wp == 0) & ~self.closed
        mask[[self.gc_reserve, self.meta_reserve]] = False
        return mask

    @property
    def writable(self) -> BoolArray:
        """Zones with room."""
        mask: BoolArray = (self.wp < self.capacity) & ~self.closed
        mask[[self.gc_reserve, self.meta_reserve]] = False
        return mask

    def room(self, stream: int) -> int:
        """Blocks left in a stream's zone."""
        zone = int(self.streams[stream])
        return 0 if zone < 0 or self.closed[zone] else int(self.capacity[zone] - self.wp[zone])

    def open_zone(self, stream: int, avoid: int = -1, *, use_reserve: bool = False) -> bool:
        """Give a stream another zone: an empty one from the last opened upward, else any with room.

        ``use_reserve`` allows the zone that is kept for reclaim; ``avoid`` is being reclaimed.
        """
        empty, writable = self.empty, self.writable
        if avoid >= 0:
            empty[avoid] = writable[avoid] = False
        candidates = np.flatnonzero(empty)
        if len(candidates):
            later = candidates[candidates >= self._last_opened]
            zone = int(later[0] if len(later) else candidates[0])
        elif writable.any():
            zone = int(np.argmax(writable))
        elif use_reserve and not self.closed[self.gc_reserve] and self.gc_reserve != avoid:
            zone = self.gc_reserve
            if self.wp[zone] >= self.capacity[zone]:
                return False
        else:
            return False
        self.streams[stream] = zone
        self._last_opened = zone
        return True

    def take(self, stream: int, wanted: int) -> tuple[int, int]:
        """``(first block, count)`` allocated in the stream's zone, which has room."""
        zone = int(self.streams[stream])
        count = min(wanted, self.room(stream))
        first = self.geometry.table_base + zone * ZONE_BLOCKS + int(self.wp[zone])
        self.wp[zone] += count
        self.free[zone] -= count
        self.stream_bytes[zone] = stream
        if self.wp[zone] >= self.capacity[zone]:
            self.flags[zone] |= np.uint32(layout.WP_GC_READY)
        return first, count

    # -- giving back

    def give_back(self, first: int, count: int) -> None:
        """A write to blocks that were just taken failed: nothing is in them that counts."""
        zone, at = divmod(first - self.geometry.table_base, ZONE_BLOCKS)
        self.wp[zone] = at
        self.free[zone] += count
        self.flags[zone] &= ~np.uint32(layout.WP_GC_READY)
        if self.sequential[zone]:
            self.adopt(zone)

    def adopt(self, zone: int) -> None:
        """Go on where the drive's write pointer of a sequential zone is; what is new below it is garbage.

        A zone that the drive says nothing about takes no more data.
        """
        try:
            drive = ZoneFacts(self._device.zones(self.geometry.first_device_zone + zone, 1))
        except ZonedError:
            drive = None
        if drive is None or drive.dead[0] or drive.wp_blocks[0] < 0:
            self.closed[zone] = True
            return
        self.wp[zone] = drive.wp_blocks[0]
        self._mark_full()

    def credit(self, physical: IntArray) -> None:
        """Blocks are no longer referenced."""
        zones = (physical - self.geometry.table_base) // ZONE_BLOCKS
        self._freed += np.bincount(zones, minlength=len(self._freed))
        self.flags[np.unique(zones)] |= np.uint32(layout.WP_RRECALC)

    def settle(self) -> None:
        """A generation became durable: credits of before may be recorded with the next one."""
        self.free = np.minimum(self.free + self._freed, ZONE_BLOCKS)
        self._freed[:] = 0

    def stale(self) -> IntArray:
        """Estimated dead blocks of each full zone, -1 for zones that are no candidates."""
        full = (self.wp >= self.capacity) & ~self.closed
        dead = self.wp - (ZONE_BLOCKS - np.minimum(self.free + self._freed, ZONE_BLOCKS))
        return np.where(full, dead, -1)

    def clear(self, zone: int) -> None:
        """A zone is empty."""
        self.wp[zone] = 0
        self.free[zone] = ZONE_BLOCKS
        self._freed[zone] = 0
        self.stream_bytes[zone] = 0
        self.flags[zone] &= np.uint32(layout.WP_NON_SEQ)
        self.streams[self.streams == zone] = -1

    def release(self, zone: int) -> None:
        """A zone is empty again; it fills a reserve's place that was consumed."""
        self.clear(zone)
        if self.wp[self.gc_reserve]:
            self.gc_reserve = zone
        elif self.wp[self.meta_reserve]:
            self.meta_reserve = zone

    def recount(self, zones: BoolArray, held: Held) -> None:
        """Replace the estimates of some zones, and what was credited before, by what is held."""
        conventional = zones & ~self.sequential
        self.wp[conventional] = np.maximum(self.wp, held.highest)[conventional]
        self.free[zones] = ZONE_BLOCKS - held.blocks[zones]
        self._freed[zones] = 0
        self._mark_full()

    # -- what is stored

    def blocks(self) -> list[bytes]:
        """Write pointer and free estimate block of each group, alternating."""
        groups, count = self.geometry.groups, self.geometry.data_zones
        wp = np.full(groups * GROUP_ZONES, 0xFFFFFFFF, np.uint32)
        zf = np.zeros(groups * GROUP_ZONES, np.uint32)
        wp[:count] = self.wp.astype(np.uint32) | self.flags
        zf[:count] = self.free.astype(np.uint32) | (self.stream_bytes << np.uint32(layout.ZF_STREAM_SHIFT))
        rows = np.stack([wp.reshape(groups, GROUP_ZONES), zf.reshape(groups, GROUP_ZONES)], axis=1)
        return [row.tobytes() for row in rows.reshape(2 * groups, GROUP_ZONES)]

    def streams_bytes(self) -> bytes:
        """The key's array of stream zones."""
        return np.where(self.streams < 0, layout.NO_ZONE, self.streams).astype("<u4").tobytes()
