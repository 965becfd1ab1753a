"""The bytes of an image file and the descriptors in its sidecar."""

from __future__ import annotations

import ctypes
import functools
import os
from contextlib import suppress
from heapq import merge
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.badareas import BadAreas
from zoned_tools.device.failstop import SyncError
from zoned_tools.device.files import data_ranges, replace_file, write_all
from zoned_tools.device.mapfile import mapfile_content
from zoned_tools.device.runs import runs
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.zones import ZoneTable

_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2


@functools.cache
def libc_fallocate() -> ctypes._FuncPointer | None:
    """fallocate(2), which the standard library lacks; None where libc has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function


def join_extents(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` extents in ascending order with those that touch or overlap made one."""
    start = end = -1
    for offset, length in extents:
        if offset > end:
            if end > start:
                yield start, end - start
            start, end = offset, offset
        end = max(end, offset + length)
    if end > start:
        yield start, end - start


class FileStore:
    """The bytes of an image and, for a zoned one, its sidecar.

    Args:
        path: how messages name the image.
        sidecar: where the sidecar is, for replacing it.
        bad: what of the image cannot be read; what the file holds there is never looked at.
        missing_bytes: how much the image lacks of what its drive holds; part of ``bad``.
        mapfile: where ``bad`` comes from, kept in step with what is written over; empty where nothing may be written.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        sidecar_fd: int = -1,
        sidecar: str = "",
        bad: BadAreas | None = None,
        missing_bytes: int = 0,
        mapfile: str = "",
    ) -> None:
        self.path = path
        self.bad = BadAreas() if bad is None else bad
        self.missing_bytes = missing_bytes
        self._mapfile = mapfile
        self._bad_in_mapfile = self.bad
        self._fd = fd
        self._sidecar_fd = sidecar_fd
        self._sidecar = sidecar

    @property
    def size_bytes(self) -> int:
        """Length of the file; an image may be shorter than its drive."""
        return os.fstat(self._fd).st_size

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill ``buffer``; what is behind the end of the file reads as zeroes.

        Raises:
            DeviceError: it cannot be read, or was not rescued (``EIO``).
        """
        if len(self.bad):
            self.bad.refuse(offset_bytes, len(buffer), self.path)
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
        """Write all of ``data``."""
        try:
            write_all(self._fd, data, offset_bytes)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot write at byte {offset_bytes}") from None
        self._is_readable(offset_bytes, len(data))

    def _is_readable(self, offset_bytes: int, length_bytes: int) -> None:
        """What could not be read was written anew."""
        if len(self.bad) and len(self.bad.within(offset_bytes, length_bytes)):
            self.bad = self.bad.without(offset_bytes, length_bytes)

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeroes, freeing its space where the file system can."""
        length_bytes = min(length_bytes, self.size_bytes - offset_bytes)
        if length_bytes <= 0:
            return
        self._is_readable(offset_bytes, length_bytes)
        function = libc_fallocate()
        mode = _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE
        if function is not None and function(self._fd, mode, offset_bytes, length_bytes) == 0:
            return
        for start, length in list(self.data_extents(offset_bytes, length_bytes)):
            zeroes = bytes(min(length, 1 << 20))
            for done in range(0, length, len(zeroes)):
                self.pwrite(start + done, zeroes[: length - done])

    def truncate(self, size_bytes: int) -> None:
        """Set the length of the file."""
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot set its size to {size_bytes}") from None

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        """``(offset, length)`` of what is not a hole, or may not have been one, ascending."""
        ranges = data_ranges(self._fd, offset_bytes, offset_bytes + length_bytes)
        stored = ((start, end - start) for start, end in ranges)
        if not len(self.bad):
            return stored
        bad = ((start, end - start) for start, end, _ in self.bad.within(offset_bytes, length_bytes))
        return join_extents(merge(stored, bad))

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What of a range cannot be read."""
        return self.bad.within(offset_bytes, length_bytes)

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Make the bytes durable, then the descriptors of the zones in ``changed``.

        Raises:
            SyncError: either failed; a descriptor is then its old or its new self.
        """
        try:
            os.fdatasync(self._fd)
            if self._mapfile and self.bad is not self._bad_in_mapfile:
                replace_file(self._mapfile, mapfile_content(self.bad.over(self.size_bytes)))
                self._bad_in_mapfile = self.bad
            if changed:
                self._write_descriptors(table, changed)
                os.fdatasync(self._sidecar_fd)
        except OSError as error:
            failed = DeviceError.from_os_error(error, self.path, "cannot sync")
            raise SyncError(failed.message, device=self.path, errno=failed.errno) from None

    def _write_descriptors(self, table: ZoneTable, changed: set[int]) -> None:
        """Update descriptors in place, adjacent ones with one write."""
        for first, end in runs(np.array(sorted(changed))):
            raw = dump.table_to_descriptors(table[first:end]).tobytes()
            offset = dump.HEADER_BYTES + first * dump.DESCRIPTOR_BYTES
            before = os.pread(self._sidecar_fd, len(raw), offset)
            try:
                write_all(self._sidecar_fd, raw, offset)
            except OSError:
                self._heal_descriptors(table, before, offset)
                raise

    def _heal_descriptors(self, table: ZoneTable, before: bytes, offset_bytes: int) -> None:
        """A write that was cut short may have left half a descriptor: none that nothing opens may stay."""
        try:
            header = os.pread(self._sidecar_fd, dump.HEADER_BYTES, 0)
            replace_file(self._sidecar, header + dump.table_to_descriptors(table).tobytes())
        except OSError:
            with suppress(OSError):
                write_all(self._sidecar_fd, before, offset_bytes)

    def close(self) -> None:
        """Close the files and forget their numbers, which may be another file's soon; nothing is synced."""
        fds, self._fd, self._sidecar_fd = (self._fd, self._sidecar_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
