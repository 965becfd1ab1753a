"""An emulated drive: a zone state machine in front of a store of bytes.

:class:`EmulatedDrive` holds everything that images, overlays and regular files have in
common; a :class:`Store` keeps the bytes and makes them durable together with the zone table.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoned_tools.device.badareas import BadAreas, KnowsBadAreas, read_around
from zoned_tools.device.base import Buffer, Geometry, ZoneOperation, check_range, check_zones
from zoned_tools.device.failstop import FailStop, SyncError
from zoned_tools.device.machine import DriveFamily, ZoneMachine
from zoned_tools.device.runs import intersections
from zoned_tools.device.zones import (
    ACTIVE_CONDITIONS,
    SECTOR_BYTES,
    ZONE_DTYPE,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    shown_rows,
)
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BELOW_WP = tuple(int(c) for c in (ZoneCondition.EMPTY, *ACTIVE_CONDITIONS))
"""Conditions in which a sequential zone is readable up to its write pointer."""


class Store(Protocol):
    """Bytes behind an emulated drive. Ranges are inside the drive; holes read as zeroes."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None: ...

    def pwrite(self, offset_bytes: int, data: Buffer) -> None: ...

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeroes and free its space."""
        ...

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]: ...

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Make the bytes durable, then the descriptors of the zones in ``changed``."""
        ...

    def close(self) -> None: ...


