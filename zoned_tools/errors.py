"""Every error that a user can see, with both exit-status contracts.

The clones (``dmzadm``, ``zdmadm``, ``mkzonefs``) and ``zoned`` (fsck(8) bits) give
different exit statuses for one and the same failure, so an error carries both.
It renders itself as one line; :func:`zoned_tools.cli.run.main` is the one place
that catches it.
"""

from __future__ import annotations

import errno as errno_names
import os
from enum import IntFlag

from zoned_tools.text import visible


class FsckStatus(IntFlag):
    """Exit statuses of ``zoned`` (fsck(8)); several devices are OR-ed."""

    CLEAN = 0
    CORRECTED = 1
    UNCORRECTED = 4
    OPERATIONAL = 8
    USAGE = 16
    CANCELLED = 32


class ZonedError(Exception):
    """A failure that is reported as ``command: device: what is wrong (what to do)``.

    Attributes:
        error_id: stable identifier, printed in JSON.
        clone_status: exit status of the clones.
        fsck_status: exit status of ``zoned``.
    """

    error_id = "error"
    clone_status = 1
    fsck_status = FsckStatus.OPERATIONAL

    def __init__(self, message: str, *, device: str = "", hint: str = "", clone_status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.device = device
        self.hint = hint
        if clone_status is not None:
            self.clone_status = clone_status

    def __str__(self) -> str:
        where = f"{self.device}: " if self.device else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{advice}"

    def render(self, command: str) -> str:
        """One line for standard error, control characters shown as escapes."""
        return visible(f"{command}: {self}")


class UsageError(ZonedError):
    """The command line asks for something that cannot be meant."""

    error_id = "usage"
    fsck_status = FsckStatus.USAGE


class DeviceError(ZonedError):
    """A device or image cannot be opened, read, written or managed.

    ``errno`` is the operating system's number, or the one that a drive of the
    emulated family gives for the same fault.
    """

    error_id = "device"

    def __init__(
        self, message: str, *, device: str = "", hint: str = "", errno: int = 0, clone_status: int | None = None
    ) -> None:
        super().__init__(message, device=device, hint=hint, clone_status=clone_status)
        self.errno = errno

    @classmethod
    def from_os_error(cls, error: OSError, device: str, doing: str = "") -> DeviceError:
        """Wrap ``error``; ``doing`` says what failed (``"cannot open"``)."""
        text = os.strerror(error.errno) if error.errno else str(error)
        return cls(f"{doing}: {text}" if doing else text, device=device, errno=error.errno or 0)

    @property
    def errno_name(self) -> str:
        return errno_names.errorcode.get(self.errno, str(self.errno))


class BusyError(DeviceError):
    """The device is mounted, held or locked by somebody else."""

    error_id = "busy"


class SidecarError(DeviceError):
    """The zone table beside an image is damaged or does not belong to it."""

    error_id = "sidecar"


class GeometryError(ZonedError):
    """The device cannot carry the layout (too few zones, wrong zone size...)."""

    error_id = "geometry"


class ContentError(ZonedError):
    """There is something on the device already; formatting needs ``--force``."""

    error_id = "content"


class MetadataError(ZonedError):
    """No usable metadata of the wanted layout was found."""

    error_id = "metadata"


class RefusedError(ZonedError):
    """The operation would lose data or crash a kernel and was not asked for explicitly."""

    error_id = "refused"


class LayoutError(ZonedError):
    """The layout of an installed package did what no layout may: a bug of that package."""

    error_id = "layout"


class ZonedWarning(UserWarning):
    """Something that a user should know and that stops nobody: one line on standard error."""


class DeviceWarning(ZonedWarning):
    """What was assumed of an image: its map file, an end that is missing, zones that were derived."""


class LayoutWarning(ZonedWarning):
    """Something about the layout of an installed package that stops nobody."""
