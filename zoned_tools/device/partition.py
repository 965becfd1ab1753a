"""Partitions of a drive: a view that speaks as a whole device, and where partition tables put them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from construct import Bytes, Const, ConstructError, Int8ul, Int32ul, Int64ul, Padding, Struct

from zoned_tools.device.badareas import BadAreas, known_bad_areas, missing_bytes
from zoned_tools.device.base import (
    Buffer,
    ClosesOnExit,
    Device,
    Geometry,
    KeepsZoneFlags,
    ZoneOperation,
    check_range,
    check_zones,
)
from zoned_tools.device.zones import SECTOR_BYTES, ZoneTable
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MBR_ENTRY = Struct("status" / Int8ul, Padding(3), "type" / Int8ul, Padding(3), "start" / Int32ul, "sectors" / Int32ul)
_MBR_SIGNATURE = b"\x55\xaa"
_MBR = Struct(Padding(446), "entries" / _MBR_ENTRY[4], Const(_MBR_SIGNATURE))
_GPT_HEADER = Struct(
    Const(b"EFI PART"),
    Padding(64),
    "entries_lba" / Int64ul,
    "nr_entries" / Int32ul,
    "entry_bytes" / Int32ul,
)
_GPT_ENTRY = Struct("type" / Bytes(16), Padding(16), "first_lba" / Int64ul, "last_lba" / Int64ul)
_GPT_PROTECTIVE = 0xEE
_GPT_MAX_ENTRIES = 1024


def partition_starts(device: Device) -> list[int]:
    """First byte of each partition that a GPT or MBR on ``device`` names, ascending; empty without a table."""
    return [start for start, _ in partitions(device)]


def partitions(device: Device) -> list[tuple[int, int]]:
    """``(first byte, end byte)`` of each partition that a GPT or MBR names, ascending; empty without a table.

    Tables count in logical blocks; those that partitioning tools write to an image file count
    in sectors, whatever drive it is an image of. The first unit in which every partition fits
    the device is taken; partitions that fit in neither are cut at its end.
    """
    size = device.geometry.size_bytes
    units = dict.fromkeys((device.geometry.logical_block_bytes, SECTOR_BYTES))
    tables = [found for unit in units if (found := _partitions_in(device, unit))]
    whole = (found for found in tables if max(end for _, end in found) <= size)
    return [(start, min(end, size)) for start, end in next(whole, tables[0])] if tables else []


def _partitions_in(device: Device, unit: int) -> list[tuple[int, int]]:
    """The partitions of a table that counts in blocks of ``unit`` bytes; empty when they cannot be meant."""
    size = device.geometry.size_bytes
    if size < 3 * unit:
        return []
    try:
        sector = device.read(0, SECTOR_BYTES)
        if not sector.endswith(_MBR_SIGNATURE):  # most images: not worth a parser
            return []
        mbr = _MBR.parse(sector)
    except (ConstructError, DeviceError):
        return []
    if any(entry.type == _GPT_PROTECTIVE for entry in mbr.entries):
        found = _gpt_partitions(device, unit)
    else:
        found = [(e.start * unit, (e.start + e.sectors) * unit) for e in mbr.entries if e.type and e.sectors]
    return sorted({(start, end) for start, end in found if 0 < start < size and start < end})


def _gpt_partitions(device: Device, unit: int) -> list[tuple[int, int]]:
    try:
        header = _GPT_HEADER.parse(device.read(unit, unit))
        if header.entry_bytes < _GPT_ENTRY.sizeof() or header.nr_entries > _GPT_MAX_ENTRIES:
            return []
        raw = device.read(header.entries_lba * unit, header.nr_entries * header.entry_bytes)
    except (ConstructError, DeviceError):
        return []
    entries = [_GPT_ENTRY.parse(raw[at:]) for at in range(0, len(raw), header.entry_bytes)]
    return [(int(e.first_lba) * unit, (int(e.last_lba) + 1) * unit) for e in entries if any(e.type)]


def start_of_view(device: Device) -> int:
    """Where a device that a layout's rooms are handed begins on the drive that the user named, in bytes."""
    return device.start_bytes if isinstance(device, PartitionView) else 0


