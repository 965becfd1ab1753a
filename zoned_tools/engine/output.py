"""Where an export goes: a file with holes, or anything that takes bytes in order."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from zoned_tools.device.outputs import refuse_sources
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Buffer

_ZERO_BYTES = 4 << 20
_WRITEBACK_BYTES = 32 << 20


class Output:
    """Where an export goes: a file with holes, or anything that takes bytes in order."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode) and name != "-"
        self._at = 0
        self._advised = 0
        self._zeroes = b""

    def clear(self) -> None:
        """Take away what a file held."""
        if self.is_file:
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                raise DeviceError.from_os_error(error, self._name, "cannot overwrite") from None

    def data(self, buffer: Buffer) -> None:
        view = memoryview(buffer)
        try:
            while view:
                done = os.pwrite(self._fd, view, self._at) if self.is_file else os.write(self._fd, view)
                self._at += done
                view = view[done:]
            self._start_writeback()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DeviceError.from_os_error(error, self._name, "cannot write") from None

    def _start_writeback(self) -> None:
        """Have the kernel write what is old enough while the export goes on, so that the sync at the end is short."""
        length_bytes = self._at - self._advised
        if self.is_file and length_bytes >= _WRITEBACK_BYTES:
            # Dirty pages are not dropped by this advice, only queued for writing.
            os.posix_fadvise(self._fd, self._advised, length_bytes, os.POSIX_FADV_DONTNEED)
            self._advised = self._at

    def hole(self, length_bytes: int) -> None:
        if self.is_file:
            self._at += length_bytes
            return
        self._zeroes = self._zeroes or bytes(_ZERO_BYTES)
        for done in range(0, length_bytes, _ZERO_BYTES):
            self.data(memoryview(self._zeroes)[: length_bytes - done])

    def finish(self) -> None:
        """Give a file its length, and make everything durable."""
        try:
            if self.is_file:
                os.ftruncate(self._fd, self._at)
            if self._name != "-":
                os.fsync(self._fd)
        except OSError as error:
            if not self.is_file and error.errno == errno.EINVAL:  # pipes and the like cannot be synced
                return
            raise DeviceError.from_os_error(error, self._name, "cannot write") from None


@contextmanager
def open_output(path: str, sources: Sequence[str], *, force: bool = False) -> Iterator[Output]:
    """Open ``path`` for an export, ``-`` is standard output; a file that was made is removed when the export fails.

    Raises:
        DeviceError: it exists and ``force`` is not set, or it cannot be written.
        RefusedError: it is one of ``sources``.
    """
    if path == "-":
        yield Output(1, path)
        return
    refuse_sources(path, sources, "is what is exported")
    existed = os.path.lexists(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if force else os.O_EXCL), 0o666)
    except FileExistsError:
        raise DeviceError("already exists", device=path, hint="--force overwrites it") from None
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, OSError) else OSError(0, str(error))
        raise DeviceError.from_os_error(reason, path, "cannot create") from None
    try:
        output = Output(fd, path)
        output.clear()
        yield output
        output.finish()
    except BaseException:
        if not existed:
            with suppress(OSError):  # what failed is more interesting
                os.unlink(path)
        raise
    finally:
        os.close(fd)
