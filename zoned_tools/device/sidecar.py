"""Where the zone table of an image is, and how it is replaced.

``disk.img.zones`` belongs to ``disk.img``, ``X_zone_info.dump`` to ``X_zone_data.dump``. A new
image and its table are two files and cannot take the place of old ones in one step. So
the table of a new image is first written under a name that carries the new file's inode
number (``disk.img.zones.for-123``), then the image takes its place: from that moment the
image is the new one, and so is its table; last the table gets its usual name. Whoever opens
the image in between finds the table by the inode number, and a writer finishes the renaming.
An empty file under that name means: this image has no zone table.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from zoned_tools.device import dump
from zoned_tools.device.files import open_locked, replace_file, sync_directory
from zoned_tools.device.filestore import FileStore
from zoned_tools.device.sidecar_repair import SidecarRepair, mend
from zoned_tools.errors import DeviceError, SidecarError

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer

SIDECAR_SUFFIX = ".zones"
_DATA_DUMP, _INFO_DUMP = "_zone_data.dump", "_zone_info.dump"


def sidecar_path(image: str) -> str:
    """Where the zone table of an image is."""
    if image.endswith(_DATA_DUMP):
        return image.removesuffix(_DATA_DUMP) + _INFO_DUMP
    return image + SIDECAR_SUFFIX


def pending_path(image: str, inode: int) -> str:
    """Where the zone table of an image with this inode number is while it takes another image's place."""
    return f"{sidecar_path(image)}.for-{inode}"


def find_sidecar(image: str, inode: int, *, writable: bool) -> str:
    """Path of the zone table of an image (its real path), empty when it has none.

    ``writable`` finishes the replacement of an image that was cut short.

    Raises:
        OSError: the replacement cannot be finished.
    """
    sidecar, pending = sidecar_path(image), pending_path(image, inode)
    try:
        status = os.lstat(pending)
    except OSError:
        return sidecar if os.path.lexists(sidecar) else ""
    if _is_newer(sidecar, status):  # somebody made a table since; the inode number was used again
        return sidecar
    if writable:
        settle(pending, sidecar, empty=status.st_size == 0)
        return sidecar if status.st_size else ""
    return pending if status.st_size else ""


def _is_newer(path: str, than: os.stat_result) -> bool:
    try:
        return os.lstat(path).st_mtime_ns > than.st_mtime_ns
    except OSError:
        return False


def settle(pending: str, sidecar: str, *, empty: bool) -> None:
    """Give a pending zone table its usual name; an empty one takes the old table away.

    Raises:
        OSError: the directory cannot be changed.
    """
    if empty:
        with suppress(FileNotFoundError):
            os.unlink(sidecar)
        sync_directory(sidecar)
        os.unlink(pending)
    else:
        os.replace(pending, sidecar)
    sync_directory(sidecar)


def shown_sidecar(path: str, image: str, sidecar: str) -> str:
    """How messages name a sidecar: beside the name that the user gave, unless that is a link to elsewhere."""
    beside = sidecar_path(path)
    return beside if sidecar == sidecar_path(image) and os.path.lexists(beside) else sidecar


def write_sidecar(path: str, content: Buffer) -> None:
    """Write a sidecar so that a power cut leaves the old one or the new one.

    Raises:
        DeviceError: it cannot be written.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None


def read_whole(fd: int, path: str) -> bytes:
    """The content of an open sidecar.

    Raises:
        SidecarError: it is longer than any zone table.
        DeviceError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    if size > dump.MAX_FILE_BYTES:
        raise SidecarError(f"{size} bytes are too long for a zone table", device=path)
    content = bytearray(size)
    done = 0
    try:
        while done < size and (got := os.preadv(fd, [memoryview(content)[done:]], done)):
            done += got
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot read") from None
    return bytes(content[:done])


def repair_sidecar(path: str, *, dry_run: bool = False) -> SidecarRepair:
    """Rebuild what the zone table of an image has lost, as far as that is certain.

    Certain is what the header, the other descriptors and the content leave no choice
    about. When anything else is missing, nothing is written and ``missing`` names it.

    Args:
        path: the image.

    Raises:
        SidecarError: the image has no zone table.
        DeviceError: a file cannot be read or written.
        BusyError: somebody else has the image open.
    """
    image = os.path.realpath(path)
    fd = open_locked(image, path, writable=not dry_run)
    store = FileStore(path, fd)
    try:
        sidecar = find_sidecar(image, os.fstat(fd).st_ino, writable=not dry_run)
        if not sidecar:
            raise SidecarError("the image has no zone table", device=path)
        name = shown_sidecar(path, image, sidecar)
        sidecar_fd = open_locked(sidecar, name, writable=not dry_run)
        try:
            raw = read_whole(sidecar_fd, name)
        finally:
            os.close(sidecar_fd)
        result = mend(raw, store, name)
        if result.content is not None and not dry_run:
            write_sidecar(sidecar, result.content)
        return result
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot repair") from None
    finally:
        store.close()
