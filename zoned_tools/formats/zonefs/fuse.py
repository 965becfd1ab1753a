"""A zonefs tree as a mounted file system, through FUSE.

Standard tools see what a kernel with zonefs shows: inode numbers, sizes, blocks, modes, and
the errno of every refusal. Files are served with direct I/O: nothing is cached, a write
arrives as it was issued, and whether it was issued with O_DIRECT decides, as on a real mount.
What FUSE cannot imitate: ``statfs`` shows the type of FUSE, mmap of any kind may fail with
ENODEV, and large writes arrive in parts.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, NoReturn, ParamSpec, Protocol, TypeVar

from zoned_tools.errors import DeviceError, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned_tools.formats.zonefs.mapper.files import Handle, Stat
    from zoned_tools.formats.zonefs.mapper.open import ZonefsTree

_P = ParamSpec("_P")
_T = TypeVar("_T")

_KNOWN_FOREVER_SECONDS = 3600.0
"""Names never change while a volume is mounted."""


_ATTRIBUTES_KEPT_SECONDS = 1.0
"""Sizes change only through this mount, which the kernel notices, and by the error policy."""


class MountError(ZonedError):
    """The tree cannot be mounted."""

    error_id = "mount"


def _with_errno(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Turn refusals into the OSError that the binding hands to the kernel."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except DeviceError as error:
            raise OSError(error.errno or errno.EIO, error.message) from None

    return call


def _refusal(number: int, message: str) -> Callable[..., NoReturn]:
    """A callback that refuses, whatever is asked."""

    def refuse(*_arguments: object) -> NoReturn:
        raise OSError(number, message)

    return refuse


class FileInfo(Protocol):
    """What is used of the binding's ``fuse_file_info``."""

    flags: int
    fh: int
    direct_io: int


@dataclass(frozen=True, slots=True)
class _OpenFile:
    handle: Handle
    direct: bool
    at_end: bool