class EmulatedDrive(FailStop):
    """A :class:`~zoned_tools.device.base.Device` over a store.

    A reset takes the content away only once the zone's new state is durable: the bytes of
    a zone that was reset since the last sync are punched at the next sync, or before the
    first write to it (which syncs first). So whatever a power cut leaves, the zone table
    never promises data that are gone; at worst a zone that was reset or written since the
    last flush shows its state from before.

    What waits for a sync is forgotten after the sync succeeded; when one fails, nothing more
    is accepted (:class:`~zoned_tools.device.failstop.FailStop`).
    """

    emulated = True

    def __init__(
        self,
        path: str,
        geometry: Geometry,
        table: ZoneTable,
        store: Store,
        *,
        writable: bool = False,
        family: DriveFamily | None = None,
    ) -> None:
        self.path = path
        self.geometry = geometry
        self.writable = writable
        self.machine = ZoneMachine(
            table,
            family or DriveFamily.of_vendor(geometry.vendor),
            max_open=geometry.max_open_zones,
            max_active=geometry.max_active_zones,
            granularity_sectors=max(geometry.write_granularity_bytes // SECTOR_BYTES, 1),
            path=path,
        )
        self._store = store
        self._knowing = store if isinstance(store, KnowsBadAreas) else None
        self._to_punch: set[int] = set()
        dead = table["condition"] == ZoneCondition.OFFLINE
        self._all_conventional = bool((table["type"] == ZoneType.CONVENTIONAL).all() and not dead.any())

    # -- reading

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        buffer = bytearray(length_bytes)
        self.read_into(offset_bytes, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._check_open()
        length = len(buffer)
        check_range(self.geometry, self.path, offset_bytes, length)
        if not length:
            return
        if self._all_conventional:
            self._store.read_into(offset_bytes, buffer)
            return
        for start, end, readable in self._read_parts(offset_bytes, length):
            part = buffer[start - offset_bytes : end - offset_bytes]
            split = min(max(readable - start, 0), end - start)
            if split:
                self._store.read_into(start, part[:split])
            if split < end - start:
                part[split:] = bytes(end - start - split)

    def _read_parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
        """``(start, end, end of readable data)`` of each zone's part of a range, adjacent readable ones joined."""
        end_bytes = offset_bytes + length_bytes
        first, last = self.geometry.zone_of(offset_bytes), self.geometry.zone_of(end_bytes - 1)
        if first == last:
            yield offset_bytes, end_bytes, self._readable_end(first)
            return
        zones = self.machine.table[first : last + 1]
        offline = np.flatnonzero(zones["condition"] == ZoneCondition.OFFLINE)
        if len(offline):
            raise DeviceError(f"zone {first + int(offline[0])} is offline", device=self.path, errno=errno.EIO)
        pending: tuple[int, int, int] | None = None
        for index, readable in enumerate(self._readable_ends(zones)):
            zone_start = (first + index) * self.geometry.zone_bytes
            start = max(zone_start, offset_bytes)
            end = min(zone_start + self.geometry.zone_bytes, end_bytes)
            if pending is not None and pending[2] >= pending[1]:
                pending = (pending[0], end, readable)
                continue
            if pending is not None:
                yield pending
            pending = (start, end, readable)
        if pending is not None:
            yield pending

    def _readable_end(self, zone: int) -> int:
        """:meth:`_readable_ends` of one zone, for the many reads that stay inside one: ten times faster."""
        start, length, wp, kind, condition, _, _, capacity = self.machine.table[zone].item()
        if condition == ZoneCondition.OFFLINE:
            raise DeviceError(f"zone {zone} is offline", device=self.path, errno=errno.EIO)
        if kind == ZoneType.CONVENTIONAL:
            return int(start + length) * SECTOR_BYTES
        end = start + capacity
        return int(min(wp, end) if condition in _BELOW_WP else end) * SECTOR_BYTES

    def _readable_ends(self, zones: ZoneTable) -> list[int]:
        """End byte of the data that each zone returns; everything after it reads as zeroes."""
        capacity = zones["start_sector"] + zones["capacity_sectors"]
        below_wp = np.isin(zones["condition"], _BELOW_WP)
        required = zones["type"] != ZoneType.CONVENTIONAL
        ends = np.where(below_wp & required, np.minimum(zones["wp_sector"], capacity), capacity)
        ends[~required] = (zones["start_sector"] + zones["length_sectors"])[~required]
        result: list[int] = (ends * np.uint64(SECTOR_BYTES)).tolist()
        return result

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        if not length_bytes:
            return
        if self._all_conventional:
            yield from self._store.data_extents(offset_bytes, length_bytes)
            return
        for start, end, readable in self._read_parts(offset_bytes, length_bytes):
            stop = min(readable, end)
            if stop > start:
                yield from self._store.data_extents(start, stop - start)

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What of a range is known to be unreadable; nothing above a write pointer is, nor in an offline zone."""
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        bad = self._bad_in_store(offset_bytes, length_bytes)
        if self._all_conventional or not len(bad):
            return bad
        size = self.geometry.zone_bytes
        table = self.machine.table[int(bad.starts[0]) // size : -(-int(bad.ends[-1]) // size)]
        rows = np.stack((bad.starts, bad.ends), axis=1)
        pieces, row = intersections(rows, shown_rows(table, self.geometry.size_bytes))
        return BadAreas.of_columns(pieces[:, 0], pieces[:, 1], bad.status[row])

    @property
    def missing_bytes(self) -> int:
        return self._knowing.missing_bytes if self._knowing is not None else 0

    def _bad_in_store(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        return BadAreas() if self._knowing is None else self._knowing.bad_areas(offset_bytes, length_bytes)

    def read_stored(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The store's bytes whatever the zone states say; a check of an image looks above write pointers with it.

        What was reset since the last sync is gone, although the store still has it; what cannot be read is zeroes.
        """
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        buffer = bytearray(length_bytes)
        bad = self._bad_in_store(offset_bytes, length_bytes)
        read_around(self._store.read_into, bad, offset_bytes, memoryview(buffer))
        for zone in self._to_punch:
            first, size = self.geometry.zone_range_bytes(zone, 1)
            start, stop = max(first - offset_bytes, 0), min(first + size - offset_bytes, length_bytes)
            if start < stop:
                buffer[start:stop] = bytes(stop - start)
        return bytes(buffer)

    # -- writing

    def write(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self._check_writable()
        check_range(self.geometry, self.path, offset_bytes, len(view))
        unit = self.geometry.logical_block_bytes
        if offset_bytes % unit or len(view) % unit:
            raise DeviceError(f"writes must be multiples of {unit} bytes", device=self.path, errno=errno.EINVAL)
        if not self.geometry.is_zoned:
            self._put(offset_bytes, view)
            return
        # The kernel splits a write at zone boundaries and issues every part, also when one fails.
        failed: DeviceError | None = None
        done = 0
        while done < len(view):
            at = offset_bytes + done
            zone = self.geometry.zone_of(at)
            count = min(len(view) - done, (zone + 1) * self.geometry.zone_bytes - at)
            try:
                self._write_zone(zone, at, view[done : done + count])
            except SyncError:
                raise
            except DeviceError as error:
                failed = failed or error
            done += count
        if failed is not None:
            raise failed

    def _write_zone(self, zone: int, at: int, data: memoryview) -> None:
        offset_sectors = (at - zone * self.geometry.zone_bytes) // SECTOR_BYTES
        count = len(data) // SECTOR_BYTES
        self.machine.check_write(zone, offset_sectors, count)
        if zone in self._to_punch:
            self._sync()
        self._put(at, data)
        if self.machine.is_sequential(zone):
            self.machine.advance(zone, offset_sectors, count)

    def _put(self, at: int, data: memoryview) -> None:
        try:
            self._store.pwrite(at, data)
        except SyncError as error:  # a store of many files syncs one when it closes it
            raise self._poison(error) from None

    def _take_away(self, offset_bytes: int, length_bytes: int) -> None:
        try:
            self._store.punch(offset_bytes, length_bytes)
        except SyncError as error:
            raise self._poison(error) from None

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._check_writable()
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        if self.geometry.is_zoned and length_bytes:
            first = self.geometry.zone_of(offset_bytes)
            last = self.geometry.zone_of(offset_bytes + length_bytes - 1)
            for zone in range(first, last + 1):
                if self.machine.is_sequential(zone):
                    raise DeviceError(
                        f"zone {zone} is sequential, it can only be reset", device=self.path, errno=errno.EIO
                    )
                self.machine.check_write(zone, 0, 0)
        self._take_away(offset_bytes, length_bytes)

    # -- zones

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        end = None if count is None else first_zone + count
        return self.machine.table[first_zone:end].copy()

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        self._check_writable()
        check_zones(self.geometry, self.path, first_zone, count)
        if operation is ZoneOperation.RESET and count == self.geometry.nr_zones:
            self._to_punch.update(int(z) for z in self.machine.reset_all())
            return
        for zone in range(first_zone, first_zone + count):
            self._manage_zone(operation, zone)

    def set_zone_flags(self, zone: int, *, non_seq: bool, reset: bool) -> None:
        """Set what a host-aware zone reports beside its condition."""
        self._check_writable()
        check_zones(self.geometry, self.path, zone, 1)
        self.machine.set_flags(zone, non_seq=non_seq, reset=reset)

    def _manage_zone(self, operation: ZoneOperation, zone: int) -> None:
        match operation:
            case ZoneOperation.RESET:
                if self.machine.reset(zone):
                    self._to_punch.add(zone)
            case ZoneOperation.OPEN:
                self.machine.open(zone)
            case ZoneOperation.CLOSE:
                self.machine.close(zone)
            case ZoneOperation.FINISH:
                if self.machine.is_sequential(zone) and self.machine.condition(zone) in _BELOW_WP:
                    self._forget_above(zone)
                self.machine.finish(zone)

    def _forget_above(self, zone: int) -> None:
        """A finished zone will be readable up to its capacity: first stale bytes above its write pointer must go."""
        if zone in self._to_punch:
            self._sync()
        written_sectors = self.machine.written(zone)
        start = zone * self.geometry.zone_bytes
        length = int(self.machine.table["length_sectors"][zone]) - written_sectors
        self._take_away(start + written_sectors * SECTOR_BYTES, length * SECTOR_BYTES)

    # -- durability

    def _sync(self) -> None:
        with self._syncing():
            changed = self.machine.changed
            self._store.sync(self.machine.table, changed)
            self.machine.forget_changed(changed)
            for zone in sorted(self._to_punch):
                row = self.machine.table[zone]
                start = int(row["start_sector"]) * SECTOR_BYTES
                self._store.punch(start, int(row["length_sectors"]) * SECTOR_BYTES)
                self._to_punch.discard(zone)

    def flush(self) -> None:
        if self.writable:
            self._check_writable()
            self._sync()

    def _release(self) -> None:
        self._store.close()


def no_zones() -> ZoneTable:
    """The zone table of a regular device."""
    return np.zeros(0, ZONE_DTYPE)
