"""Raw content that is read once, front to back: a file, a block device, or standard input. Holes are skipped."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from zoned_tools.device.base import ClosesOnExit
from zoned_tools.device.files import data_ranges
from zoned_tools.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 4 << 20
"""How much is in memory at a time."""
UNIT_BYTES = 4096


class RawSource(ClosesOnExit):
    """Content in pieces.

    Args:
        path: ``-`` for standard input.

    Attributes:
        size_bytes: its length; None where only reading tells.

    Raises:
        DeviceError: it cannot be opened.
        UsageError: it is neither a file nor a block device nor standard input.
    """

    def __init__(self, path: str) -> None:
        self.path = "standard input" if path == "-" else path
        try:
            self._fd = os.dup(sys.stdin.fileno()) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._fd)
            self._seekable = stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)
            self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END) if self._seekable and path != "-" else None
        except (OSError, ValueError, AttributeError) as error:
            if isinstance(error, OSError):
                raise DeviceError.from_os_error(error, self.path, "cannot open") from None
            raise DeviceError("cannot open: it is closed", device=self.path) from None
        if path != "-" and not self._seekable:
            os.close(self._fd)
            raise UsageError("neither a file nor a block device", device=path)

    def chunks(self, chunk_bytes: int) -> int | None:
        """Chunks of the content that may hold anything; None where only reading tells."""
        if self.size_bytes is None:
            return None
        count, next_chunk = 0, 0
        for start, end in self._extents(0, self.size_bytes):
            first, stop = max(start // chunk_bytes, next_chunk), -(-end // chunk_bytes)
            count += stop - first
            next_chunk = stop
        return count

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """``(offset, content)`` of what may hold anything, ascending, in whole units of 4096 bytes.

        What is missing of the last one is zeroes. Content is good until the next piece is asked for.

        Raises:
            DeviceError: it cannot be read, or it is shorter than it was.
        """
        if self.size_bytes is None:
            yield from self._stream()
            return
        yield from self.pieces_of(0, self.size_bytes)

    def pieces_of(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """The same of a range of a source whose length is known."""
        for first, stop in self._extents(start, end):
            for at in range(first, stop, PIECE_BYTES):
                yield at, self.read(at, min(PIECE_BYTES, stop - at))

    def _extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of a range with data, as far as holes are known, in whole units; the last one may end behind it."""
        done = start
        for data, hole in data_ranges(self._fd, start, end):
            first, stop = max(data // UNIT_BYTES * UNIT_BYTES, done), -(-hole // UNIT_BYTES) * UNIT_BYTES
            if first < stop:
                yield first, stop
                done = stop

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """A range, zeroes behind the end.

        Raises:
            DeviceError: it cannot be read, or it is shorter than it was.
        """
        buffer = bytearray(length_bytes)
        view, done = memoryview(buffer), 0
        wanted = length_bytes if self.size_bytes is None else min(length_bytes, self.size_bytes - offset_bytes)
        while done < wanted:
            try:
                count = os.preadv(self._fd, [view[done:wanted]], offset_bytes + done)
            except OSError as error:
                raise DeviceError.from_os_error(
                    error, self.path, f"cannot read at byte {offset_bytes + done}"
                ) from None
            if not count:
                raise DeviceError(f"ends at byte {offset_bytes + done}", device=self.path, errno=errno.EIO)
            done += count
        return view

    def _stream(self) -> Iterator[tuple[int, memoryview]]:
        at = 0
        while True:
            buffer = bytearray(PIECE_BYTES)
            view, done = memoryview(buffer), 0
            while done < PIECE_BYTES:
                try:
                    count = os.readv(self._fd, [view[done:]])
                except OSError as error:
                    raise DeviceError.from_os_error(error, self.path, f"cannot read at byte {at + done}") from None
                if not count:
                    break
                done += count
            if done:
                yield at, view[: -(-done // UNIT_BYTES) * UNIT_BYTES]
            at += done
            if done < PIECE_BYTES:
                self.size_bytes = at
                return

    def close(self) -> None:
        os.close(self._fd)
