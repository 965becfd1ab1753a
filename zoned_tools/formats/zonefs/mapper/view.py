"""Names and attributes of a zonefs tree: what can be looked at, and changed in memory."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.formats.zonefs.constants import GROUPS, PERM_MASK
from zoned_tools.formats.zonefs.mapper.files import NAME_DIGITS, FileError, FileRef, Stat
from zoned_tools.formats.zonefs.mapper.tree import StatFs, build_groups, make_statfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.open import Volume

DIRECTORY_MODE = 0o555
WRITE_BITS = 0o222


class TreeView:
    """The directories and files of a volume; every refusal is a :class:`FileError` with the kernel's errno.

    Attributes:
        groups: the directories that exist, ``cnv`` before ``seq``.
        read_only: nothing can be changed (mounted so, or turned so by an error).
        old_root_size: show the size of the root directory as kernels before 6.3 do.
    """

    def __init__(self, volume: Volume, super_block: SuperBlock, *, read_only: bool, old_root_size: bool) -> None:
        self.volume = volume
        self.super_block = super_block
        self.read_only = read_only
        self.old_root_size = old_root_size
        self.groups = build_groups(volume, super_block)
        self._readable = {name: ~group.dead for name, group in self.groups.items()}
        self._writable = {name: ~group.dead for name, group in self.groups.items()}
        self._owners: dict[str, tuple[int, int]] = {}
        self._directory_modes: dict[str, int] = {}

    # -- what is there

    def list_directory(self, path: str) -> list[str]:
        """Names in a directory, in order; as :meth:`scan_directory`."""
        return [name for name, _, _ in self.scan_directory(path)]

    def scan_directory(self, path: str) -> list[tuple[str, int, int]]:
        """``(name, inode number, mode)`` of what is in a directory, in order.

        Raises:
            FileError: ENOENT, or ENOTDIR for a file.
        """
        found = self._find(path)
        if isinstance(found, FileRef):
            raise self._error(path, "is not a directory", errno.ENOTDIR)
        if not found:
            entries = [self._stat_directory(name) for name in self.groups]
            return [(entry.path[1:], entry.ino, entry.mode) for entry in entries]
        group = self.groups[found]
        rows = zip(group.zone.tolist(), group.mode.tolist(), strict=True)
        return [(str(index), zone, mode) for index, (zone, mode) in enumerate(rows)]

    def stat(self, path: str) -> Stat:
        """Raises FileError (ENOENT) when there is no such file."""
        found = self._find(path)
        return self._stat_file(found) if isinstance(found, FileRef) else self._stat_directory(found)

    def walk(self) -> Iterator[Stat]:
        """Every entry, the root first. For single looks; ``listing`` prints whole volumes."""
        yield self._stat_directory("")
        for name, group in self.groups.items():
            yield self._stat_directory(name)
            for index in range(len(group)):
                yield self._stat_file(FileRef(group, index))

    def statfs(self) -> StatFs:
        return make_statfs(self.volume, self.super_block, self.groups)

    def owner(self, path: str) -> tuple[int, int]:
        """``(uid, gid)`` of a path, changes in memory included."""
        default = (self.super_block.file_uid, self.super_block.file_gid) if path.count("/") == 2 else (0, 0)
        return self._owners.get(path, default)

    def _stat_directory(self, name: str) -> Stat:
        nr_zones, nr_groups = len(self.volume.table), len(self.groups)
        path = f"/{name}"
        uid, gid = self.owner(path)
        mode = stat.S_IFDIR | self._directory_modes.get(name, DIRECTORY_MODE)
        if name:
            ino, nlink, size = nr_zones + 1 + GROUPS.index(name), 2, len(self.groups[name])
        else:
            ino, nlink = nr_zones, 2 + nr_groups
            size = nr_groups if self.old_root_size else 2 + nr_groups
        return Stat(path, ino, mode, uid, gid, nlink, size, 0, self.volume.block_bytes)

    def _stat_file(self, ref: FileRef) -> Stat:
        uid, gid = self.owner(ref.path)
        return Stat(
            ref.path,
            ino=ref.zone,
            mode=int(ref.group.mode[ref.index]),
            uid=uid,
            gid=gid,
            nlink=1,
            size_bytes=ref.size_bytes,
            blocks=ref.capacity_bytes // SECTOR_BYTES,
            block_bytes=self.volume.block_bytes,
            capacity_bytes=ref.capacity_bytes,
            zone=ref.zone,
            zone_count=int(ref.group.zone_count[ref.index]),
            condition=int(ref.group.condition[ref.index]),
        )

    def _find(self, path: str) -> FileRef | str:
        """The file at ``path``, or the name of the directory ("" for the root)."""
        parts = [part for part in path.split("/") if part]
        if not parts:
            return ""
        group = self.groups.get(parts[0])
        if group is None:
            raise self._error(path, "no such file or directory", errno.ENOENT)
        if len(parts) == 1:
            return group.name
        name = parts[1]
        # "00" and other spellings of a number do not exist; the length keeps int() from long work
        known = name.isascii() and name.isdigit() and len(name) < NAME_DIGITS and str(int(name)) == name
        if not known or int(name) >= len(group):
            raise self._error(path, "no such file or directory", errno.ENOENT)
        if len(parts) > 2:
            raise self._error(path, "not a directory", errno.ENOTDIR)
        return FileRef(group, int(name))

    def file(self, path: str) -> FileRef:
        """The file at ``path``.

        Raises:
            FileError: ENOENT, or EISDIR for a directory.
        """
        found = self._find(path)
        if isinstance(found, FileRef):
            return found
        raise self._error(path, "is a directory", errno.EISDIR)

    def is_readable(self, ref: FileRef) -> bool:
        return bool(self._readable[ref.group.name][ref.index])

    def is_writable(self, ref: FileRef) -> bool:
        """False for immutable files: their zone is, or was declared, read-only or offline."""
        return bool(self._writable[ref.group.name][ref.index])

    # -- attributes in memory

    def chmod(self, path: str, mode: int) -> None:
        """Change permission bits until the volume is closed."""
        found = self._find(path)
        if isinstance(found, FileRef):
            self._check_changeable(found)
            kind = int(found.group.mode[found.index]) & ~PERM_MASK
            found.group.mode[found.index] = kind | (mode & PERM_MASK)
            return
        self.check_changeable(path)
        if mode & WRITE_BITS:
            raise self._error(path, "directories cannot be made writable", errno.EPERM)
        self._directory_modes[found] = mode & PERM_MASK

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change the owner until the volume is closed; -1 leaves one as it is."""
        found = self._find(path)
        self.check_changeable(path)
        path = found.path if isinstance(found, FileRef) else f"/{found}"
        old_uid, old_gid = self.owner(path)
        self._owners[path] = (old_uid if uid == -1 else uid, old_gid if gid == -1 else gid)

    def check_changeable(self, path: str) -> None:
        """Refuse to change attributes of dead files, and anything on a read-only volume."""
        found = self._find(path)
        if isinstance(found, FileRef):
            self._check_changeable(found)
        elif self.read_only:
            raise self._error(path, "the volume is read-only", errno.EROFS)

    def _check_changeable(self, ref: FileRef) -> None:
        if self.read_only:
            raise self._error(ref.path, "the volume is read-only", errno.EROFS)
        if not self.is_writable(ref):
            raise self._error(ref.path, "its zone is read-only or offline", errno.EPERM)

    def _error(self, path: str, message: str, number: int) -> FileError:
        return FileError(f"{path}: {message}", device=self.volume.device.path, errno=number)
