"""Image files as drives.

``disk.img`` is the raw content (sparse); ``disk.img.zones`` beside it is its zone table
(:mod:`zoned_tools.device.dump`). A file without a sidecar is a regular device. A pair that
``zbd dump`` wrote (``X_zone_data.dump`` and ``X_zone_info.dump``) opens as it is. A symbolic
link to an image is that image, its zone table and its locks included.

What a power cut can leave: data are synced before the zone descriptors that make them
readable, and each descriptor is replaced within one sector; so a zone shows either its
state at the last flush or a later one whose data are there. Descriptors of different zones
are updated independently, as on a drive.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.badareas import NON_TRIED, BadAreas
from zoned_tools.device.base import Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.files import open_locked
from zoned_tools.device.filestore import FileStore
from zoned_tools.device.mapfile import Rescued, Use, map_of_image, warn_device
from zoned_tools.device.newimage import create_image, set_size
from zoned_tools.device.sidecar import (
    SIDECAR_SUFFIX,
    find_sidecar,
    read_whole,
    shown_sidecar,
    sidecar_path,
    write_sidecar,
)
from zoned_tools.device.signatures import recognise
from zoned_tools.device.zones import SECTOR_BYTES, Model, written_sectors
from zoned_tools.errors import DeviceError, SidecarError

if TYPE_CHECKING:
    from zoned_tools.device.machine import DriveFamily

_LARGEST_BYTES = 1 << 50
"""No drive is as large as a map file may claim."""

__all__ = [
    "SIDECAR_SUFFIX",
    "create_image",
    "open_image",
    "open_store",
    "read_dump",
    "sidecar_path",
    "write_sidecar",
]


def open_store(path: str, *, writable: bool = False) -> FileStore:
    """The bare bytes of a regular file, without any rules of a drive.

    Raises:
        DeviceError: it is not a regular file or cannot be opened.
        BusyError: it is in use.
    """
    return FileStore(path, open_locked(os.path.realpath(path), path, writable=writable))


def read_dump(path: str) -> dump.ZoneDump:
    """Decode the zone-info dump at ``path`` (a sidecar, or what ``zbd dump`` wrote).

    Raises:
        DeviceError: it cannot be read.
        SidecarError: it is damaged.
    """
    fd = open_locked(os.path.realpath(path), path, writable=False)
    try:
        return dump.decode(read_whole(fd, path), path)
    finally:
        os.close(fd)


def open_image(
    path: str,
    *,
    writable: bool = False,
    family: DriveFamily | None = None,
    content: bool = True,
    mapfile: str | None = None,
    mends: bool = False,
    sidecar: bool = True,
) -> EmulatedDrive:
    """Open an image file, zoned when it has a sidecar.

    What a map file beside it, or ``mapfile``, says was not rescued cannot be read, and neither can what a shorter
    image lacks of its drive; both are only for reading.

    Args:
        content: False for those who want the zone table only, whatever of the content is there.
        mapfile: path of the ddrescue map file; ``"none"`` for none, also beside the image.
        mends: what is written becomes readable in the map file beside the image: it is a copy that no ddrescue fills.
        sidecar: False sets the zone table aside.

    Raises:
        RefusedError: wanted for writing, and a map file is there.
        DeviceError: it cannot be opened, is empty or truncated, or is not a regular file.
        SidecarError: the zone table is damaged.
        BusyError: another program has it open for writing (or at all, when ``writable``),
            or a loop device shows it.
    """
    real = os.path.realpath(path)
    with ExitStack() as stack:
        fd = open_locked(real, path, writable=writable)
        stack.callback(os.close, fd)
        try:
            table = find_sidecar(real, os.fstat(fd).st_ino, writable=writable) if sidecar else ""
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot finish its creation") from None
        size = os.fstat(fd).st_size
        use = Use.READ if not writable else Use.MEND if mends else Use.WRITE
        rescued = map_of_image(path, real, mapfile, size, use) if content else Rescued()
        if table:
            shown = shown_sidecar(path, real, table)
            drive = _open_zoned(
                path, fd, table, shown, stack, rescued, writable=writable, family=family, content=content
            )
        else:
            drive = _open_regular(path, fd, rescued, writable=writable)
        stack.pop_all()  # the drive closes them from now on
        return drive


def _open_zoned(
    path: str,
    fd: int,
    sidecar: str,
    shown: str,
    stack: ExitStack,
    rescued: Rescued,
    *,
    writable: bool,
    family: DriveFamily | None,
    content: bool,
) -> EmulatedDrive:
    sidecar_fd = open_locked(sidecar, shown, writable=writable)
    stack.callback(os.close, sidecar_fd)
    decoded = dump.decode(read_whole(sidecar_fd, shown), shown)
    size = os.fstat(fd).st_size
    if size > decoded.geometry.size_bytes:
        raise SidecarError(
            f"zone table for {decoded.geometry.size_bytes} bytes, but the image has {size}", device=shown
        )
    bad = rescued.bad
    missing = _missing_bytes(size, decoded) if content else 0
    if missing and writable:
        raise DeviceError(
            f"truncated: {size} of {decoded.geometry.size_bytes} bytes, and zones hold data beyond that",
            device=path,
            hint="it can be read; zoned check --repair --output repairs a copy",
        )
    if missing:
        warn_device(f"{path}: the image ends early: {missing} bytes of what its zones hold are missing")
        bad = bad.within(0, size).joined(BadAreas.of([(size, decoded.geometry.size_bytes, NON_TRIED)]))
    if size < decoded.geometry.size_bytes and writable:
        try:
            set_size(fd, decoded.geometry.size_bytes)
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot set its size") from None
    store = FileStore(path, fd, sidecar_fd, sidecar, bad, missing, rescued.kept)
    return EmulatedDrive(path, decoded.geometry, decoded.table, store, writable=writable, family=family)


def _missing_bytes(size: int, decoded: dump.ZoneDump) -> int:
    """How much of its drive an image lacks; what no zone holds is not missed."""
    if size >= decoded.geometry.size_bytes:
        return 0
    table = decoded.table
    below = written_sectors(table)
    below[below < 0] = table["capacity_sectors"][below < 0]
    ends = (table["start_sector"].astype(np.int64) + below) * SECTOR_BYTES
    return decoded.geometry.size_bytes - size if bool(((below > 0) & (ends > size)).any()) else 0


def _open_regular(path: str, fd: int, rescued: Rescued, *, writable: bool) -> EmulatedDrive:
    size = os.fstat(fd).st_size
    if size == 0:
        raise DeviceError("the file is empty", device=path)
    odd = size % SECTOR_BYTES
    if odd and (writable or size < SECTOR_BYTES):
        raise DeviceError(f"its size of {size} bytes is not a multiple of {SECTOR_BYTES}", device=path)
    whole, bad = size - odd, rescued.bad.within(0, size - odd)
    if not writable and whole < rescued.size_bytes < _LARGEST_BYTES:  # ddrescue has not come to the end yet
        end = rescued.size_bytes // SECTOR_BYTES * SECTOR_BYTES
        whole, bad = end, bad.joined(BadAreas.of([(whole, end, NON_TRIED)]))
    geometry = Geometry(Model.REGULAR, whole)
    store = FileStore(path, fd, bad=bad, mapfile=rescued.kept)
    drive = EmulatedDrive(path, geometry, no_zones(), store, writable=writable)
    if odd and recognise(drive) is None:  # else it is no image, which somebody will say
        warn_device(
            f"{path}: its size of {size} bytes is not a multiple of {SECTOR_BYTES}, the last {odd} are left out"
        )
    return drive
