"""The files of a file system, read without a kernel: names, inodes, extents of its subvolumes.

Nothing is replayed: what only the tree log has is not shown.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.btrfs.chosen import choose_supers
from zoned_tools.formats.btrfs.items import (
    CSUM_TREE,
    DIR_INDEX,
    EXTENT_DATA,
    INODE_EXTREF,
    INODE_ITEM,
    INODE_REF,
    ROOT_BACKREF,
    ROOT_DIRECTORY,
    ROOT_ITEM,
    TOP_SUBVOLUME,
    TREE_OF_TREES,
    Entry,
    Extent,
    Inode,
    ItemError,
    entries,
    first_name,
    root_name,
)
from zoned_tools.formats.btrfs.mapper.lookup import LAST, TreeLookup
from zoned_tools.formats.btrfs.nodes import ROOT_ITEM as ROOT
from zoned_tools.formats.btrfs.nodes import NodeError, NodePointer, NodeRules
from zoned_tools.formats.btrfs.survey import FileSystem, survey_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.zone_states import ZoneStates
    from zoned_tools.formats.contract import Settings, Target

MAX_DEPTH = 4096
"""Directories above a file, or below a listed one: more than a path has room for."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "symlink",
}
"""File types of modes, by the words for directory entries."""

T = TypeVar("T")


class FileError(DeviceError):
    """A file cannot be found or read; ``errno`` is what a kernel gives."""

    error_id = "file"


class Ref(NamedTuple):
    """An inode of a subvolume."""

    tree: int
    inode: int


class Found(NamedTuple):
    """A file that a listing came by; ``inode`` is None where it could not be read, and ``reason`` says why."""

    path: bytes
    ref: Ref
    kind: str
    inode: Inode | None
    target: bytes | None = None
    reason: str = ""


def open_files(target: Target, settings: Settings) -> FileTree:
    """The files after the newest super block with readable roots, or that of ``settings``.

    Raises:
        MetadataError: there is none.
    """
    fs = survey_file_system(target)
    chosen = choose_supers(fs, settings)
    block = chosen.block
    try:
        chunks = fs.reader.chunk_map(block)
    except NodeError as error:
        raise MetadataError(str(error), device=target.device.path) from None
    lookup = TreeLookup(fs.reader, chunks, NodeRules.of(block))
    warnings = list(chosen.warnings)
    if block.log_root:
        warnings.append(
            "the tree log is not replayed: what was only synced with fsync since the last commit is missing"
        )
    return FileTree(fs, block, lookup, fs.zone_states(block), tuple(warnings))


