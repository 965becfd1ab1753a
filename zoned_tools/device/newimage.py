"""New images: complete beside the old ones, then in their place in one step."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from zoned_tools.device import dump
from zoned_tools.device.files import (
    give_name,
    keep_mode,
    lock,
    open_locked,
    replace_file,
    sync_directory,
    temporary_beside,
)
from zoned_tools.device.filestore import FileStore
from zoned_tools.device.mapfile import MAPFILE_SUFFIX, is_mapfile
from zoned_tools.device.sidecar import pending_path, settle, sidecar_path
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.base import Geometry
    from zoned_tools.device.zones import ZoneTable


def set_size(fd: int, size_bytes: int) -> None:
    """Give an image its drive's size, or the largest that its file system allows.

    The zones beyond stay readable as zeroes; writing to them fails with ``EFBIG``.

    Raises:
        OSError: it cannot be done, for another reason than ``EFBIG``.
    """
    candidates = [size_bytes, *((1 << bits) - 4096 for bits in range(size_bytes.bit_length(), 30, -1))]
    for candidate in candidates:
        try:
            os.ftruncate(fd, min(candidate, size_bytes))
            return
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise


def create_image(
    path: str,
    geometry: Geometry,
    table: ZoneTable,
    *,
    overwrite: bool = False,
    fill: Callable[[FileStore], None] | None = None,
) -> None:
    """Create a sparse image of ``geometry.size_bytes`` and its sidecar.

    The image is made under another name and takes the place of an old one when it is
    complete: whenever this is cut short, the old drive is there or the new one
    (:mod:`zoned_tools.device.sidecar`).

    Args:
        fill: writes the content; without it the drive reads as zeroes.

    Raises:
        DeviceError: it exists and ``overwrite`` is not set, or cannot be written.
        BusyError: it exists and is open elsewhere, or is shown by a loop device.
    """
    real = os.path.realpath(path)
    try:
        with ExitStack() as stack:
            old = _lock_old(real, path, stack, overwrite=overwrite)
            stale = _stale_mapfile(real, path, overwrite=overwrite)
            _build(path, real, old, geometry, table, fill, stack)
            if stale is not None and _inode(real + MAPFILE_SUFFIX) == stale:
                os.unlink(real + MAPFILE_SUFFIX)  # of the image whose place was taken
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot create") from None


def _exists(path: str) -> DeviceError:
    return DeviceError("already exists", device=path, hint="use --force to overwrite it", errno=errno.EEXIST)


def _stale_mapfile(real: str, path: str, *, overwrite: bool) -> int | None:
    """The inode number of a map file that would be taken for the new image's."""
    name = real + MAPFILE_SUFFIX
    if not is_mapfile(name):
        return None
    if not overwrite:
        raise _exists(path + MAPFILE_SUFFIX)
    return _inode(name)


def _inode(path: str) -> int | None:
    with suppress(OSError):
        return os.lstat(path).st_ino
    return None


def _lock_old(real: str, path: str, stack: ExitStack, *, overwrite: bool) -> os.stat_result | None:
    """The image whose place is taken, locked until the end."""
    if not os.path.lexists(real):
        return None
    if not overwrite:
        raise _exists(path)
    fd = open_locked(real, path, writable=True)
    stack.callback(os.close, fd)
    return os.fstat(fd)


def _build(
    path: str,
    real: str,
    old: os.stat_result | None,
    geometry: Geometry,
    table: ZoneTable,
    fill: Callable[[FileStore], None] | None,
    stack: ExitStack,
) -> None:
    fd, temporary = temporary_beside(real)
    stack.callback(os.close, fd)
    stack.callback(_unlink, temporary)  # after the image has its name this is either the same or nothing
    lock(fd, path, exclusive=True)
    if old is not None:
        keep_mode(fd, old)
    set_size(fd, geometry.size_bytes)
    if fill is not None:
        fill(FileStore(path, fd))
    os.fsync(fd)
    pending = pending_path(real, os.fstat(fd).st_ino)
    stack.callback(_unlink_unless_committed, pending, fd, real)
    replace_file(pending, dump.encode(geometry, table) if geometry.is_zoned else b"")
    if old is None:
        give_name(temporary, real)
        _unlink(temporary)
    else:
        os.replace(temporary, real)  # the step that makes the new drive the drive
    sync_directory(real)
    settle(pending, sidecar_path(real), empty=not geometry.is_zoned)


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _unlink_unless_committed(pending: str, fd: int, real: str) -> None:
    """Take the pending table of an image away that did not get its name; of one that did, the table is needed."""
    with suppress(OSError):
        if os.path.samestat(os.lstat(real), os.fstat(fd)):
            return
    _unlink(pending)
