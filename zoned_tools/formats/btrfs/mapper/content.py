"""The bytes of files: extents from the first copy whose data checksums are right, decompressed."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.device.badareas import salvage_into
from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.checksum import ALGORITHMS
from zoned_tools.formats.btrfs.items import CSUM_OBJECTID, EXTENT_CSUM, Extent, ItemError
from zoned_tools.formats.btrfs.mapper.decompress import MAX_EXTENT_BYTES, DecompressError, decompress
from zoned_tools.formats.btrfs.mapper.files import FileError
from zoned_tools.formats.btrfs.nodes import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.btrfs.chunks import Place
    from zoned_tools.formats.btrfs.mapper.files import FileTree, Found

PIECE_BYTES = 1 << 20
"""Read at a time at most."""

Sums: TypeAlias = npt.NDArray[np.uint8]


class FilePiece(NamedTuple):
    """Some bytes of a file; ``data`` is zeroes where ``reason`` says why it is lost."""

    offset: int
    data: bytes
    reason: str = ""
    length: int = 0
    """Where the data were given up."""


def content(
    tree: FileTree, reader: DataReader, found: Found, offset: int, length: int | None, lost: list[FilePiece] | None
) -> Iterator[bytes]:
    """The bytes of a file in order.

    Args:
        lost: gets what cannot be read, which becomes zeroes; None to fail there.

    Raises:
        FileError: it is no regular file, or bytes of it cannot be read.
    """
    name = found.path.decode("utf-8", "surrogateescape")
    if found.kind != "file":
        to = "" if found.target is None else f" to {found.target.decode('utf-8', 'surrogateescape')}"
        what = {"dir": "a directory", "symlink": f"a symbolic link{to}"}.get(found.kind, f"a {found.kind}")
        raise tree.refusal(name, f"it is {what}", errno.EISDIR if found.kind == "dir" else errno.EINVAL)
    for piece in reader.pieces(found, offset, length):
        if piece.reason and lost is None:
            reason = f"{len(piece.data)} bytes at byte {piece.offset} cannot be read: {piece.reason}"
            raise FileError(f"{name}: {reason}", device=tree.path, errno=errno.EIO, hint="--skip-errors reads the rest")
        if piece.reason and lost is not None:
            lost.append(piece._replace(data=b"", length=len(piece.data)))
        yield piece.data


@dataclass(slots=True)
class SectorRead:
    """Sectors of the logical space.

    Attributes:
        data: zeroes where nothing good was found.
        bad: mask of those.
        reason: why the last of them is bad.
        failed: for each bad copy that was tried its place, the mask of its sectors that are bad, and why.
    """

    data: bytearray
    bad: BoolArray
    reason: str
    failed: list[tuple[Place, BoolArray, str]]


class DataReader:
    """Reads data of one file system, sectors of which every copy is tried.

    Args:
        verify: hold them against the checksum tree.
    """

    def __init__(self, tree: FileTree, *, verify: bool = True) -> None:
        self._tree = tree
        self._verify = verify
        self._sector = tree.block.sectorsize
        self._algorithm = ALGORITHMS[tree.block.csum_type]

    # -- files

    def pieces(self, found: Found, offset: int, length: int | None) -> Iterator[FilePiece]:
        """A file from ``offset`` on, in order, without gaps.

        Raises:
            FileError: its extents cannot be told: a node or an item of them cannot be used.
        """
        assert found.inode is not None
        end = found.inode.size if length is None else min(found.inode.size, offset + length)
        name = found.path.decode("utf-8", "surrogateescape")
        try:
            for extent in self._tree.extents(found.ref, found.inode.size):
                start, stop = max(extent.file_offset, offset), min(extent.file_offset + extent.length, end)
                if start < stop:
                    yield from self._extent(extent, start, stop, checked=self._verify and found.inode.has_checksums)
        except (NodeError, ItemError) as error:
            raise self._tree.refusal(name, str(error)) from None

    def _extent(self, extent: Extent, start: int, end: int, *, checked: bool) -> Iterator[FilePiece]:
        if extent.is_hole:
            for at in range(start, end, PIECE_BYTES):
                yield FilePiece(at, bytes(min(PIECE_BYTES, end - at)))
        elif extent.encoded:
            yield from _lost(start, end, "the extent is encoded in an unknown way")
        elif extent.kind == "inline" or extent.compression:
            yield from self._whole(extent, start, end, checked=checked)
        else:
            yield from self._plain(extent, start, end, checked=checked)

    def _whole(self, extent: Extent, start: int, end: int, *, checked: bool) -> Iterator[FilePiece]:
        """An extent that has to be had as a whole: inline or compressed."""
        stored = extent.inline
        if extent.kind != "inline":
            if extent.disk_num_bytes > 2 * MAX_EXTENT_BYTES:
                yield from _lost(start, end, f"a compressed extent of {extent.disk_num_bytes} bytes")
                return
            read = self._checked(extent.disk_bytenr, extent.disk_num_bytes, checked=checked)
            if read.bad.any():
                yield from _lost(start, end, read.reason)
                return
            stored = bytes(read.data)
        if extent.compression:
            try:
                stored = decompress(stored, extent.compression, extent.ram_bytes, self._sector)
            except DecompressError as error:
                yield from _lost(start, end, str(error))
                return
        inside = extent.offset + start - extent.file_offset
        yield FilePiece(start, stored[inside : inside + end - start].ljust(end - start, b"\0"))

    def _plain(self, extent: Extent, start: int, end: int, *, checked: bool) -> Iterator[FilePiece]:
        base = extent.disk_bytenr + extent.offset - extent.file_offset
        at = start
        while at < end:
            logical = (base + at) // self._sector * self._sector
            stop = min(at + PIECE_BYTES, end)
            length = -(-(base + stop - logical) // self._sector) * self._sector
            read = self._checked(logical, length, checked=checked)
            skip = base + at - logical
            yield from self._split(at, bytes(read.data[skip : skip + stop - at]), read, skip)
            at = stop

    def _split(self, at: int, data: bytes, read: SectorRead, skip: int) -> Iterator[FilePiece]:
        """What was read in pieces that are good or lost as a whole."""
        if not read.bad.any():
            yield FilePiece(at, data)
            return
        edges = np.flatnonzero(np.diff(read.bad)) + 1
        cuts = [0, *(int(edge) * self._sector - skip for edge in edges), len(data)]
        for first, last in pairwise(cuts):
            bad = bool(read.bad[(first + skip) // self._sector])
            yield FilePiece(at + first, data[first:last], read.reason if bad else "")

    # -- sectors

    def _checked(self, logical: int, length: int, *, checked: bool) -> SectorRead:
        """Whole sectors, with ``checked`` against the checksum tree.

        Raises:
            NodeError: that cannot be read.
        """
        return self.sectors(logical, length, sums=self.checksums(logical, length // self._sector) if checked else None)

    @property
    def sum_bytes(self) -> int:
        """Bytes of one checksum."""
        return self._algorithm.size

    def sectors(
        self, logical: int, length: int, *, sums: tuple[Sums, BoolArray] | None, every_copy: bool = False
    ) -> SectorRead:
        """Whole sectors from the first copy that is good, each.

        Args:
            sums: checksums of the sectors and which are known; None for data without any.
            every_copy: look at all copies.
        """
        count = length // self._sector
        read = SectorRead(bytearray(length), np.ones(count, bool), "", [])
        try:
            places = self._tree.lookup.chunks.copies(logical, length)
        except NodeError as error:
            read.reason = str(error)
            return read
        for place in places:
            buffer = bytearray(length)
            bad, reason = self._copy(place, buffer, sums)
            take = read.bad & ~bad
            for sector in np.flatnonzero(take).tolist():
                part = slice(sector * self._sector, (sector + 1) * self._sector)
                read.data[part] = buffer[part]
            read.bad &= bad
            if bad.any():
                read.reason = f"logical address {logical + int(np.argmax(bad)) * self._sector}: {reason}"
                read.failed.append((place, bad, reason))
            if not (every_copy or read.bad.any()):
                break
        return read

    def _copy(self, place: Place, buffer: bytearray, sums: tuple[Sums, BoolArray] | None) -> tuple[BoolArray, str]:
        """Read one copy; which sectors of it are bad, and why the first of them is."""
        count = len(buffer) // self._sector
        everything = np.ones(count, bool)
        device = self._tree.fs.reader.devices.get(place.devid)
        if device is None:
            return everything, f"device {place.devid} is not there"
        states = self._tree.zones.get(place.devid)
        why = "" if states is None else states.why_not(place.offset_bytes, self._sector)
        if states is not None and why:
            return everything, f"zone {states.zone_of(place.offset_bytes)} of device {place.devid}: {why}"
        at = self._tree.fs.reader.start_bytes + place.offset_bytes
        if at + len(buffer) > device.geometry.size_bytes:
            return everything, f"device {place.devid} ends before it"
        try:
            unread = salvage_into(device, at, memoryview(buffer))
        except DeviceError as error:
            return everything, error.message
        starts = at + np.arange(count, dtype=np.int64) * self._sector
        bad = unread.touches(starts, self._sector)
        reason = f"device {place.devid} cannot be read"
        if states is not None:
            for sector in range(count):
                bad[sector] |= bool(states.why_not(place.offset_bytes + sector * self._sector, self._sector))
        if sums is not None and not bad.all():
            wrong = ~bad & ~self._right(buffer, *sums)
            if not bad.any():
                reason = "its checksum is wrong" if sums[1][np.argmax(wrong)] else "it has no checksum"
                reason += f" on device {place.devid}"
            bad |= wrong
        return bad, reason

    def _right(self, buffer: bytearray, sums: Sums, known: BoolArray) -> BoolArray:
        """Which sectors have the checksum that is known of them."""
        view, size, digest = memoryview(buffer), self._algorithm.size, self._algorithm.digest
        step = self._sector
        found = b"".join(digest(view[at : at + step])[:size] for at in range(0, len(buffer), step))
        same: BoolArray = (np.frombuffer(found, np.uint8).reshape(-1, size) == sums).all(axis=1)
        return same & known

    def checksums(self, logical: int, count: int) -> tuple[Sums, BoolArray]:
        """The checksums of ``count`` sectors, shape (count, bytes of one), and which of them are known.

        Raises:
            NodeError: the checksum tree cannot be read.
        """
        size, step = self._algorithm.size, self._sector
        sums, known = np.zeros((count, size), np.uint8), np.zeros(count, bool)
        root = self._tree.checksum_root()
        if root is None:
            return sums, known
        lookup, first = self._tree.lookup, (CSUM_OBJECTID, EXTENT_CSUM, 0)
        before = lookup.last(root, first, (CSUM_OBJECTID, EXTENT_CSUM, logical))
        end = (CSUM_OBJECTID, EXTENT_CSUM, logical + count * step - 1)
        behind = lookup.items(root, (CSUM_OBJECTID, EXTENT_CSUM, logical + 1), end)
        for item in chain([before] if before is not None else [], behind):
            rows = np.frombuffer(item.data, np.uint8, len(item.data) // size * size).reshape(-1, size)
            at = (item.offset - logical) // step
            low, high = max(at, 0), min(at + len(rows), count)
            if low < high:
                sums[low:high], known[low:high] = rows[low - at : high - at], True
        return sums, known


def _lost(start: int, end: int, reason: str) -> Iterator[FilePiece]:
    for at in range(start, end, PIECE_BYTES):
        yield FilePiece(at, bytes(min(PIECE_BYTES, end - at)), reason)
