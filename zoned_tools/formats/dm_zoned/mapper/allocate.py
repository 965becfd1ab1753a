"""Which zones are free, which are in use by which chunk, and in what order they were used.

The lists are those of the kernel target (``dmz_load_mapping`` and ``dmz_alloc_zone`` in
``drivers/md/dm-zoned-metadata.c``), with one difference: a zone that is freed is not
allocated again, nor reset, before the commit that unmaps it is durable. Until then the
metadata on the drive may still name it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.geometry import ZoneKind

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk


class ZonePool:
    """Allocation of zones.

    Args:
        held: zones that never hold data (metadata, first zones of zoned members).
        mapped: zones that the mapping table names.
        nr_reserved: how many sequential zones are kept back for reclaim.
        warnings: where sentences about zones that fail are appended.
    """

    def __init__(
        self, disk: TargetDisk, held: BoolArray, mapped: BoolArray, nr_reserved: int, warnings: list[str]
    ) -> None:
        geometry = disk.geometry
        self._warnings = warnings
        self._disk = disk
        self._geometry = geometry
        allowed = ~held & ~geometry.runt & ~geometry.dead
        free = allowed & ~mapped
        self._buffers = deque(_ids(free & geometry.cache))
        self.nr_buffers = int(np.count_nonzero(allowed & geometry.cache))
        others = free & (geometry.kinds == ZoneKind.RANDOM) & ~geometry.cache
        self._randoms = deque(_ids(others))
        sequential = _ids(free & geometry.sequential)
        self._reserved_ids = frozenset(sequential[:nr_reserved])
        self._reserve = deque(sequential[:nr_reserved])
        self._sequential = {
            m.index: deque(z for z in sequential[nr_reserved:] if m.first_zone <= z < m.first_zone + m.nr_zones)
            for m in geometry.members
        }
        self._pending: list[int] = []
        self._next_member = 0

    @property
    def nr_free_buffers(self) -> int:
        """Cache or random zones that are free now or after the next commit."""
        return len(self._buffers) + sum(1 for z in self._pending if self._geometry.cache[z])

    @property
    def has_pending(self) -> bool:
        """True when a commit would make more zones free."""
        return bool(self._pending)

    @property
    def reserve_is_empty(self) -> bool:
        return not self._reserve

    def free_percent(self) -> int:
        """Free cache or random zones in percent, 0 when at most one is free (as the kernel target counts)."""
        free = self.nr_free_buffers
        return free * 100 // self.nr_buffers if free > 1 else 0

    def counts(self) -> dict[str, int]:
        """Free zones by kind, zones that wait for a commit included."""
        sequential = sum(len(zones) for zones in self._sequential.values())
        waiting = sum(1 for z in self._pending if self._disk.sequential[z])
        return {
            "buffers": self.nr_free_buffers,
            "random": len(self._randoms),
            "sequential": sequential + waiting,
            "reserve": len(self._reserve),
        }

    def take_buffer(self) -> int | None:
        """A free cache (several devices) or random zone (one device)."""
        return self._buffers.popleft() if self._buffers else None

    def take_target(self) -> int | None:
        """A zone to move a chunk to: sequential and empty, or one that takes writes anywhere."""
        zone = self.take_sequential()
        if zone is None and self._randoms:
            return self._randoms.popleft()
        return zone

    def take_sequential(self) -> int | None:
        """An empty sequential zone, of the reserve when there is no other."""
        while (zone := self._take_sequential()) is not None:
            if self._emptied(zone):
                return zone
        return None

    def _emptied(self, zone: int) -> bool:
        """Reset a zone that a crash left behind; False (and the zone is used no more) when that fails."""
        if self._disk.wp_blocks[zone] and not self._disk.is_dead(zone):
            try:
                self._disk.reset(zone)
            except DeviceError as error:
                self._warnings.append(f"zone {zone} is used no more: {error.message}")
                return False
        return not self._disk.is_dead(zone)

    def _take_sequential(self) -> int | None:
        members = list(self._sequential)
        for step in range(len(members)):
            zones = self._sequential[members[(self._next_member + step) % len(members)]]
            if zones:
                self._next_member = (self._next_member + step + 1) % len(members)
                return zones.popleft()
        return self._reserve.popleft() if self._reserve else None

    def give_back(self, zone: int) -> None:
        """Return a zone that was taken and that nothing names."""
        self._make_free(zone)

    def free(self, zone: int) -> None:
        """The mapping table no longer names ``zone``; it can be used after the next commit."""
        self._pending.append(zone)

    def committed(self) -> None:
        """No metadata on the drive name the freed zones any more: reset them, make them free."""
        pending, self._pending = self._pending, []
        for zone in pending:
            if not self._disk.sequential[zone] or self._emptied(zone):
                self._make_free(zone)

    def _make_free(self, zone: int) -> None:
        if self._disk.is_dead(zone):
            return
        if self._geometry.cache[zone]:
            self._buffers.append(zone)
        elif not self._disk.sequential[zone]:
            self._randoms.append(zone)
        elif zone in self._reserved_ids:
            self._reserve.append(zone)
        else:
            self._sequential[self._geometry.member_of(zone).index].append(zone)


def _ids(mask: BoolArray) -> list[int]:
    zones: IntArray = np.flatnonzero(mask)
    result: list[int] = zones.tolist()
    return result
