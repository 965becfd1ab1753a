"""The zone state machine of an emulated drive.

Three families of drives differ in details (which zone is closed when the limit of open
zones is reached, what CLOSE does to an empty zone, which errno is given); the rules here
reproduce traces of real devices of each family. Nothing in this module touches content:
it decides whether an operation is allowed and what it does to the zone table.
"""

from __future__ import annotations

import errno
from enum import StrEnum

import numpy as np

from zoned_tools.device.zones import (
    DEAD_CONDITIONS,
    OPEN_CONDITIONS,
    SECTOR_BYTES,
    IntArray,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    has_condition,
    is_sequential,
)
from zoned_tools.errors import DeviceError


class DriveFamily(StrEnum):
    """Whose rules an emulated drive follows."""

    NULL_BLK = "null_blk"
    NVME = "nvme"
    SCSI = "scsi"

    @classmethod
    def of_vendor(cls, vendor: str) -> DriveFamily:
        """The family that a zone dump's vendor text tells: null_blk has none, NVMe drives say so."""
        if vendor in ("", "Unknown"):
            return cls.NULL_BLK
        return cls.NVME if "nvme" in vendor.lower() else cls.SCSI


class ZoneMachine:
    """Conditions and write pointers of a drive's zones.

    Args:
        table: the zone table; owned and changed in place from now on.
        max_open, max_active: limits, 0 for none.
        granularity_sectors: unit of writes to sequential zones.
        path: for messages.
    """

    def __init__(
        self,
        table: ZoneTable,
        family: DriveFamily,
        *,
        max_open: int = 0,
        max_active: int = 0,
        granularity_sectors: int = 1,
        path: str = "",
    ) -> None:
        self.table = table
        self.family = family
        self.max_open = max_open
        self.max_active = max_active
        self.granularity_sectors = granularity_sectors
        self.path = path
        self._implicit = dict.fromkeys(self._zones_with(ZoneCondition.IMPLICIT_OPEN))
        self._explicit = set(self._zones_with(ZoneCondition.EXPLICIT_OPEN))
        self._closed = set(self._zones_with(ZoneCondition.CLOSED))
        sequential = np.flatnonzero(is_sequential(table))
        self._first_sequential = int(sequential[0]) if len(sequential) else 0
        self._cursor = self._first_sequential
        self._changed: set[int] = set()

    def _zones_with(self, condition: ZoneCondition) -> list[int]:
        mask = has_condition(self.table, condition) & is_sequential(self.table)
        return [int(z) for z in np.flatnonzero(mask)]

    # -- the pieces that a transition is made of

    def condition(self, zone: int) -> ZoneCondition:
        return ZoneCondition(int(self.table["condition"][zone]))

    def is_sequential(self, zone: int) -> bool:
        return bool(self.table["type"][zone] != ZoneType.CONVENTIONAL)

    def start(self, zone: int) -> int:
        return int(self.table["start_sector"][zone])

    def written(self, zone: int) -> int:
        """Sectors below the write pointer; the capacity for a full zone."""
        if self.condition(zone) is ZoneCondition.FULL:
            return int(self.table["capacity_sectors"][zone])
        return int(self.table["wp_sector"][zone]) - self.start(zone)

    def _set(self, zone: int, condition: ZoneCondition) -> None:
        self._implicit.pop(zone, None)
        self._explicit.discard(zone)
        self._closed.discard(zone)
        self._changed.add(zone)
        self.table["condition"][zone] = condition
        if condition is ZoneCondition.IMPLICIT_OPEN:
            self._implicit[zone] = None
        elif condition is ZoneCondition.EXPLICIT_OPEN:
            self._explicit.add(zone)
        elif condition is ZoneCondition.CLOSED:
            self._closed.add(zone)

    def _close(self, zone: int) -> None:
        """An open zone becomes closed; an untouched one becomes empty again except on NVMe drives."""
        untouched = self.written(zone) == 0
        empty = untouched and self.family is not DriveFamily.NVME
        self._set(zone, ZoneCondition.EMPTY if empty else ZoneCondition.CLOSED)

    def _fail(self, zone: int, why: str, number: int | None = None) -> DeviceError:
        if number is None:
            number = errno.EREMOTEIO if self.family is DriveFamily.SCSI else errno.EIO
        return DeviceError(f"zone {zone}: {why}", device=self.path, errno=number)

    def _open_limit(self, zone: int) -> DeviceError:
        return self._fail(zone, f"{self.max_open} zones are open, the most this drive allows", errno.ETOOMANYREFS)

    def _active_limit(self, zone: int) -> DeviceError:
        return self._fail(zone, f"{self.max_active} zones are active, the most this drive allows", errno.EOVERFLOW)

    @property
    def _nr_open(self) -> int:
        return len(self._implicit) + len(self._explicit)

    @property
    def _nr_active(self) -> int:
        return self._nr_open + len(self._closed)

    # -- what has to be free before an empty or closed zone opens

    def _take_resources(self, zone: int) -> None:
        match self.family:
            case DriveFamily.NULL_BLK:
                self._take_null_blk(zone)
            case DriveFamily.NVME:
                self._take_nvme(zone)
            case DriveFamily.SCSI:
                self._take_scsi(zone)

    def _take_null_blk(self, zone: int) -> None:
        empty = self.condition(zone) is ZoneCondition.EMPTY
        if empty and self.max_active and self._nr_active >= self.max_active:
            raise self._active_limit(zone)
        if not self.max_open or self._nr_open < self.max_open:
            return
        room = not self.max_active or self._nr_active < self.max_active
        if not self._implicit or not room:
            raise self._open_limit(zone)
        victim = min(self._implicit, key=lambda z: (z < self._cursor, z))
        self._close(victim)
        following = victim + 1
        self._cursor = following if following < len(self.table) else self._first_sequential

    def _take_nvme(self, zone: int) -> None:
        if self.max_open and self._nr_open >= self.max_open and self._implicit:
            self._close(next(iter(self._implicit)))
        empty = self.condition(zone) is ZoneCondition.EMPTY
        if empty and self.max_active and self._nr_active + 1 > self.max_active:
            raise self._active_limit(zone)
        if self.max_open and self._nr_open + 1 > self.max_open:
            raise self._open_limit(zone)

    def _take_scsi(self, zone: int) -> None:
        if not self.max_open:
            return
        if len(self._explicit) >= self.max_open:
            raise self._open_limit(zone)
        if self._nr_open >= self.max_open:
            self._close(min(self._implicit))

    # -- zone management

    def _require_sequential(self, zone: int, doing: str) -> ZoneCondition:
        if not self.is_sequential(zone):
            raise self._fail(zone, f"cannot {doing} a conventional zone")
        condition = self.condition(zone)
        if condition in DEAD_CONDITIONS:
            raise self._fail(zone, f"cannot {doing} a zone that is {condition.name.lower().replace('_', '-')}")
        return condition

    def open(self, zone: int) -> None:
        """Explicitly open one zone."""
        condition = self._require_sequential(zone, "open")
        if condition is ZoneCondition.FULL:
            if self.family is DriveFamily.SCSI:
                return
            raise self._fail(zone, "cannot open a full zone")
        if condition is ZoneCondition.EXPLICIT_OPEN:
            return
        if condition is ZoneCondition.IMPLICIT_OPEN:
            if self.family is DriveFamily.SCSI and self.max_open and len(self._explicit) >= self.max_open:
                raise self._open_limit(zone)
        else:
            self._take_resources(zone)
        self._set(zone, ZoneCondition.EXPLICIT_OPEN)

    def close(self, zone: int) -> None:
        """Close one zone."""
        condition = self._require_sequential(zone, "close")
        if condition in OPEN_CONDITIONS:
            self._close(zone)
        elif condition is not ZoneCondition.CLOSED and self.family is not DriveFamily.SCSI:
            raise self._fail(zone, f"cannot close a zone that is {condition.name.lower()}")

    def finish(self, zone: int) -> bool:
        """Make one zone full; False when it was already."""
        condition = self._require_sequential(zone, "finish")
        if condition is ZoneCondition.FULL:
            return False
        needs_room = condition in (ZoneCondition.EMPTY, ZoneCondition.CLOSED)
        if needs_room and self.family is DriveFamily.NULL_BLK:
            self._take_resources(zone)
        self._set_full(zone, finished=True)
        return True

    def _set_full(self, zone: int, *, finished: bool) -> None:
        self._set(zone, ZoneCondition.FULL)
        at_end = finished or self.family is not DriveFamily.NULL_BLK
        field = "length_sectors" if at_end else "capacity_sectors"
        self.table["wp_sector"][zone] = self.table["start_sector"][zone] + self.table[field][zone]

    def reset(self, zone: int) -> bool:
        """Empty one zone; False when it was empty already."""
        condition = self._require_sequential(zone, "reset")
        if condition is ZoneCondition.EMPTY:
            return False
        self._set(zone, ZoneCondition.EMPTY)
        self.table["wp_sector"][zone] = self.table["start_sector"][zone]
        self.table["non_seq"][zone] = 0
        self.table["reset"][zone] = 0
        return True

    def set_flags(self, zone: int, *, non_seq: bool, reset: bool) -> None:
        """Set a zone's flags: non-sequential write resources in use, reset recommended."""
        self.table["non_seq"][zone], self.table["reset"][zone] = non_seq, reset
        self._changed.add(zone)

    def reset_all(self) -> IntArray:
        """Empty every sequential zone that can be; returns the indices that were not empty."""
        skip = has_condition(self.table, ZoneCondition.EMPTY, *DEAD_CONDITIONS)
        chosen = np.flatnonzero(is_sequential(self.table) & ~skip)
        self.table["condition"][chosen] = ZoneCondition.EMPTY
        self.table["wp_sector"][chosen] = self.table["start_sector"][chosen]
        self.table["non_seq"][chosen] = 0
        self.table["reset"][chosen] = 0
        self._implicit.clear()
        self._explicit.clear()
        self._closed.clear()
        self._changed.update(chosen.tolist())
        return chosen

    # -- writing

    def check_write(self, zone: int, offset_sectors: int, count: int) -> None:
        """Refuse a write of ``count`` sectors at ``offset_sectors`` of a zone, or take what it needs.

        Call :meth:`advance` once the data is stored.
        """
        condition = self.condition(zone)
        if not self.is_sequential(zone):
            if condition in DEAD_CONDITIONS:
                raise self._fail(zone, f"cannot write, the zone is {condition.name.lower().replace('_', '-')}")
            return
        preferred = self.table["type"][zone] == ZoneType.SEQ_PREFERRED
        if condition in DEAD_CONDITIONS or (condition is ZoneCondition.FULL and not preferred):
            raise self._fail(zone, f"cannot write, the zone is {condition.name.lower().replace('_', '-')}")
        if offset_sectors % self.granularity_sectors or count % self.granularity_sectors:
            unit = self.granularity_sectors * SECTOR_BYTES
            raise self._fail(zone, f"writes must be multiples of {unit} bytes", errno.EINVAL)
        if offset_sectors + count > int(self.table["capacity_sectors"][zone]):
            raise self._fail(zone, "write runs over the end of the zone's capacity")
        if not preferred and offset_sectors != self.written(zone):
            at, wp = offset_sectors * SECTOR_BYTES, self.written(zone) * SECTOR_BYTES
            raise self._fail(zone, f"write at byte {at} of the zone, its write pointer is at {wp}")
        if condition in (ZoneCondition.EMPTY, ZoneCondition.CLOSED):
            self._take_resources(zone)

    def advance(self, zone: int, offset_sectors: int, count: int) -> None:
        """Account a write that :meth:`check_write` allowed."""
        if not self.is_sequential(zone):
            return
        self._changed.add(zone)
        condition = self.condition(zone)
        written = self.written(zone)
        if offset_sectors != written:
            self.table["non_seq"][zone] = 1
        if condition is ZoneCondition.FULL:
            return
        end = max(written, offset_sectors + count)
        if end == int(self.table["capacity_sectors"][zone]):
            self._set_full(zone, finished=False)
            return
        self.table["wp_sector"][zone] = self.start(zone) + end
        if condition not in OPEN_CONDITIONS:
            self._set(zone, ZoneCondition.IMPLICIT_OPEN)

    @property
    def changed(self) -> set[int]:
        """Zones whose descriptor changed since :meth:`forget_changed`, implicitly closed ones included."""
        return set(self._changed)

    def forget_changed(self, zones: set[int]) -> None:
        """The descriptors of ``zones`` are durable now."""
        self._changed -= zones