@dataclass(slots=True)
class FileTree:
    """The subvolumes of one file system.

    Attributes:
        zones: devid -> the zones of the device.
        warnings: what is to be said before files are read.
    """

    fs: FileSystem
    block: SuperBlock
    lookup: TreeLookup
    zones: Mapping[int, ZoneStates]
    warnings: tuple[str, ...]
    _roots: dict[int, NodePointer | None] = field(default_factory=dict)
    _directories: dict[Ref, bytes] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.fs.target.device.path

    def refusal(self, what: str, reason: str, number: int = errno.EIO) -> FileError:
        """An error that names the file and the device."""
        return FileError(f"{what}: {reason}", device=self.path, errno=number)

    # -- trees

    def tree_root(self, tree: int) -> NodePointer | None:
        """The top of a tree of the root tree; None where there is no such tree.

        Raises:
            NodeError: a node on the way cannot be used.
            ItemError: its root item is cut off.
        """
        if tree not in self._roots:
            self._roots[tree] = self._find_root(tree)
        return self._roots[tree]

    @property
    def root_of_roots(self) -> NodePointer:
        block = self.block
        return NodePointer(TREE_OF_TREES, block.root, block.generation, block.root_level)

    def _find_root(self, tree: int) -> NodePointer | None:
        item = self.lookup.last(self.root_of_roots, (tree, ROOT_ITEM, 0), (tree, ROOT_ITEM, LAST))
        if item is None:
            return None
        if len(item.data) < ROOT.sizeof():
            raise ItemError(f"the root item of tree {tree} is cut off")
        entry = ROOT.parse(item.data)
        return NodePointer(tree, entry.bytenr, entry.generation, entry.level)

    def checksum_root(self) -> NodePointer | None:
        """The top of the checksum tree."""
        return self.tree_root(CSUM_TREE)

    def _subvolume(self, tree: int) -> NodePointer:
        root = self.tree_root(tree)
        if root is None:
            raise ItemError(f"there is no subvolume {tree}")
        return root

    # -- one inode

    def inode(self, ref: Ref) -> Inode:
        """Raises :class:`NodeError` or :class:`ItemError`."""
        key = (ref.inode, INODE_ITEM, 0)
        item = self.lookup.first(self._subvolume(ref.tree), key, (ref.inode, INODE_ITEM, LAST))
        if item is None:
            raise ItemError(f"subvolume {ref.tree} has no inode {ref.inode}")
        return Inode.parse(item.data)

    def entries(self, ref: Ref) -> Iterator[Entry]:
        """What a directory holds, in the order in which it was made; raises as :meth:`inode`."""
        root = self._subvolume(ref.tree)
        for item in self.lookup.items(root, (ref.inode, DIR_INDEX, 0), (ref.inode, DIR_INDEX, LAST)):
            yield from entries(item.data)

    def extents(self, ref: Ref, size: int) -> Iterator[Extent]:
        """What a file's bytes are, ascending and without gaps up to ``size``; raises as :meth:`inode`."""
        at = 0
        root = self._subvolume(ref.tree)
        for item in self.lookup.items(root, (ref.inode, EXTENT_DATA, 0), (ref.inode, EXTENT_DATA, LAST)):
            extent = Extent.parse(item.offset, item.data)
            if extent.file_offset < at:
                raise ItemError(f"inode {ref.inode} has two extents at byte {extent.file_offset}")
            if at < min(extent.file_offset, size):
                yield _hole(at, min(extent.file_offset, size))
            if extent.file_offset >= size:
                at = size
                break
            yield extent
            at = extent.file_offset + extent.length
        if at < size:
            yield _hole(at, size)

    def link_target(self, ref: Ref) -> bytes:
        """Of a symbolic link; raises as :meth:`inode`."""
        for extent in self.extents(ref, self.inode(ref).size):
            if extent.kind == "inline" and not extent.compression:
                return extent.inline
        raise ItemError(f"inode {ref.inode} is a symbolic link to nowhere")

    # -- paths

    def resolve(self, path: bytes, subvolume: int = TOP_SUBVOLUME) -> Found:
        """The file that a path names, from the top of a subvolume on; symbolic links are not followed.

        Raises:
            FileError: there is none, or a node or an item on the way cannot be used.
        """
        shown = _shown(path)
        found = Found(b"/", Ref(subvolume, ROOT_DIRECTORY), "dir", None)
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            if found.kind != "dir":
                raise self.refusal(shown, f"{_shown(found.path)} is no directory", errno.ENOTDIR)
            entry = self._tried(shown, partial(self._entry, found.ref, name))
            if entry is None:
                raise self.refusal(shown, "there is no such file", errno.ENOENT)
            found = self._found(found, entry)
        inode = self._tried(shown, lambda: self.inode(found.ref))
        target = self._tried(shown, lambda: self.link_target(found.ref)) if found.kind == "symlink" else None
        return found._replace(inode=inode, target=target)

    def by_inode(self, subvolume: int, inode: int) -> Found:
        """The file with a number; its path is empty where no name leads to it.

        Raises:
            FileError: there is none, or its inode cannot be read.
        """
        ref = Ref(subvolume, inode)
        what = f"inode {inode} of subvolume {subvolume}"
        item = self._tried(what, lambda: self.inode(ref))
        kind = KINDS.get(stat.S_IFMT(item.mode), "unknown")
        return Found(self.path_of(ref) or b"", ref, kind, item)

    def _tried(self, what: str, look: Callable[[], T]) -> T:
        try:
            return look()
        except (NodeError, ItemError) as error:
            raise self.refusal(what, str(error)) from None

    def _entry(self, directory: Ref, name: bytes) -> Entry | None:
        return next((entry for entry in self.entries(directory) if entry.name == name), None)

    def _found(self, above: Found, entry: Entry) -> Found:
        ref = Ref(entry.number, ROOT_DIRECTORY) if entry.is_subvolume else Ref(above.ref.tree, entry.number)
        path = above.path.rstrip(b"/") + b"/" + entry.name
        return Found(path, ref, "dir" if entry.is_subvolume else entry.kind, None)

    def listing(self, top: Found, *, recursive: bool = False) -> Iterator[Found]:
        """What is in a directory, with ``recursive`` at every depth, subvolumes too; a file alone is itself.

        What cannot be read is listed with its reason.
        """
        if top.kind != "dir":
            yield top
            return
        pending = [self._below(top)]
        seen = {top.ref}
        while pending:
            found = next(pending[-1], None)
            if found is None:
                pending.pop()
                continue
            found = self._with_inode(found)
            yield found
            if recursive and found.kind == "dir" and not found.reason and found.ref not in seen:
                seen.add(found.ref)
                if len(pending) < MAX_DEPTH:
                    pending.append(self._below(found))

    def _below(self, directory: Found) -> Iterator[Found]:
        try:
            for entry in self.entries(directory.ref):
                yield self._found(directory, entry)
        except (NodeError, ItemError) as error:
            yield directory._replace(path=directory.path.rstrip(b"/") + b"/", reason=f"not listed whole: {error}")

    def _with_inode(self, found: Found) -> Found:
        if found.reason:
            return found
        try:
            inode = self.inode(found.ref)
            target = self.link_target(found.ref) if found.kind == "symlink" else None
        except (NodeError, ItemError) as error:
            return found._replace(reason=str(error))
        return found._replace(inode=inode, target=target)

    def path_of(self, ref: Ref) -> bytes | None:
        """A path from the top of the file system to an inode; None where a name on the way is lost.

        Of several hard links the first.
        """
        parts: list[bytes] = []
        walked: list[Ref] = []
        at = ref
        while at != (TOP_SUBVOLUME, ROOT_DIRECTORY):
            if at in self._directories:
                parts.append(self._directories[at].strip(b"/"))
                break
            walked.append(at)
            try:
                step = self._parent(at)
            except (NodeError, ItemError):
                return None
            if step is None or len(walked) > MAX_DEPTH:
                return None
            at, name = step
            parts.append(name)
        path = b"/" + b"/".join(reversed([part for part in parts if part]))
        if len(walked) > 1:  # the directory above it: its other files have the same
            self._directories[walked[1]] = path.rpartition(b"/")[0] or b"/"
        return path

    def _parent(self, ref: Ref) -> tuple[Ref, bytes] | None:
        """The directory that holds an inode, and its name there."""
        if ref.inode == ROOT_DIRECTORY:
            item = self.lookup.first(self.root_of_roots, (ref.tree, ROOT_BACKREF, 0), (ref.tree, ROOT_BACKREF, LAST))
            if item is None:
                return None
            directory, name = root_name(item.data)
            return Ref(item.offset, directory), name
        root = self._subvolume(ref.tree)
        item = self.lookup.first(root, (ref.inode, INODE_REF, 0), (ref.inode, INODE_EXTREF, LAST))
        if item is None:
            return None
        extended = item.type == INODE_EXTREF
        parent, name = first_name(item.data, extended=extended)
        return Ref(ref.tree, parent if extended else item.offset), name


def _hole(start: int, end: int) -> Extent:
    return Extent(start, end - start, "hole", 0, encoded=False, disk_bytenr=0, disk_num_bytes=0, offset=0, ram_bytes=0)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
