"""Image files as drives.

``disk.img`` is the raw content (sparse); ``disk.img.zones`` beside it is its zone table
(:mod:`zoned_tools.device.dump`). A file without a sidecar is a regular device. A pair that
``zbd dump`` wrote (``X_zone_data.dump`` and ``X_zone_info.dump``) opens as it is.

What a power cut can leave: data are synced before the zone descriptors that make them
readable, and each descriptor is replaced within one sector; so a zone shows either its
state at the last flush or a later one whose data are there. Descriptors of different zones
are updated independently, as on a drive.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.base import Buffer, Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.machine import DriveFamily
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneTable, written_sectors
from zoned_tools.errors import BusyError, DeviceError, SidecarError

SIDECAR_SUFFIX = ".zones"
_DATA_DUMP, _INFO_DUMP = "_zone_data.dump", "_zone_info.dump"

_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2


def sidecar_path(image: str) -> str:
    """Where the zone table of an image is."""
    if image.endswith(_DATA_DUMP):
        return image.removesuffix(_DATA_DUMP) + _INFO_DUMP
    return image + SIDECAR_SUFFIX


def _libc_fallocate() -> ctypes._FuncPointer | None:  # the standard library has no hole punching
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function


def _lock(fd: int, path: str, *, exclusive: bool) -> None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise BusyError("in use by another program", device=path, errno=errno.EBUSY) from None
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise DeviceError.from_os_error(error, path, "cannot lock") from None


class FileStore:
    """The bytes of an image and, for a zoned one, its sidecar."""

    def __init__(self, path: str, fd: int, sidecar_fd: int = -1) -> None:
        self.path = path
        self._fd = fd
        self._sidecar_fd = sidecar_fd

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        done = 0
        try:
            while done < len(buffer):
                got = os.preadv(self._fd, [buffer[done:]], offset_bytes + done)
                if got == 0:  # an image may be shorter than its drive: the rest is a hole
                    buffer[done:] = bytes(len(buffer) - done)
                    return
                done += got
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot read at byte {offset_bytes}") from None

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, offset_bytes)
                offset_bytes += done
                view = view[done:]
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot write at byte {offset_bytes}") from None

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        length_bytes = min(length_bytes, self.size_bytes - offset_bytes)
        if length_bytes <= 0:
            return
        function = _libc_fallocate()
        mode = _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE
        if function is not None and function(self._fd, mode, offset_bytes, length_bytes) == 0:
            return
        for start, length in list(self.data_extents(offset_bytes, length_bytes)):
            zeroes = bytes(min(length, 1 << 20))
            for done in range(0, length, len(zeroes)):
                self.pwrite(start + done, zeroes[: length - done])

    def truncate(self, size_bytes: int) -> None:
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot set its size to {size_bytes}") from None

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        at, end = offset_bytes, offset_bytes + length_bytes
        while at < end:
            try:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                yield at, end - at
                return
            if start >= end:
                return
            stop = min(os.lseek(self._fd, start, os.SEEK_HOLE), end)
            yield start, stop - start
            at = stop

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        try:
            os.fdatasync(self._fd)
            if changed:
                self._write_descriptors(table, np.array(sorted(changed)))
                os.fdatasync(self._sidecar_fd)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, "cannot sync") from None

    def _write_descriptors(self, table: ZoneTable, zones: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Update descriptors in place, adjacent ones with one write."""
        for run in np.split(zones, np.flatnonzero(np.diff(zones) != 1) + 1):
            raw = dump.table_to_descriptors(table[run[0] : run[-1] + 1]).tobytes()
            os.pwrite(self._sidecar_fd, raw, dump.HEADER_BYTES + int(run[0]) * dump.DESCRIPTOR_BYTES)

    def close(self) -> None:
        os.close(self._fd)
        if self._sidecar_fd >= 0:
            os.close(self._sidecar_fd)


def _set_size(fd: int, size_bytes: int) -> None:
    """Give an image its drive's size, or the largest that its file system allows.

    The zones beyond stay readable as zeroes; writing to them fails with ``EFBIG``.
    """
    candidates = [size_bytes, *((1 << bits) - 4096 for bits in range(size_bytes.bit_length(), 30, -1))]
    for candidate in candidates:
        try:
            os.ftruncate(fd, min(candidate, size_bytes))
            return
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise


