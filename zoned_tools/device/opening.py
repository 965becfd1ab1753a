"""One function that opens whatever a user named: a block device, an image file, a zloop directory."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from zoned_tools.device.image import open_image
from zoned_tools.device.mapfile import NO_MAPFILE
from zoned_tools.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.device.base import Device

_NUMBER_DIGITS = 8
"""A device's major and minor number have fewer."""


def open_device(
    path: str,
    *,
    writable: bool = False,
    content: bool = True,
    mapfile: str | None = None,
    mends: bool = False,
    sidecar: bool = True,
) -> Device:
    """Open ``path`` exclusively for writing, or for reading.

    Args:
        content: False asks for the zone table only, which a truncated image still has.
        mapfile: of an image, what of it was rescued; ``"none"`` sets one beside it aside.
        mends: an image with a map file may be written to (:func:`~zoned_tools.device.image.open_image`).
        sidecar: False sets the zone table of an image aside.

    Raises:
        UsageError: a map file is named for something else than an image, or a drive has a zone table of its own.
        DeviceError: missing, unreadable, not a device or image, or its zone table is damaged.
        BusyError: wanted for writing, and mounted, held or locked.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    except ValueError:
        raise DeviceError("no such device or image", device=path) from None
    if mapfile not in (None, NO_MAPFILE) and not stat.S_ISREG(mode):
        raise UsageError(f"the map file {mapfile} is for an image file", device=path)
    if stat.S_ISBLK(mode):
        from zoned_tools.device.block import BlockDevice  # sysfs and ioctls are for real devices only
        from zoned_tools.device.identity import refuse_if_used

        if writable:
            refuse_if_used(path)
        drive = BlockDevice(path, writable=writable)
        if not sidecar and drive.geometry.is_zoned:
            drive.close()
            raise _own_table(path)
        return drive
    if stat.S_ISDIR(mode):
        from zoned_tools.device.zloop import is_zloop, open_zloop

        if is_zloop(path):
            if not sidecar:
                raise _own_table(path)
            return open_zloop(path, writable=writable)
    return open_image(path, writable=writable, content=content, mapfile=mapfile, mends=mends, sidecar=sidecar)


def _own_table(path: str) -> UsageError:
    return UsageError("has a zone table of its own, which cannot be set aside", device=path)


def mapfile_of_each(paths: Sequence[str], mapfiles: Sequence[str]) -> Sequence[str | None]:
    """The map file of each device; None where none was named.

    Raises:
        UsageError: some are named, and not one for each device.
    """
    if mapfiles and len(mapfiles) != len(paths):
        raise UsageError(
            f"{len(mapfiles)} map files for {len(paths)} devices",
            hint=f"--mapfile once for each device in order, {NO_MAPFILE} for a device without",
        )
    return mapfiles or [None] * len(paths)


def _node(path: str) -> tuple[int, ...] | None:
    """What a drive is whatever name it has; None for what is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_rdev,) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def is_same_drive(name: str, path: str) -> bool:
    """Whether a path, or ``MAJOR:MINOR`` of a block device, names the drive ``path``; one name is one drive."""
    if name == path:
        return True
    major, colon, minor = name.partition(":")
    if colon and major.isdecimal() and minor.isdecimal() and max(len(major), len(minor)) < _NUMBER_DIGITS:
        return _node(path) == (os.makedev(int(major), int(minor)),)
    node = _node(name)
    return node is not None and node == _node(path)


def refuse_twice(paths: Iterable[str]) -> None:
    """Refuse a drive that is named twice, be it through links or another node; what is missing is told when opened.

    Raises:
        UsageError: one is.
    """
    names: dict[tuple[int, ...], str] = {}
    for path in paths:
        drive = _node(path)
        if drive is None:
            continue
        if drive in names:
            hint = "" if names[drive] == path else f"also as {names[drive]}"
            raise UsageError("named twice", device=path, hint=hint)
        names[drive] = path


@contextmanager
def open_devices(
    paths: Sequence[str], *, writable: bool = False, mapfiles: Sequence[str] = (), sidecars: bool = True
) -> Iterator[tuple[Device, ...]]:
    """Open several devices and close them all at the end.

    Args:
        mapfiles: none, or one for each device (:func:`open_device`).
        sidecars: False sets the zone tables of images aside.

    Raises:
        UsageError: one is named twice, or the map files are not as many.
        DeviceError: one cannot be opened.
    """
    refuse_twice(paths)
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(open_device(path, writable=writable, mapfile=mapfile, sidecar=sidecars))
            for path, mapfile in zip(paths, mapfile_of_each(paths, mapfiles), strict=True)
        )
