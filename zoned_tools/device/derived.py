"""A raw copy of a zoned drive on a zone table that was derived: the copy itself has the content and no zone table.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from heapq import merge
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import NON_TRIED, BadAreas, known_bad_areas, salvage_into
from zoned_tools.device.base import Buffer, Device, Geometry
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.filestore import join_extents
from zoned_tools.device.zones import (
    SECTOR_BYTES,
    IntArray,
    Model,
    ZoneCondition,
    ZoneTable,
    is_sequential,
    make_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 4096
"""Write pointers are derived in these units."""

_PIECE_BYTES = 1 << 20


class _Below:
    """The bytes of a raw copy as a store; what its drive has behind the copy's end cannot be read."""

    def __init__(self, base: Device, drive_bytes: int) -> None:
        self._base = base
        self._there = min(base.geometry.size_bytes, drive_bytes)
        self._tail = BadAreas.of([(self._there, drive_bytes, NON_TRIED)])

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._tail.refuse(offset_bytes, len(buffer), self._base.path)
        self._base.read_into(offset_bytes, buffer)

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        self._base.write(offset_bytes, data)

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        self._base.discard(offset_bytes, length_bytes)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        inside = max(min(self._there - offset_bytes, length_bytes), 0)
        stored = self._base.data_extents(offset_bytes, inside) if inside else iter(())
        missing = ((start, end - start) for start, end, _ in self._tail.within(offset_bytes, length_bytes))
        return join_extents(merge(stored, missing))

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        inside = max(min(self._there - offset_bytes, length_bytes), 0)
        known = known_bad_areas(self._base, offset_bytes, inside) if inside else BadAreas()
        return known.joined(self._tail.within(offset_bytes, length_bytes))

    @property
    def missing_bytes(self) -> int:
        return self._tail.total_bytes

    def sync(self, _table: ZoneTable, _changed: set[int]) -> None:
        """Bytes only: nothing keeps a derived table."""
        self._base.flush()

    def close(self) -> None:
        """The copy stays open; it belongs to whoever opened it."""


class DerivedDrive(EmulatedDrive):
    """A view of a raw copy with the zones of its drive; a write goes through, the zone table is kept nowhere.

    Args:
        base: the copy. It may be shorter than the drive, whose last bytes then cannot be read, or longer.
    """

    def __init__(self, base: Device, geometry: Geometry, table: ZoneTable) -> None:
        self.base = base
        super().__init__(base.path, geometry, table, _Below(base, geometry.size_bytes), writable=base.writable)


def raw_geometry(size_bytes: int, zone_bytes: int) -> Geometry:
    """The drive of a raw copy: what the content does not tell is as on a disk with sectors of 512 bytes."""
    unit = BLOCK_BYTES if size_bytes % BLOCK_BYTES == 0 else SECTOR_BYTES
    return Geometry(
        Model.HOST_MANAGED,
        size_bytes,
        zone_bytes,
        -(-size_bytes // zone_bytes),
        physical_block_bytes=unit,
        write_granularity_bytes=unit,
    )


def conventional_view(base: Device, geometry: Geometry) -> DerivedDrive:
    """A raw copy with zones of which everything can be read, for finding out more about them."""
    sectors = geometry.size_bytes // SECTOR_BYTES
    table = make_table(sectors, geometry.zone_bytes // SECTOR_BYTES, nr_conventional=geometry.nr_zones)
    return DerivedDrive(base, geometry, table)


def set_written(table: ZoneTable, blocks: IntArray) -> ZoneTable:
    """Put write pointers, in blocks from the start of each zone, into the sequential zones of a table.

    0 makes a zone empty, its capacity full, anything else closed.
    """
    capacity = table["capacity_sectors"].astype(np.int64)
    written = np.minimum(blocks * (BLOCK_BYTES // SECTOR_BYTES), capacity)
    condition = np.where(written == 0, ZoneCondition.EMPTY, ZoneCondition.CLOSED)
    condition[written == capacity] = ZoneCondition.FULL
    rows = is_sequential(table)
    ends = table["start_sector"] + written.astype(np.uint64)
    full = condition == ZoneCondition.FULL
    ends[full] = (table["start_sector"] + table["length_sectors"])[full]
    table["wp_sector"][rows] = ends[rows]
    table["condition"][rows] = condition[rows]
    return table


def find_written(device: Device, first_zone: int, floor: IntArray) -> IntArray:
    """How far zones of a raw copy hold data: the last block that is not all zero, or cannot be read, and one.

    Reads backwards from the end of each zone, only what is no hole, and only down to ``floor``.

    Args:
        device: with the zones of the drive, all of them readable.
        first_zone: the first of the zones.
        floor: blocks that are known to be written, one number a zone.

    Returns:
        blocks, ``floor`` or more.

    Raises:
        DeviceError: a read failed otherwise than by a medium error.
    """
    found = floor.copy()
    geometry = device.geometry
    start, length = geometry.zone_range_bytes(first_zone, len(floor))
    for zone, extents in _extents_of_zones(device, start, length):
        row, zone_start = zone - first_zone, zone * geometry.zone_bytes
        end = _last_data(device, extents, zone_start + int(floor[row]) * BLOCK_BYTES)
        if end:
            found[row] = -(-(end - zone_start) // BLOCK_BYTES)
    return found


def _extents_of_zones(device: Device, start: int, length: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """``(zone, its parts that are no hole)`` of the zones of a range that have any; parts are ``(start, end)``."""
    size = device.geometry.zone_bytes
    zone, parts = -1, list[tuple[int, int]]()
    for at, count in device.data_extents(start, length):
        edges = [at, *range((at // size + 1) * size, at + count, size), at + count]
        for first, end in pairwise(edges):
            if first // size != zone and parts:
                yield zone, parts
                parts = []
            zone = first // size
            parts.append((first, end))
    if parts:
        yield zone, parts


def _last_data(device: Device, extents: list[tuple[int, int]], floor: int) -> int:
    """End of the last byte above ``floor`` that is not zero or cannot be read; 0 where there is none."""
    buffer = bytearray(_PIECE_BYTES)
    for start, end in reversed(extents):
        at = end
        while at > max(start, floor):
            first = max(start, floor, (at - 1) // _PIECE_BYTES * _PIECE_BYTES)
            view = memoryview(buffer)[: at - first]
            bad = salvage_into(device, first, view)
            last = int(bad.ends[-1]) if len(bad) else 0
            stored = np.flatnonzero(np.frombuffer(view, np.uint8))
            if len(stored):
                last = max(last, first + int(stored[-1]) + 1)
            if last:
                return last
            at = first
    return 0


def table_by_content(base: Device, geometry: Geometry, conventional: int) -> ZoneTable:
    """The zone table of a raw copy: some conventional zones, and others written as far as they are not all zero."""
    table = make_table(
        geometry.size_bytes // SECTOR_BYTES, geometry.zone_bytes // SECTOR_BYTES, nr_conventional=conventional
    )
    written = np.zeros(len(table), np.int64)
    if conventional < len(table):
        view = conventional_view(base, geometry)
        written[conventional:] = find_written(view, conventional, written[conventional:])
    return set_written(table, written)
