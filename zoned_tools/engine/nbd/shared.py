"""The mapper that all connections share: one request at a time, and nothing more after a loss.

Once changes that clients were told of may be lost, because a write or a flush failed after they were
acknowledged, the kernel may have dropped what it could not write, and a second sync that succeeds would lie.
So the export is poisoned: it takes no more changes and no more flushes, and the server's end says so.
"""

from __future__ import annotations

import errno
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from zoned_tools.engine.volume import Volume
from zoned_tools.errors import DeviceError, RefusedError, UsageError, ZonedError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.formats.contract import Mapper

_BLOCK = LOGICAL_BLOCK_BYTES
_REFUSALS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EPERM,
        errno.EACCES,
        errno.EROFS,
        errno.EINVAL,
        errno.ENOTSUP,
        errno.EOVERFLOW,
    }
)
"""A write that fails with one of these was not begun: what was written before is as it was."""


class SharedVolume:
    """``mapper`` for any number of threads.

    Args:
        log: told once when the export is poisoned.

    Attributes:
        failure: why changes may be lost; None while all is well.
        unsynced: there are changes that no flush made durable.
    """

    def __init__(self, mapper: Mapper, log: Callable[[str], None]) -> None:
        self._mapper = mapper
        self._volume = Volume(mapper)
        self._log = log
        self._lock = threading.Lock()
        self.size_bytes = self._volume.size_bytes
        self.writable = mapper.writable
        self.failure: ZonedError | None = None
        self.unsynced = False

    def contains(self, offset_bytes: int, length_bytes: int) -> bool:
        """True when the range lies inside the logical device."""
        return self._volume.contains(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with whole blocks."""
        with self._lock, _device_errors():
            data = self._volume.read_reusing(offset_bytes, len(buffer), buffer)
        if not (isinstance(data, memoryview) and data.obj is buffer.obj):
            buffer[:] = data

    def extents(self, offset_bytes: int, length_bytes: int, limit: int) -> list[tuple[int, int, bool]]:
        """``(offset, length, stored)`` runs of a range, the first ``limit`` of them."""
        found = []
        with self._lock, _device_errors():
            for extent in self._volume.extents(offset_bytes, length_bytes):
                found.append(extent)
                if len(found) == limit:
                    break
        return found

    def write(self, offset_bytes: int, data: memoryview) -> None:
        self._change(lambda: self._volume.write(offset_bytes, data))

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._change(lambda: self._volume.discard(offset_bytes, length_bytes))

    def zero(self, offset_bytes: int, length_bytes: int, *, allocate: bool) -> None:
        self._change(lambda: self._volume.zero(offset_bytes, length_bytes, allocate=allocate))

    def _change(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._refuse_after_failure()
            try:
                work()
            except BaseException as error:
                if self.unsynced and not _is_refusal(error):
                    self._poison(error, "a write failed after others were acknowledged")
                raise
            self.unsynced = True

    def flush(self) -> None:
        """Make all changes durable; a read-only mapper has none."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self.writable:
            return
        self._refuse_after_failure()
        try:
            self._mapper.flush()
        except BaseException as error:
            self._poison(error, "acknowledged writes could not be made durable")
            raise
        self.unsynced = False

    def rest(self, when_idle: Callable[[], object] | None) -> None:
        """Do what the driver does in quiet times, then make changes durable."""
        with self._lock:
            if self.failure is not None:
                return
            try:
                if when_idle is not None:
                    when_idle()
            except ZonedError as error:
                self._log(str(error))
            with suppress(ZonedError):  # told by the poisoning
                self._flush()

    def close(self) -> None:
        """Flush and close the mapper; a failure is in :attr:`failure`."""
        with self._lock:
            try:
                if self.failure is None:
                    self._flush()
            except ZonedError:
                pass  # told by the poisoning
            finally:
                self._close()

    def _close(self) -> None:
        try:
            self._mapper.close()
        except (ZonedError, OSError) as error:
            if self.failure is None:
                self._poison(error, "the layout could not be closed")

    def _refuse_after_failure(self) -> None:
        if self.failure is not None:
            raise DeviceError("an earlier write or flush failed, nothing more is written", errno=errno.EIO)

    def _poison(self, error: BaseException, what: str) -> None:
        self.failure = DeviceError(f"{what}, changes may be lost: {error or type(error).__name__}", errno=errno.EIO)
        self._log(f"{self.failure}")


def _is_refusal(error: BaseException) -> bool:
    match error:
        case DeviceError(errno=number) | OSError(errno=int(number)):
            return number in _REFUSALS
        case _:
            return isinstance(error, (RefusedError, UsageError))


@contextmanager
def _device_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DeviceError.from_os_error(error, "") from error
