"""What subvolume trees hold: inodes, names, extents, checksums; no I/O.

Following the on-disk format as documented (btrfs.readthedocs.io, "On-disk format"; Linux
include/uapi/linux/btrfs_tree.h for field orders). Everything is little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul, Struct

from zoned_tools.codec.fields import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator

INODE_ITEM, INODE_REF, INODE_EXTREF = 1, 12, 13
DIR_ITEM, DIR_INDEX = 84, 96
EXTENT_DATA, EXTENT_CSUM = 108, 128
ROOT_ITEM, ROOT_BACKREF = 132, 144

TREE_OF_TREES, TOP_SUBVOLUME, CSUM_TREE = 1, 5, 7
FIRST_SUBVOLUME, LAST_SUBVOLUME = 256, (1 << 64) - 257
ROOT_DIRECTORY = 256
"""Inode of the directory at the top of every subvolume."""
CSUM_OBJECTID = (1 << 64) - 10
NO_CHECKSUMS = 1 << 0
"""Flag of inodes whose data have no checksums (NODATASUM)."""
MAX_NAME_BYTES = 255

INLINE, REGULAR, PREALLOC = 0, 1, 2
EXTENT_KINDS = {INLINE: "inline", REGULAR: "regular", PREALLOC: "prealloc"}
NOT_COMPRESSED, ZLIB, LZO, ZSTD = range(4)
COMPRESSIONS = {NOT_COMPRESSED: "none", ZLIB: "zlib", LZO: "lzo", ZSTD: "zstd"}
INLINE_HEADER_BYTES = 21

ENTRY_TYPES = {1: "file", 2: "dir", 3: "char", 4: "block", 5: "fifo", 6: "socket", 7: "symlink"}
"""Types of directory entries by the number in them."""

_TIME = Struct("seconds" / Int64sl, "nanoseconds" / Int32ul)
_INODE = Struct(
    "generation" / Int64ul,
    "transid" / Int64ul,
    "size" / Int64ul,
    "nbytes" / Int64ul,
    "block_group" / Int64ul,
    "nlink" / Int32ul,
    "uid" / Int32ul,
    "gid" / Int32ul,
    "mode" / Int32ul,
    "rdev" / Int64ul,
    "flags" / Int64ul,
    "sequence" / Int64ul,
    "reserved" / Bytes(32),
    "atime" / _TIME,
    "ctime" / _TIME,
    "mtime" / _TIME,
    "otime" / _TIME,
)
assert _INODE.sizeof() == 160

_ENTRY = Struct(
    "objectid" / Int64ul,
    "type" / Int8ul,
    "offset" / Int64ul,
    "transid" / Int64ul,
    "data_bytes" / Int16ul,
    "name_bytes" / Int16ul,
    "kind" / Int8ul,
)

EXTENT_DTYPE = dtype_of(
    Struct(
        "generation" / Int64ul,
        "ram_bytes" / Int64ul,
        "compression" / Int8ul,
        "encryption" / Int8ul,
        "other_encoding" / Int16ul,
        "kind" / Int8ul,
        "disk_bytenr" / Int64ul,
        "disk_num_bytes" / Int64ul,
        "offset" / Int64ul,
        "num_bytes" / Int64ul,
    )
)
"""An extent that is not inline; an inline one ends after ``kind``, its bytes follow."""


class ItemError(ValueError):
    """An item is too short, or says what is not possible."""


@dataclass(frozen=True, slots=True)
class Inode:
    """What stat(2) shows of a file; ``mtime`` in seconds of the epoch."""

    size: int
    nbytes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    flags: int
    mtime: float

    @classmethod
    def parse(cls, raw: bytes) -> Inode:
        """Raises :class:`ItemError`."""
        if len(raw) < _INODE.sizeof():
            raise ItemError(f"an inode of {len(raw)} bytes")
        item = _INODE.parse(raw)
        mtime = item.mtime.seconds + item.mtime.nanoseconds / 1e9
        return cls(item.size, item.nbytes, item.nlink, item.uid, item.gid, item.mode, item.flags, mtime)

    @property
    def has_checksums(self) -> bool:
        return not self.flags & NO_CHECKSUMS


class Entry(NamedTuple):
    """A name in a directory; ``is_subvolume``: ``number`` is a tree's, not an inode's."""

    name: bytes
    number: int
    kind: str
    is_subvolume: bool


def entries(raw: bytes) -> Iterator[Entry]:
    """The names in a directory item.

    Raises:
        ItemError: one is cut off, or could not be a name.
    """
    at, size = 0, _ENTRY.sizeof()
    while at < len(raw):
        if at + size > len(raw):
            raise ItemError("a directory entry is cut off")
        head = _ENTRY.parse(raw[at : at + size])
        end = at + size + head.name_bytes
        name = raw[at + size : end]
        if len(name) < head.name_bytes or not 1 <= len(name) <= MAX_NAME_BYTES or b"/" in name or b"\0" in name:
            raise ItemError("a directory entry has an impossible name")
        if name in (b".", b".."):
            raise ItemError("a directory entry has an impossible name")
        kind = ENTRY_TYPES.get(head.kind, "unknown")
        yield Entry(name, head.objectid, kind, head.type == ROOT_ITEM)
        at = end + head.data_bytes


def first_name(raw: bytes, *, extended: bool = False) -> tuple[int, bytes]:
    """``(parent directory, name)`` of the first name in an inode's reference; the parent is 0 of a plain one, whose
    key has it.

    Raises:
        ItemError: it is cut off.
    """
    head = 18 if extended else 10
    length = int.from_bytes(raw[head - 2 : head], "little")
    name = raw[head : head + length]
    if len(raw) < head or len(name) < length or not length:
        raise ItemError("the reference of an inode is cut off")
    return int.from_bytes(raw[:8], "little") if extended else 0, name


def root_name(raw: bytes) -> tuple[int, bytes]:
    """``(directory, name)`` of a subvolume in its parent tree.

    Raises:
        ItemError: it is cut off.
    """
    length = int.from_bytes(raw[16:18], "little")
    name = raw[18 : 18 + length]
    if len(raw) < 18 or len(name) < length or not length:
        raise ItemError("the reference of a subvolume is cut off")
    return int.from_bytes(raw[:8], "little"), name


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file's bytes.

    Attributes:
        file_offset: where in the file.
        length: bytes of the file; of an inline extent up to the file's end.
        disk_bytenr: logical address of the whole extent on disk; 0 for a hole, and of inline ones.
        disk_num_bytes: its length there.
        offset: where the run begins in the (decompressed) extent.
        ram_bytes: length of the whole extent decompressed.
        inline: the bytes of an inline extent as they are stored.
    """

    file_offset: int
    length: int
    kind: str
    compression: int
    encoded: bool
    disk_bytenr: int
    disk_num_bytes: int
    offset: int
    ram_bytes: int
    inline: bytes = b""

    @property
    def is_hole(self) -> bool:
        """It reads as zeroes: nothing is stored, or nothing was written to what is kept for it."""
        return self.kind in ("hole", "prealloc") or (self.kind == "regular" and self.disk_bytenr == 0)

    @classmethod
    def parse(cls, file_offset: int, raw: bytes) -> Extent:
        """Raises :class:`ItemError`."""
        head = np.zeros(1, EXTENT_DTYPE)
        inline = len(raw) >= INLINE_HEADER_BYTES and raw[INLINE_HEADER_BYTES - 1] == INLINE
        needed = INLINE_HEADER_BYTES if inline else EXTENT_DTYPE.itemsize
        if len(raw) < needed:
            raise ItemError(f"a file extent of {len(raw)} bytes")
        head.view(np.uint8)[:needed] = np.frombuffer(raw, np.uint8, needed)
        item = {name: int(head[name][0]) for name in EXTENT_DTYPE.names or ()}
        kind = EXTENT_KINDS.get(item["kind"])
        if kind is None or item["compression"] not in COMPRESSIONS:
            raise ItemError(f"a file extent of type {item['kind']}, compression {item['compression']}")
        if not inline and item["num_bytes"] > (1 << 63) - file_offset:
            raise ItemError(f"a file extent of {item['num_bytes']} bytes")
        return cls(
            file_offset,
            item["ram_bytes"] if inline else item["num_bytes"],
            kind,
            item["compression"],
            bool(item["encryption"] or item["other_encoding"]),
            item["disk_bytenr"],
            item["disk_num_bytes"],
            item["offset"],
            item["ram_bytes"],
            raw[INLINE_HEADER_BYTES:] if inline else b"",
        )