class ZonefsOperations:
    """The callbacks of the binding; it calls those that exist, with paths from the root."""

    use_ns = True

    def __init__(self, tree: ZonefsTree) -> None:
        self._tree = tree
        self._open_files: dict[int, _OpenFile] = {}
        self._next_handle = 1
        self._mounted_ns = time.time_ns()
        self._times: dict[str, tuple[int, int]] = {}

    # -- looking

    @_with_errno
    def getattr(self, path: str, _fh: object = None) -> dict[str, int]:
        return self._attributes(self._tree.stat(path))

    def _attributes(self, found: Stat) -> dict[str, int]:
        accessed, modified = self._times.get(found.path, (self._mounted_ns, self._mounted_ns))
        return {
            "st_ino": found.ino,
            "st_mode": found.mode,
            "st_nlink": found.nlink,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_size": found.size_bytes,
            "st_blocks": found.blocks,
            "st_blksize": found.block_bytes,
            "st_atime": accessed,
            "st_mtime": modified,
            "st_ctime": self._mounted_ns,
        }

    @_with_errno
    def readdir(self, path: str, _fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        here, root = self._tree.stat(path), self._tree.stat("/")
        entries = [(".", here.ino, here.mode), ("..", root.ino, root.mode), *self._tree.scan_directory(path)]
        # Programs skip entries without an inode number.
        return ((name, {"st_ino": ino, "st_mode": mode}, 0) for name, ino, mode in entries)

    @_with_errno
    def statfs(self, _path: str) -> dict[str, int]:
        facts = self._tree.statfs()
        return {
            "f_bsize": facts.bsize,
            "f_frsize": facts.bsize,
            "f_blocks": facts.blocks,
            "f_bfree": facts.bfree,
            "f_bavail": facts.bfree,
            "f_files": facts.files,
            "f_ffree": 0,
            "f_favail": 0,
            "f_namemax": 16,
            "f_fsid": facts.fsid,
        }

    # -- open files

    @_with_errno
    def open(self, path: str, info: FileInfo) -> int:
        flags = int(info.flags)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        handle = self._tree.open(path, writing=writing, truncate=bool(flags & os.O_TRUNC))
        info.fh = self._next_handle
        info.direct_io = 1
        self._open_files[self._next_handle] = _OpenFile(
            handle, direct=bool(flags & os.O_DIRECT), at_end=bool(flags & os.O_APPEND)
        )
        self._next_handle += 1
        return 0

    @_with_errno
    def release(self, _path: str, info: FileInfo) -> int:
        opened = self._open_files.pop(int(info.fh))
        self._tree.release(opened.handle)
        return 0

    @_with_errno
    def read(self, _path: str, size: int, offset: int, info: FileInfo) -> bytes:
        opened = self._open_files[int(info.fh)]
        return self._tree.read(opened.handle.ref.path, offset, size, direct=opened.direct)

    @_with_errno
    def write(self, _path: str, data: bytes, offset: int, info: FileInfo) -> int:
        opened = self._open_files[int(info.fh)]
        return self._tree.write(opened.handle.ref.path, offset, data, direct=opened.direct, at_end=opened.at_end)

    @_with_errno
    def truncate(self, path: str, length: int, _info: object = None) -> int:
        self._tree.truncate(path, length)
        return 0

    @_with_errno
    def fsync(self, _path: str, _data_only: int, _info: object) -> int:
        self._tree.flush()
        return 0

    # -- attributes in memory

    @_with_errno
    def chmod(self, path: str, mode: int) -> int:
        self._tree.chmod(path, mode)
        return 0

    @_with_errno
    def chown(self, path: str, uid: int, gid: int) -> int:
        unchanged = (1 << 32) - 1
        self._tree.chown(path, *(-1 if number in (-1, unchanged) else number for number in (uid, gid)))
        return 0

    @_with_errno
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._tree.check_changeable(path)
        now = time.time_ns()
        self._times[self._tree.stat(path).path] = times or (now, now)
        return 0

    # -- what zonefs does not have: names are fixed, so lookups of new ones find nothing

    mkdir = mknod = create = symlink = link = rename = _refusal(errno.ENOENT, "names are fixed")
    unlink = _refusal(errno.EPERM, "files cannot be removed")
    rmdir = _refusal(errno.EPERM, "directories cannot be removed")


def mount(
    tree: ZonefsTree, mount_point: str, *, foreground: bool = False, options: Mapping[str, str | bool] | None = None
) -> None:
    """Serve ``tree`` until it is unmounted; without ``foreground`` the process goes to the background.

    Args:
        options: FUSE's own mount options (``{"allow_other": True}``).

    Raises:
        MountError: the binding or libfuse is missing, or the mount fails.
    """
    try:
        import mfusepy  # an extra of the package, and its import looks for libfuse
    except ImportError:
        raise MountError("mounting needs mfusepy", hint="pip install 'zoned_tools[fuse]'") from None
    except OSError:
        raise MountError("mounting needs libfuse", hint="install fuse3") from None
    if not os.path.isdir(mount_point):
        raise MountError("not a directory to mount on", device=mount_point)
    device = tree.volume.device.path
    fixed: dict[str, str | bool | float] = {
        "fsname": device.replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": "zonefs",
        "default_permissions": True,
        "ro": tree.read_only,
        "use_ino": True,
        "readdir_ino": True,
        "attr_timeout": _ATTRIBUTES_KEPT_SECONDS,
        "entry_timeout": _KNOWN_FOREVER_SECONDS,
        "direct_io": True,
        "nothreads": True,
        "foreground": foreground,
    }
    try:
        mfusepy.FUSE(ZonefsOperations(tree), mount_point, raw_fi=True, **{**fixed, **(options or {})})
    except RuntimeError as error:
        raise MountError(f"cannot mount: fuse gives up with status {error}", device=device) from None
