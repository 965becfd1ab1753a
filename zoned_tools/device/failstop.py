"""What every kind of open drive does about a sync that fails: it accepts nothing more.

After a failed ``fsync`` the kernel has dropped the pages that it could not write, and the
next ``fsync`` says success. So a device whose sync failed once refuses every later write,
zone command, discard, flush and close with the same errno until it is opened again;
reading goes on.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoned_tools.device.base import ClosesOnExit
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class SyncError(DeviceError):
    """A sync failed now or earlier: what was written since the last one may be lost."""


class FailStop(ClosesOnExit):
    """The part of a device that remembers a failed sync; closing flushes, once.

    Every method that changes anything calls :meth:`_check_writable` first, and every sync
    runs inside :meth:`_syncing`.
    """

    path: str
    writable: bool
    _failure: SyncError | None = None
    _closed = False
    _closing = False

    def _check_writable(self) -> None:
        """Refuse what a read-only device or one whose sync failed cannot accept."""
        self._check_open()
        if not self.writable:
            raise DeviceError("opened read-only", device=self.path, errno=errno.EBADF)
        if self._failure is not None:
            raise SyncError(
                f"an earlier sync failed ({self._failure.message})",
                device=self.path,
                hint="nothing more is accepted until it is opened again",
                errno=self._failure.errno,
            )

    def _check_open(self) -> None:
        """Refuse what comes after :meth:`close`."""
        if self._closed and not self._closing:
            raise DeviceError("closed", device=self.path, errno=errno.EBADF)

    def _poison(self, error: DeviceError) -> SyncError:
        """Remember the first failure and return it, to be raised."""
        if self._failure is None:
            if not isinstance(error, SyncError):
                error = SyncError(error.message, device=error.device, errno=error.errno)
            self._failure = error
        return self._failure

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        """What fails in here is a failed sync."""
        try:
            yield
        except DeviceError as error:
            raise self._poison(error) from None

    @abstractmethod
    def flush(self) -> None: ...

    @abstractmethod
    def _release(self) -> None:
        """Close what the device holds, without writing anything."""

    def close(self) -> None:
        """Flush a writable device and let go of it; raises when this or an earlier sync failed."""
        if self._closed:
            return
        self._closed = self._closing = True
        try:
            self.flush()
        finally:
            self._closing = False
            self._release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except SyncError:
            if error is None or error is not self._failure:  # else it is on its way to the caller already
                raise
