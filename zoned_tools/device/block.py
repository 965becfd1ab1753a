"""Real block devices: zone ioctls, aligned direct I/O, sysfs limits."""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import stat
import struct
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import Buffer, Geometry, ZoneOperation, check_range, check_zones
from zoned_tools.device.failstop import FailStop
from zoned_tools.device.sysfs import BlockSysfs
from zoned_tools.device.zones import SECTOR_BYTES, ZONE_DTYPE, Model, ZoneTable
from zoned_tools.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLKREPORTZONE = 0xC0101282
BLKREPORTZONEV2 = 0xC010128E
BLKRESETZONE = 0x40101283
BLKGETZONESZ = 0x80041284
BLKGETNRZONES = 0x80041285
BLKOPENZONE = 0x40101286
BLKCLOSEZONE = 0x40101287
BLKFINISHZONE = 0x40101288
BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268
BLKPBSZGET = 0x127B
BLKZEROOUT = 0x127F

_MANAGE = {
    ZoneOperation.RESET: BLKRESETZONE,
    ZoneOperation.OPEN: BLKOPENZONE,
    ZoneOperation.CLOSE: BLKCLOSEZONE,
    ZoneOperation.FINISH: BLKFINISHZONE,
}

_MEDIUM_ERRORS = (errno.ENODATA, errno.EILSEQ)
"""What Linux makes of a medium error and of a failed protection check (``blk_status_t``, block/blk-core.c, seen on
6.12): as other drives' EIO, the block cannot be read."""

ZONES_PER_REPORT = 4096
"""Zones asked for with one ioctl; single-zone reports cost milliseconds each on a disk."""

_REPORT_HEADER = struct.Struct("<QII")
_REPORT_HAS_CAPACITY = 1
_NOT_SUPPORTED = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP)
_IO_BYTES = 1 << 20
"""Size of the aligned buffer for direct I/O, and of the largest single request."""


