"""The partition as blocks, and what the drive says about its zones."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.badareas import salvage_into
from zoned_tools.device.partition import partitions
from zoned_tools.device.zones import SECTOR_BYTES, ZoneType, make_table
from zoned_tools.errors import DeviceError, GeometryError
from zoned_tools.formats.shared.zones import ZoneFacts
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, BLOCK_SECTORS, ZONE_BYTES, ZONE_SECTORS, Geometry

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer, Device
    from zoned_tools.device.zones import IntArray

Bytes2D = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Volume:
    """A partition on an open device.

    Attributes:
        offset_bytes: where block 0 is on ``device``.
        start_sector: where the partition begins on the drive; differs from ``offset_bytes``
            only when the device is a partition's own node.
        size_blocks: length of the partition.
        unread: blocks of metadata that could not be read so far, with ddrescue's letter of each.
        strict: no other block may fail: what is decided from here on would be wrong.
    """

    device: Device
    offset_bytes: int
    start_sector: int
    size_blocks: int
    unread: dict[int, str] = field(default_factory=dict, compare=False)
    strict: bool = False

    @classmethod
    def rest_of(cls, device: Device, start_bytes: int) -> Volume:
        """From ``start_bytes`` to the end of the partition that begins there, or of the device.

        Raises:
            GeometryError: the start is not on the device, or not on a block boundary.
        """
        size = device.geometry.size_bytes
        if start_bytes % BLOCK_BYTES:
            sector = start_bytes // SECTOR_BYTES
            raise GeometryError(f"start sector {sector} is not a multiple of {BLOCK_SECTORS}", device=device.path)
        if not 0 <= start_bytes < size:
            raise GeometryError(
                f"byte {start_bytes} is behind the end of the device ({size} bytes)", device=device.path
            )
        sectors = partition_sectors(device, start_bytes)
        return cls(device, start_bytes, start_bytes // SECTOR_BYTES, sectors // BLOCK_SECTORS)

    def strictly(self) -> Volume:
        """The same, of which no further block may fail."""
        return replace(self, strict=True)

    def read(self, block: int, count: int = 1) -> bytes:
        """``count`` blocks; what is behind the partition's end or cannot be read is an error of the device."""
        return self.device.read(self.offset_bytes + block * BLOCK_BYTES, count * BLOCK_BYTES)

    def read_rows(self, block: int, count: int) -> Bytes2D:
        """``count`` blocks of metadata as the writable rows of a byte array; zeroes for those that cannot be read."""
        buffer = np.empty((count, BLOCK_BYTES), np.uint8)
        if count:
            self.salvage(block, memoryview(buffer.reshape(-1).data))
        return buffer

    def salvage(self, block: int, buffer: memoryview) -> bool:
        """Fill ``buffer`` with blocks of metadata; those that cannot be read are zeroes, and noted in :attr:`unread`.

        Returns:
            whether there were any.

        Raises:
            DeviceError: one was not known, and the volume is strict (``EIO``).
        """
        bad = salvage_into(self.device, self.offset_bytes + block * BLOCK_BYTES, buffer)
        for start, end, status in bad:
            first, last = (start - self.offset_bytes) // BLOCK_BYTES, (end - 1 - self.offset_bytes) // BLOCK_BYTES
            blocks = range(first, last + 1)
            if self.strict and not self.unread.keys() >= set(blocks):
                path = self.device.path
                raise DeviceError(f"cannot read {end - start} bytes at byte {start}", device=path, errno=errno.EIO)
            self.unread.update(dict.fromkeys(blocks, status))
        return len(bad) > 0

    def read_data(self, block: int, count: int) -> tuple[Bytes2D, IntArray]:
        """``count`` blocks as rows, and the indices of those that the device stores; the others are zeroes."""
        rows = np.zeros((count, BLOCK_BYTES), np.uint8)
        start = self.offset_bytes + block * BLOCK_BYTES
        stored = [np.zeros(0, np.int64)]
        for offset, length in self.device.data_extents(start, count * BLOCK_BYTES):
            first, end = (offset - start) // BLOCK_BYTES, -(-(offset + length - start) // BLOCK_BYTES)
            part = rows[first:end]
            self.salvage(block + first, memoryview(part.reshape(-1).data))
            stored.append(np.arange(first, end))
        return rows, np.unique(np.concatenate(stored))

    def read_entries(self, block: int, count: int = 1) -> npt.NDArray[np.uint32]:
        """``count`` blocks of 1024 little-endian numbers each, as rows."""
        return self.read_rows(block, count).view("<u4")

    def write(self, block: int, data: Buffer) -> None:
        self.device.write(self.offset_bytes + block * BLOCK_BYTES, data)

    def has(self, block: int, count: int = 1) -> bool:
        return block >= 0 and block + count <= self.size_blocks


def partition_sectors(device: Device, start_bytes: int) -> int:
    """Length of the partition that begins at ``start_bytes``; without a partition table, up to the device's end."""
    size = device.geometry.size_bytes
    end = dict(partitions(device)).get(start_bytes, size) if start_bytes else size
    return (end - start_bytes) // SECTOR_BYTES


def data_zones(volume: Volume, geometry: Geometry) -> ZoneFacts:
    """What the drive says about the data zones, one element a zone; on a regular device all are conventional.

    Zones that the geometry has but the drive has not count as conventional ones.
    """
    count = geometry.data_zones
    table = make_table(count * ZONE_SECTORS, ZONE_SECTORS, nr_conventional=count)
    drive = volume.device.geometry
    if drive.is_zoned and drive.zone_bytes == ZONE_BYTES:
        first = geometry.zdstart if geometry.table_base == geometry.data_start else geometry.first_device_zone
        wanted = min(count, drive.nr_zones - first)
        if first >= 0 and wanted > 0:
            table[:wanted] = volume.device.zones(first, wanted)
    return ZoneFacts(table)


def zone_size_refusal(device: Device) -> str:
    """Why the drive's zones do not suit; empty when they do (or when it has none)."""
    drive = device.geometry
    if drive.is_zoned and drive.zone_bytes != ZONE_BYTES:
        return f"zones of {drive.zone_bytes} bytes, ZDM needs {ZONE_BYTES}"
    return ""


def metadata_zone_refusal(volume: Volume, geometry: Geometry) -> str:
    """Why the zones below the data cannot hold metadata; empty when they can."""
    drive = volume.device.geometry
    if not drive.is_zoned:
        return ""
    first = volume.offset_bytes // ZONE_BYTES
    end = min((volume.offset_bytes + geometry.data_start * BLOCK_BYTES) // ZONE_BYTES, drive.nr_zones)
    table = volume.device.zones(first, end - first)
    required = np.flatnonzero(table["type"] == ZoneType.SEQ_REQUIRED)
    if len(required):
        return (
            f"metadata needs conventional zones up to zone {end - 1}, "
            f"but zone {first + int(required[0])} requires sequential writes"
        )
    dead = np.flatnonzero(ZoneFacts(table).dead)
    if len(dead):
        return f"metadata zone {first + int(dead[0])} is read-only or offline"
    return ""
