"""The log ring of one mirror: two zones, and the rules for where its super blocks go. No I/O.

The rules are those of the kernel (Linux fs/btrfs/zoned.c, sb_write_pointer and
btrfs_advance_sb_log), restated from what it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from zoned_tools.device.zones import ACTIVE_CONDITIONS, SECTOR_BYTES, ZoneCondition, ZoneTable
from zoned_tools.formats.btrfs.layout import SUPER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class Fill(StrEnum):
    """How far one zone of a ring is written."""

    EMPTY = "empty"
    IN_USE = "in-use"
    FULL = "full"
    DEAD = "dead"
    """Read-only or offline: it has no write pointer and cannot be part of a ring."""


class RingState(StrEnum):
    """What the two zones say together."""

    OK = "ok"
    INVALID = "invalid"
    """No sequence of commits leads here; mounting fails with EUCLEAN."""
    ABSENT = "absent"
    """Both zones are empty: no super block was ever written."""


@dataclass(frozen=True, slots=True)
class RingZone:
    """One zone of a ring; positions in bytes from the start of the device.

    Attributes:
        zone: index on the device.
        wp_bytes: the write pointer; None when the zone is full or dead.
    """

    zone: int
    start_bytes: int
    capacity_bytes: int
    fill: Fill
    wp_bytes: int | None
    condition: int = int(ZoneCondition.EMPTY)
    readable: bool = True

    @property
    def slots(self) -> int:
        """Whole super blocks that fit."""
        return self.capacity_bytes // SUPER_BYTES

    @property
    def last_slot_bytes(self) -> int:
        """Position of the last super block of a full zone."""
        end = self.start_bytes + self.capacity_bytes
        return end - end % SUPER_BYTES - SUPER_BYTES

    @property
    def written_slots(self) -> int:
        """Whole super blocks that can be read."""
        if not self.readable or self.fill is Fill.EMPTY:
            return 0
        if self.wp_bytes is None:
            return self.slots
        return min((self.wp_bytes - self.start_bytes) // SUPER_BYTES, self.slots)

    @property
    def wp_is_aligned(self) -> bool:
        return self.wp_bytes is None or self.wp_bytes % SUPER_BYTES == 0

    def emptied(self) -> RingZone:
        """After a reset."""
        return replace(self, fill=Fill.EMPTY, wp_bytes=self.start_bytes, condition=int(ZoneCondition.EMPTY))

    def finished(self) -> RingZone:
        """After a finish."""
        return replace(self, fill=Fill.FULL, wp_bytes=None, condition=int(ZoneCondition.FULL))

    def advanced(self) -> RingZone:
        """After one more super block was written at the write pointer, and the zone finished if it took the last."""
        assert self.wp_bytes is not None
        wp = self.wp_bytes + SUPER_BYTES
        if wp + SUPER_BYTES > self.start_bytes + self.capacity_bytes:
            return self.finished()
        return replace(self, fill=Fill.IN_USE, wp_bytes=wp, condition=int(ZoneCondition.IMPLICIT_OPEN))


RingPair: TypeAlias = tuple[RingZone, RingZone]


def zones_from_table(table: ZoneTable, first_zone: int) -> RingPair:
    """The pair of ring zones that two rows of a zone table describe."""
    first, second = (_zone_from_row(table, index, first_zone) for index in range(2))
    return first, second


def _zone_from_row(table: ZoneTable, index: int, first_zone: int) -> RingZone:
    row = table[index]
    start = int(row["start_sector"]) * SECTOR_BYTES
    capacity = int(row["capacity_sectors"]) * SECTOR_BYTES
    condition = int(row["condition"])
    wp: int | None = None
    if condition == ZoneCondition.EMPTY:
        fill, wp = Fill.EMPTY, start
    elif condition == ZoneCondition.FULL:
        fill = Fill.FULL
    elif condition in ACTIVE_CONDITIONS:
        wp = int(row["wp_sector"]) * SECTOR_BYTES
        fill = Fill.IN_USE if wp + SUPER_BYTES <= start + capacity else Fill.FULL
        wp = wp if fill is Fill.IN_USE else None
    else:
        fill = Fill.DEAD
    readable = condition != ZoneCondition.OFFLINE
    return RingZone(first_zone + index, start, capacity, fill, wp, condition, readable)


def ring_state(pair: RingPair) -> RingState:
    """Whether the two fills can occur together."""
    fills = (pair[0].fill, pair[1].fill)
    if Fill.DEAD in fills:
        return RingState.INVALID
    if fills == (Fill.EMPTY, Fill.EMPTY):
        return RingState.ABSENT
    if fills[1] is Fill.IN_USE and fills[0] is not Fill.FULL:
        return RingState.INVALID
    return RingState.OK


def write_position(pair: RingPair, last_generation: Callable[[int], int]) -> int | None:
    """Where the next super block goes; None in an invalid state.

    Args:
        last_generation: the 64-bit number at 0x48 of the last slot of zone 0 or 1 of the
            pair, whatever is there; asked only when both zones are full.
    """
    first, second = pair
    if ring_state(pair) is RingState.INVALID:
        return None
    if first.fill is Fill.FULL and second.fill is Fill.FULL:
        return second.start_bytes if last_generation(0) > last_generation(1) else first.start_bytes
    if first.fill is Fill.FULL:
        return second.wp_bytes
    return first.wp_bytes


def head_position(pair: RingPair, write_bytes: int | None) -> int | None:
    """Where the kernel reads the newest super block, given :func:`write_position`; None when there is none."""
    if write_bytes is None or ring_state(pair) is not RingState.OK:
        return None
    first, second = pair
    if write_bytes == first.start_bytes:
        return second.last_slot_bytes
    if write_bytes == second.start_bytes:
        return first.last_slot_bytes
    return write_bytes - SUPER_BYTES


def older_zone(smallest: tuple[int | None, int | None]) -> int:
    """0 or 1: which zone of a pair was filled earlier.

    Args:
        smallest: smallest generation among the valid super blocks of each zone, None
            where there is none; such a zone counts as the older one.
    """
    if smallest[0] is None or smallest[1] is None:
        return 1 if smallest[1] is None and smallest[0] is not None else 0
    return 0 if smallest[0] <= smallest[1] else 1


def newest_valid_row(zone: np.ndarray, valid: np.ndarray, generation: np.ndarray) -> int | None:
    """Index of the newest valid super block among copies in slot order; None without any.

    The order is that of the ring, not of the generations: the zone whose valid blocks
    start with the smaller generation comes first (zone 0 on a tie), and the last valid
    block of the later zone is the newest.

    Args:
        zone: 0 or 1 for each copy, ascending.
        valid: mask of the valid copies.
        generation: generation of each copy.
    """
    chosen: int | None = None
    smallest = smallest_generations(zone, valid, generation)
    newer = 1 - older_zone(smallest)
    for index in (newer, 1 - newer):
        rows = np.flatnonzero(valid & (zone == index))
        if len(rows):
            chosen = int(rows[-1])
            break
    return chosen


def smallest_generations(zone: np.ndarray, valid: np.ndarray, generation: np.ndarray) -> tuple[int | None, int | None]:
    """Smallest generation among the valid copies of each zone, None where there is none."""
    result: list[int | None] = []
    for index in (0, 1):
        chosen = generation[valid & (zone == index)]
        result.append(int(chosen.min()) if len(chosen) else None)
    return result[0], result[1]