class BlockDevice(FailStop):
    """A block device of the running kernel, opened for direct I/O.

    Direct I/O keeps reads of an active device's neighbour from showing stale cache pages
    and is required for writing sequential zones. Opening for write is exclusive (O_EXCL).
    """

    emulated = False

    def __init__(self, path: str, *, writable: bool = False, exclusive: bool = True) -> None:
        self.path = path
        self.writable = writable
        self._fd = _open_block(path, writable=writable, exclusive=exclusive)
        try:
            self.sysfs = BlockSysfs.of_device_number(os.fstat(self._fd).st_rdev)
            self.geometry = self._read_geometry()
        except BaseException:
            os.close(self._fd)
            raise
        self._aligned = mmap.mmap(-1, _IO_BYTES)  # page-aligned, as O_DIRECT wants
        self._bounce = memoryview(self._aligned)

    # -- what the device is

    def _ioctl_number(self, request: int, code: str) -> int:
        cell = array.array(code, [0])
        try:
            fcntl.ioctl(self._fd, request, cell)
        except OSError as error:
            if request in (BLKGETZONESZ, BLKGETNRZONES) and error.errno in _NOT_SUPPORTED:
                return 0
            raise DeviceError.from_os_error(error, self.path, "cannot read its geometry") from None
        return int(cell[0])

    def _read_geometry(self) -> Geometry:
        queue = self.sysfs.queue
        logical = self._ioctl_number(BLKSSZGET, "i")
        size = self._ioctl_number(BLKGETSIZE64, "Q")
        zone_bytes = self._ioctl_number(BLKGETZONESZ, "I") * SECTOR_BYTES
        model = {"host-managed": Model.HOST_MANAGED, "host-aware": Model.HOST_AWARE}.get(
            queue.text("zoned", "none"), Model.REGULAR
        )
        if self.sysfs.is_partition or not zone_bytes:
            model, zone_bytes = Model.REGULAR, 0
        return Geometry(
            model=model,
            size_bytes=size,
            zone_bytes=zone_bytes,
            nr_zones=-(-size // zone_bytes) if zone_bytes else 0,
            logical_block_bytes=logical,
            physical_block_bytes=self._ioctl_number(BLKPBSZGET, "I"),
            write_granularity_bytes=queue.number("zone_write_granularity") or logical,
            max_open_zones=queue.number("max_open_zones"),
            max_active_zones=queue.number("max_active_zones"),
            vendor=self.sysfs.vendor_text,
        )

    # -- reading and writing

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        buffer = bytearray(length_bytes)
        self.read_into(offset_bytes, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._check_open()
        check_range(self.geometry, self.path, offset_bytes, len(buffer))
        unit = self.geometry.logical_block_bytes
        done = 0
        while done < len(buffer):
            at = offset_bytes + done
            skip = at % unit
            wanted = min(len(buffer) - done, _IO_BYTES - skip)
            span = -(-(skip + wanted) // unit) * unit
            self._pread_exactly(at - skip, span)
            buffer[done : done + wanted] = self._bounce[skip : skip + wanted]
            done += wanted

    def _pread_exactly(self, offset_bytes: int, length_bytes: int) -> None:
        done = 0
        while done < length_bytes:
            try:
                got = os.preadv(self._fd, [self._bounce[done:length_bytes]], offset_bytes + done)
            except OSError as error:
                failed = DeviceError.from_os_error(error, self.path, f"cannot read at byte {offset_bytes + done}")
                if error.errno in _MEDIUM_ERRORS:
                    failed.errno = errno.EIO
                raise failed from None
            if got == 0:
                raise DeviceError(f"nothing to read at byte {offset_bytes + done}", device=self.path, errno=errno.EIO)
            done += got

    def write(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self._check_writable()
        check_range(self.geometry, self.path, offset_bytes, len(view))
        unit = self.geometry.logical_block_bytes
        if offset_bytes % unit or len(view) % unit:
            raise DeviceError(f"writes must be multiples of {unit} bytes", device=self.path, errno=errno.EINVAL)
        done = 0
        while done < len(view):
            count = min(len(view) - done, _IO_BYTES)
            self._bounce[:count] = view[done : done + count]
            self._pwrite_exactly(offset_bytes + done, count)
            done += count

    def _pwrite_exactly(self, offset_bytes: int, length_bytes: int) -> None:
        done = 0
        while done < length_bytes:
            try:
                done += os.pwritev(self._fd, [self._bounce[done:length_bytes]], offset_bytes + done)
            except OSError as error:
                raise DeviceError.from_os_error(
                    error, self.path, f"cannot write at byte {offset_bytes + done}"
                ) from None

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._check_writable()
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        if not length_bytes:
            return
        try:
            fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("<QQ", offset_bytes, length_bytes))
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise DeviceError.from_os_error(error, self.path, f"cannot zero at byte {offset_bytes}") from None
            zeroes = bytes(_IO_BYTES)
            for done in range(0, length_bytes, _IO_BYTES):
                self.write(offset_bytes + done, zeroes[: length_bytes - done])

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        check_range(self.geometry, self.path, offset_bytes, length_bytes)
        if length_bytes:
            yield offset_bytes, length_bytes

    # -- zones

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        nr_zones = self.geometry.nr_zones
        wanted = nr_zones - first_zone if count is None else min(count, nr_zones - first_zone)
        table = np.zeros(max(wanted, 0), ZONE_DTYPE)
        filled = 0
        while filled < wanted:
            sector = (first_zone + filled) * self.geometry.zone_bytes // SECTOR_BYTES
            part = self._report(sector, min(wanted - filled, ZONES_PER_REPORT))
            if not len(part):
                raise DeviceError(f"no zone reported at sector {sector}", device=self.path, errno=errno.EIO)
            table[filled : filled + len(part)] = part
            filled += len(part)
        return table

    def _report(self, sector: int, count: int) -> ZoneTable:
        buffer = bytearray(_REPORT_HEADER.size + count * ZONE_DTYPE.itemsize)
        for request in (BLKREPORTZONEV2, BLKREPORTZONE):
            _REPORT_HEADER.pack_into(buffer, 0, sector, count, 0)
            try:
                fcntl.ioctl(self._fd, request, buffer)
                break
            except OSError as error:
                if request == BLKREPORTZONEV2 and error.errno in _NOT_SUPPORTED:
                    continue
                raise DeviceError.from_os_error(error, self.path, "zone report failed") from None
        _, reported, flags = _REPORT_HEADER.unpack_from(buffer)
        table = np.frombuffer(bytes(buffer), ZONE_DTYPE, reported, _REPORT_HEADER.size).copy()
        if not flags & _REPORT_HAS_CAPACITY:
            table["capacity_sectors"] = table["length_sectors"]
        return table

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        self._check_writable()
        check_zones(self.geometry, self.path, first_zone, count)
        offset, length = self.geometry.zone_range_bytes(first_zone, count)
        packed = struct.pack("<QQ", offset // SECTOR_BYTES, length // SECTOR_BYTES)
        try:
            fcntl.ioctl(self._fd, _MANAGE[operation], packed)
        except OSError as error:
            last = first_zone + count - 1
            zones = f"zone {first_zone}" if count == 1 else f"zones {first_zone} to {last}"
            raise DeviceError.from_os_error(error, self.path, f"cannot {operation} {zones}") from None

    # -- end

    def flush(self) -> None:
        if not self.writable:
            return
        self._check_writable()
        with self._syncing():
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise DeviceError.from_os_error(error, self.path, "cannot flush") from None

    def _release(self) -> None:
        fd, self._fd = self._fd, -1  # the number may be another file's soon
        os.close(fd)
        self._bounce.release()
        self._aligned.close()


def _open_block(path: str, *, writable: bool, exclusive: bool) -> int:
    """Open for direct I/O; refuses what is mounted or held, naming the holder."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECT
    if writable and exclusive:
        flags |= os.O_EXCL
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            from zoned_tools.device.identity import describe_use

            raise BusyError(describe_use(path) or "in use", device=path, errno=errno.EBUSY) from None
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        os.close(fd)
        raise DeviceError("not a block device", device=path)
    return fd