def _open_file(path: str, *, writable: bool) -> int:
    """Open a regular file and lock it (shared for readers); refuses anything else."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DeviceError("neither a block device nor an image file", device=path)
        _lock(fd, path, exclusive=writable)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_store(path: str, *, writable: bool = False) -> FileStore:
    """The bare bytes of a regular file, without any rules of a drive."""
    return FileStore(path, _open_file(path, writable=writable))


def read_dump(path: str) -> dump.ZoneDump:
    """Decode the zone-info dump at ``path`` (a sidecar, or what ``zbd dump`` wrote)."""
    fd = _open_file(path, writable=False)
    try:
        return dump.decode(_read_all(fd, path), path)
    finally:
        os.close(fd)


def _read_all(fd: int, path: str) -> bytes:
    size = os.fstat(fd).st_size
    if size > dump.MAX_FILE_BYTES:
        raise SidecarError(f"{size} bytes are too long for a zone table", device=path)
    try:
        return os.pread(fd, size, 0)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot read") from None


def open_image(
    path: str, *, writable: bool = False, family: DriveFamily | None = None, content: bool = True
) -> EmulatedDrive:
    """Open an image file, zoned when it has a sidecar.

    ``content=False`` is for those who want the zone table only: the image may then be
    shorter than what its zones hold.

    Raises:
        DeviceError: it cannot be opened, is empty or truncated, or is not a regular file.
        SidecarError: the zone table is damaged.
        BusyError: another program has it open for writing (or at all, when ``writable``).
    """
    fd = _open_file(path, writable=writable)
    sidecar = sidecar_path(path)
    sidecar_fd = -1
    try:
        if not os.path.exists(sidecar):
            return _open_regular(path, fd, writable=writable)
        sidecar_fd = _open_file(sidecar, writable=writable)
        decoded = dump.decode(_read_all(sidecar_fd, sidecar), sidecar)
        size = os.fstat(fd).st_size
        if size > decoded.geometry.size_bytes:
            raise SidecarError(
                f"zone table for {decoded.geometry.size_bytes} bytes, but the image has {size}", device=sidecar
            )
        if content:
            _refuse_truncated(path, size, decoded)
        if size < decoded.geometry.size_bytes and writable:
            _set_size(fd, decoded.geometry.size_bytes)
    except BaseException:
        os.close(fd)
        if sidecar_fd >= 0:
            os.close(sidecar_fd)
        raise
    store = FileStore(path, fd, sidecar_fd)
    return EmulatedDrive(path, decoded.geometry, decoded.table, store, writable=writable, family=family)


def _refuse_truncated(path: str, size: int, decoded: dump.ZoneDump) -> None:
    """An image may lack the end of its drive, but nothing that a zone holds."""
    if size >= decoded.geometry.size_bytes:
        return
    table = decoded.table
    below = written_sectors(table)
    below[below < 0] = table["capacity_sectors"][below < 0]
    ends = (table["start_sector"].astype(np.int64) + below) * SECTOR_BYTES
    lost = np.flatnonzero((below > 0) & (ends > size))
    if len(lost):
        raise DeviceError(
            f"truncated: {size} of {decoded.geometry.size_bytes} bytes, and zone {lost[0]} holds data beyond that",
            device=path,
        )


def _open_regular(path: str, fd: int, *, writable: bool) -> EmulatedDrive:
    size = os.fstat(fd).st_size
    if size == 0:
        raise DeviceError("the file is empty", device=path)
    if size % 512:
        raise DeviceError(f"its size of {size} bytes is not a multiple of 512", device=path)
    geometry = Geometry(Model.REGULAR, size)
    return EmulatedDrive(path, geometry, no_zones(), FileStore(path, fd), writable=writable)


def write_sidecar(path: str, content: bytes) -> None:
    """Write a sidecar so that a power cut leaves the old one or the new one.

    Raises:
        DeviceError: it cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(target.name + ".new")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None


def create_image(path: str, geometry: Geometry, table: ZoneTable, *, overwrite: bool = False) -> None:
    """Create a sparse image of ``geometry.size_bytes`` and its sidecar.

    Raises:
        DeviceError: it exists and ``overwrite`` is not set, or cannot be written.
        BusyError: it exists and is open elsewhere.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if overwrite else os.O_EXCL)
    try:
        fd = os.open(path, flags, 0o666)
    except FileExistsError:
        raise DeviceError("already exists", device=path, hint="use --force to overwrite it") from None
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot create") from None
    try:
        _lock(fd, path, exclusive=True)
        os.ftruncate(fd, 0)
        _set_size(fd, geometry.size_bytes)
        os.fsync(fd)
        if geometry.is_zoned:
            write_sidecar(sidecar_path(path), dump.encode(geometry, table))
        elif os.path.exists(sidecar_path(path)):
            os.unlink(sidecar_path(path))
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot create") from None
    finally:
        os.close(fd)