class PartitionView(ClosesOnExit):
    """Part of a device from ``start_bytes`` to ``end_bytes`` (default its end), as a device of its own.

    Raises:
        DeviceError: the start is outside the device or, on a zoned one, inside a zone.
    """

    def __init__(self, device: Device, start_bytes: int, end_bytes: int | None = None) -> None:
        parent = device.geometry
        end = parent.size_bytes if end_bytes is None else end_bytes
        if not 0 <= start_bytes < end <= parent.size_bytes:
            raise DeviceError(f"byte {start_bytes} is not on the device", device=device.path, errno=errno.EINVAL)
        if parent.is_zoned and start_bytes % parent.zone_bytes:
            raise DeviceError(f"byte {start_bytes} is not the start of a zone", device=device.path, errno=errno.EINVAL)
        self._device = device
        self._start = start_bytes
        self._first_zone = parent.zone_of(start_bytes) if parent.is_zoned else 0
        size = end - start_bytes
        self.geometry = Geometry(
            model=parent.model,
            size_bytes=size,
            zone_bytes=parent.zone_bytes,
            nr_zones=-(-size // parent.zone_bytes) if parent.is_zoned else 0,
            logical_block_bytes=parent.logical_block_bytes,
            physical_block_bytes=parent.physical_block_bytes,
            write_granularity_bytes=parent.write_granularity_bytes,
            max_open_zones=parent.max_open_zones,
            max_active_zones=parent.max_active_zones,
            vendor=parent.vendor,
        )

    @property
    def path(self) -> str:
        return self._device.path

    @property
    def start_bytes(self) -> int:
        """Where the view begins on the device."""
        return self._start

    @property
    def writable(self) -> bool:
        return self._device.writable

    @property
    def emulated(self) -> bool:
        return self._device.emulated

    def _at(self, offset_bytes: int, length_bytes: int) -> int:
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        return self._start + offset_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return self._device.read(self._at(offset_bytes, length_bytes), length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._device.read_into(self._at(offset_bytes, len(buffer)), buffer)

    def write(self, offset_bytes: int, data: Buffer) -> None:
        self._device.write(self._at(offset_bytes, len(data)), data)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._device.discard(self._at(offset_bytes, length_bytes), length_bytes)

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        available = self.geometry.nr_zones - first_zone
        table = self._device.zones(self._first_zone + first_zone, available if count is None else min(count, available))
        table["start_sector"] -= self._start // SECTOR_BYTES
        table["wp_sector"] -= self._start // SECTOR_BYTES
        return table

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        check_zones(self.geometry, self.path, first_zone, count)
        if operation is ZoneOperation.RESET and count == self.geometry.nr_zones:
            self._reset_all()
            return
        self._device.manage(operation, self._first_zone + first_zone, count)

    def set_zone_flags(self, zone: int, *, non_seq: bool, reset: bool) -> None:
        """Set the flags of a zone where the device can."""
        check_zones(self.geometry, self.path, zone, 1)
        if isinstance(self._device, KeepsZoneFlags):
            self._device.set_zone_flags(self._first_zone + zone, non_seq=non_seq, reset=reset)

    def _reset_all(self) -> None:
        """Reset-all skips what cannot be reset; a range on the parent would fail there."""
        for zone, row in enumerate(self.zones()):
            if row["type"] != 1 and row["condition"] not in (0x1, 0xD, 0xF):
                self._device.manage(ZoneOperation.RESET, self._first_zone + zone)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        for start, length in self._device.data_extents(self._at(offset_bytes, length_bytes), length_bytes):
            yield start - self._start, length

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What of a range is known to be unreadable."""
        return known_bad_areas(self._device, self._at(offset_bytes, length_bytes), length_bytes).shifted(-self._start)

    @property
    def missing_bytes(self) -> int:
        """What the whole image lacks."""
        return missing_bytes(self._device)

    def flush(self) -> None:
        self._device.flush()

    def close(self) -> None:
        """The device stays open; it belongs to whoever opened it."""
