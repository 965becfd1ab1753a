"""Files of this suite: opened without following surprises, locked, written whole, replaced or left as they were."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from zoned_tools.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Buffer

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NAME_CHARACTERS = 48
"""How much of a file's name its temporary name repeats: 255 bytes are the most that a name can have."""


def write_all(fd: int, data: Buffer, offset_bytes: int) -> None:
    """``pwrite`` until everything is written, however often the system cuts it short.

    Raises:
        OSError: it failed; any part may have been written.
    """
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(fd, view, offset_bytes)
        if done <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        offset_bytes += done
        view = view[done:]


def next_data(fd: int, at: int, end: int) -> int:
    """Where the next byte from ``at`` on is that is in no hole; ``end`` where there is none.

    Nothing is a hole where a file system, or a block device, does not tell.
    """
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        return end if error.errno == errno.ENXIO else at


def data_ranges(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(first, end)`` of the parts of a range that are in no hole, ascending."""
    at = start
    while at < end:
        first = next_data(fd, at, end)
        if first >= end:
            return
        try:
            stop = min(os.lseek(fd, first, os.SEEK_HOLE), end)
        except OSError:
            stop = end
        yield first, stop
        at = stop


def lock(fd: int, path: str, *, exclusive: bool) -> None:
    """``flock`` a file, shared or exclusively; a file system without locks is taken as it is.

    Raises:
        BusyError: another program holds it; a loop device over the file is named.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            from zoned_tools.device.identity import describe_loop

            use = describe_loop(os.fstat(fd)) or "in use by another program"
            raise BusyError(use, device=path, errno=errno.EBUSY) from None
        if error.errno not in _NO_LOCKS:
            raise DeviceError.from_os_error(error, path, "cannot lock") from None


def open_regular(real: str, path: str, *, writable: bool, follow: bool = True, dir_fd: int | None = None) -> int:
    """Open a regular file; refuses anything else, a symbolic link too unless ``follow``.

    Args:
        real: what is opened.
        path: how messages name it.

    Raises:
        DeviceError: it cannot be opened, or is a directory, FIFO, device, link...
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(real, flags, dir_fd=dir_fd)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DeviceError("neither a block device nor an image file", device=path)
    return fd


def open_locked(real: str, path: str, *, writable: bool) -> int:
    """Open a regular file and lock it: shared for readers, exclusively for writers.

    Raises:
        DeviceError: it cannot be opened.
        BusyError: another program holds it, or (for writing) a loop device shows it.
    """
    fd = open_regular(real, path, writable=writable)
    try:
        lock(fd, path, exclusive=writable)
        if writable:
            from zoned_tools.device.identity import refuse_if_looped

            refuse_if_looped(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def temporary_beside(target: str) -> tuple[int, str]:
    """``(descriptor, path)`` of a new empty file in the directory of ``target``, under a name that nobody can guess.

    Raises:
        OSError: it cannot be created.
    """
    directory, name = os.path.split(target)
    path = os.path.join(directory, f".{name[:_NAME_CHARACTERS]}.{os.urandom(8).hex()}.new")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o666), path


def keep_mode(fd: int, status: os.stat_result) -> None:
    """Give a file that takes another one's place its owner and mode, the owner as far as the system allows."""
    with suppress(OSError):
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))


def sync_directory(path: str) -> None:
    """Make the names in the directory of ``path`` durable.

    Raises:
        OSError: it cannot be synced.
    """
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def give_name(temporary: str, path: str) -> None:
    """Give a temporary file its name without replacing anything, where the file system has links in one step.

    It keeps its temporary name where it has links; the caller removes that.

    Raises:
        FileExistsError: somebody was faster.
        OSError: it cannot be done.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(temporary, path)


def new_file(path: str, content: Buffer) -> None:
    """Write a whole file that is not there yet; it has its name when it is complete and durable.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written, and is not there (or, when only the directory could not
            be synced, perhaps is).
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    fd, temporary = temporary_beside(path)
    try:
        try:
            write_all(fd, content, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        give_name(temporary, path)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    sync_directory(path)


def replace_file(path: str, content: Buffer) -> None:
    """Write a whole file so that whatever happens the old one or the new one is there, never a part.

    A symbolic link at ``path`` is replaced, not followed. The mode is kept.

    Raises:
        OSError: it cannot be written; the old file is still there (or, when only the
            directory could not be synced, perhaps the new one).
    """
    fd, temporary = temporary_beside(path)
    try:
        try:
            with suppress(FileNotFoundError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    keep_mode(fd, status)
            write_all(fd, content, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path)
