"""Writing super blocks: the ring's rules as steps of a plan, with the zones' states kept along.

The normal append is what the kernel does at a commit (Linux fs/btrfs/zoned.c,
btrfs_sb_log_location and btrfs_advance_sb_log): reset the zone when the block goes to the
start of a zone that is not empty, write, finish the zone when no further block fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.base import ZoneOperation
from zoned_tools.formats.btrfs.layout import SUPER_BYTES
from zoned_tools.formats.btrfs.ring import Fill, RingPair, RingZone, write_position

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.btrfs.open import Mirror


class RingWriter:
    """Adds steps for one mirror to a plan.

    Args:
        plan: gets the steps.
        device: number of the device in the plan.
        mirror: the mirror; its zones are as they will be when the plan starts.
    """

    def __init__(self, plan: Plan, device: int, mirror: Mirror) -> None:
        self._plan = plan
        self._device = device
        self.mirror = mirror
        self._pair = mirror.pair

    @property
    def pair(self) -> RingPair:
        """The zones after the steps so far."""
        assert self._pair is not None
        return self._pair

    def _set(self, index: int, zone: RingZone) -> None:
        first, second = self.pair
        self._pair = (zone, second) if index == 0 else (first, zone)

    def overwrite(self, block: bytes, note: str) -> None:
        """Write a block in place: on a conventional zone or at a regular place."""
        self._plan.write(self._device, self.mirror.place_bytes, block, note)
        self._plan.flush(self._device)

    def reset(self, index: int) -> None:
        """Empty one zone of the pair."""
        zone = self.pair[index]
        note = f"mirror {self.mirror.number}: drops {zone.written_slots} super blocks"
        if self.mirror.derived:
            self._plan.fill(self._device, zone.start_bytes, zone.written_slots * SUPER_BYTES, 0, note)
        else:
            self._plan.manage(self._device, ZoneOperation.RESET, zone.zone, note=note)
        self._set(index, zone.emptied())

    def finish(self, index: int) -> None:
        """Make one zone of the pair full; its contents stay."""
        zone = self.pair[index]
        if not self.mirror.derived:
            note = f"mirror {self.mirror.number}: keeps its {zone.written_slots} super blocks"
            self._plan.manage(self._device, ZoneOperation.FINISH, zone.zone, note=note)
            self._plan.flush(self._device)
        self._set(index, zone.finished())

    def write(self, index: int, block: bytes, note: str) -> None:
        """Write a block at the write pointer of one zone, or at its start after a reset when it is full."""
        if self.pair[index].fill is Fill.FULL:
            self.reset(index)
        zone = self.pair[index]
        assert zone.wp_bytes is not None
        end = zone.wp_bytes + SUPER_BYTES
        self._plan.write(self._device, zone.wp_bytes, block, note)
        self._plan.flush(self._device)
        self._set(index, zone.advanced())
        room_bytes = zone.start_bytes + zone.capacity_bytes - end
        if 0 < room_bytes < SUPER_BYTES and not self.mirror.derived:
            self._plan.manage(self._device, ZoneOperation.FINISH, zone.zone, note="no further super block fits")
            self._plan.flush(self._device)

    def append(self, block: bytes, last_generation: Callable[[int], int], note: str) -> None:
        """What a commit does: write a block where the kernel would.

        Raises:
            ValueError: the ring is in an invalid state.
        """
        if self._pair is None:
            self.overwrite(block, note)
            return
        position = write_position(self.pair, last_generation)
        if position is None:
            raise ValueError("the ring is in an invalid state")
        self.write(self._index_of(position), block, note)

    def _index_of(self, position: int) -> int:
        second = self.pair[1]
        return 1 if second.start_bytes <= position < second.start_bytes + second.capacity_bytes else 0
