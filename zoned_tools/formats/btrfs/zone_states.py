"""The zones of one device as the stripes of block groups see them (btrfs-zoned.md 8.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import (
    ACTIVE_CONDITIONS,
    DEAD_CONDITIONS,
    SECTOR_BYTES,
    BoolArray,
    IntArray,
    ZoneCondition,
    condition_name,
    has_condition,
    is_conventional,
    written_sectors,
)

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

CONVENTIONAL = -1
DEAD = -2


@dataclass(frozen=True, slots=True)
class ZoneStates:
    """All zones of a device, as arrays with one element for each.

    Attributes:
        zone_bytes: real or emulated size.
        written: W, bytes below the write pointer; :data:`CONVENTIONAL` where there is none, :data:`DEAD` for
            read-only and offline zones.
        capacity: bytes that can be written.
        condition: as in the zone table.
    """

    start_bytes: int
    zone_bytes: int
    written: IntArray
    capacity: IntArray
    condition: IntArray

    @classmethod
    def of(cls, device: Device, start_bytes: int, zone_bytes: int) -> ZoneStates:
        """Zones of a device; one without a zone table has conventional zones of ``zone_bytes``."""
        if not device.geometry.is_zoned:
            count = -(-device.geometry.size_bytes // zone_bytes)
            same = [np.broadcast_to(np.int64(value), count) for value in (CONVENTIONAL, zone_bytes, 0)]
            return cls(start_bytes, zone_bytes, *same)
        table = device.zones()
        conventional = is_conventional(table)
        written = written_sectors(table) * SECTOR_BYTES
        written[written < 0] = DEAD
        written[conventional] = CONVENTIONAL
        written[has_condition(table, *DEAD_CONDITIONS)] = DEAD
        capacity = np.where(conventional, table["length_sectors"], table["capacity_sectors"])
        condition = table["condition"].astype(np.int64)
        return cls(start_bytes, zone_bytes, written, capacity.astype(np.int64) * SECTOR_BYTES, condition)

    def zone_of(self, offset_bytes: int) -> int | None:
        """The zone that holds a byte of the file system's device; None behind the last."""
        zone = (self.start_bytes + offset_bytes) // self.zone_bytes
        return zone if zone < len(self.written) else None

    def why_not(self, offset_bytes: int, length_bytes: int) -> str:
        """Why a range cannot hold content: ``above-wp`` or the condition of a dead zone; empty when it can."""
        zone = self.zone_of(offset_bytes)
        if zone is None:
            return ""
        written = int(self.written[zone])
        if self.is_offline(zone):
            return condition_name(int(self.condition[zone]))
        end = self.start_bytes + offset_bytes + length_bytes - zone * self.zone_bytes
        return "above-wp" if 0 <= written < end else ""

    def is_offline(self, zone: int) -> bool:
        """Nothing can be read from it."""
        return bool(self.condition[zone] == ZoneCondition.OFFLINE)

    @property
    def active(self) -> int:
        """Zones that count against the drive's limit of active zones."""
        return int(np.isin(self.condition, ACTIVE_CONDITIONS).sum())

    @property
    def holding(self) -> BoolArray:
        """Mask of sequential zones that are neither empty nor dead."""
        mask: BoolArray = self.written > 0
        return mask
