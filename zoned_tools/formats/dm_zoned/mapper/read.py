"""Where the blocks of the logical device live, and what is in them.

The rules are the kernel target's (``dmz_handle_read`` in ``drivers/md/dm-zoned-target.c``):
a block is in the data zone of its chunk if it is valid there, else in the buffer zone if it
is valid there, else it is zeroes. One deviation: blocks at or above the write pointer of a
sequential zone are never valid, whatever the bitmap says.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import mask_runs, value_runs
from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import MapExtent
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED
from zoned_tools.formats.dm_zoned.mapper.bitmaps import joined_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.dm_zoned.mapper.commit import MetadataStore
    from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk
    from zoned_tools.formats.dm_zoned.mapper.missing import MissingBits

SLICE_BLOCKS = 2048
"""How much of a chunk is looked at, and read, at a time."""
MAX_GAP_BLOCKS = 16
"""Gaps up to this size between valid blocks are read along and thrown away."""

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_HOLE, _DATA, _BUFFER, _LOST, _UNKNOWN = range(5)
Labels = npt.NDArray[np.uint8]
Piece = tuple[int, int, int]
"""Start and end of a run of blocks within a part of a chunk, and its label."""


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """A range of blocks inside one chunk; ``block`` is the logical number of the first."""

    chunk: int
    offset: int
    count: int
    block: int


class ContentReader:
    """Reads the logical device. Positions and counts are 4096-byte blocks.

    Args:
        path: for messages.
    """

    def __init__(self, disk: TargetDisk, store: MetadataStore, path: str) -> None:
        self._disk = disk
        self._store = store
        self._zone_blocks = disk.zone_blocks
        self._nr_zones = len(disk.sequential)
        self.path = path

    def parts(self, block: int, count: int) -> Iterator[ChunkPart]:
        """A range of the logical device cut at chunk borders."""
        end = block + count
        while block < end:
            chunk, offset = divmod(block, self._zone_blocks)
            length = min(self._zone_blocks - offset, end - block)
            yield ChunkPart(chunk, offset, length, block)
            block += length

    # -- which zone holds what

    def _valid(self, zone: int, offset: int, count: int) -> BoolArray:
        """Blocks of a zone that are valid and below its write pointer."""
        bits = self._store.bitmaps[zone].bits(offset, count)
        below = self._disk.wp_blocks[zone] - offset
        if below < count:
            bits[max(below, 0) :] = False
        return bits

    def labels(self, data_zone: int, buffer_zone: int, offset: int, count: int) -> Labels:
        """For each block of a range of a mapped chunk: hole, in the data zone, in the buffer zone, or lost."""
        if data_zone >= self._nr_zones:
            return np.full(count, _LOST, np.uint8)
        in_data = self._valid(data_zone, offset, count)
        labels: Labels = in_data.view(np.uint8)
        missing = self._store.missing
        if missing is not None:
            labels = np.where(in_data, np.uint8(_DATA), self._unknown(missing, data_zone, offset, count))
        if buffer_zone == UNMAPPED:
            return labels
        if buffer_zone >= self._nr_zones:
            labels[~in_data] = _LOST
            return labels
        in_buffer = self._valid(buffer_zone, offset, count)
        in_buffer &= ~in_data
        labels[in_buffer] = _BUFFER
        if missing is not None:
            np.maximum(labels, self._unknown(missing, buffer_zone, offset, count), out=labels, where=labels == _HOLE)
        return labels

    def _unknown(self, missing: MissingBits, zone: int, offset: int, count: int) -> Labels:
        """Labels of the blocks of a zone: unknown below its write pointer where nobody knows whether they are valid."""
        mask = missing.blocks(zone, offset, count)
        below = self._disk.wp_blocks[zone] - offset
        if below < count:
            mask[max(below, 0) :] = False
        labels: Labels = mask * np.uint8(_UNKNOWN)
        return labels

    def _uniform(self, data_zone: int, buffer_zone: int, offset: int, count: int) -> int | None:
        """The label of all blocks of a range, None when they differ or when it is not quick to tell."""
        if data_zone >= self._nr_zones:
            return _LOST
        missing = self._store.missing
        if missing is not None and (data_zone in missing or buffer_zone in missing):
            return None
        state = self._store.bitmaps[data_zone].uniform(offset, count)
        if state and offset + count <= self._disk.wp_blocks[data_zone]:
            return _DATA
        return _HOLE if state is False and buffer_zone == UNMAPPED else None

    # -- reading

    def read_into(self, block: int, view: memoryview) -> None:
        """Fill ``view`` (whole blocks) from logical block ``block``.

        Raises:
            DeviceError: part of it cannot be read; the message names the logical blocks.
        """
        view = view.cast("B")
        for part in self.parts(block, len(view) // BLOCK_BYTES):
            start = (part.block - block) * BLOCK_BYTES
            data_zone, buffer_zone = self._store.zones_of(part.chunk)
            target = view[start : start + part.count * BLOCK_BYTES]
            if data_zone == UNMAPPED:
                self._read_unmapped(part, target)
                continue
            for done in range(0, part.count, SLICE_BLOCKS):
                count = min(SLICE_BLOCKS, part.count - done)
                piece = ChunkPart(part.chunk, part.offset + done, count, part.block + done)
                into = target[done * BLOCK_BYTES : (done + count) * BLOCK_BYTES]
                self._read_slice(piece, data_zone, buffer_zone, into)

    def _read_unmapped(self, part: ChunkPart, view: memoryview) -> None:
        missing = self._store.missing
        if missing is not None and missing.is_unknown(part.chunk):
            last = part.block + part.count - 1
            raise DeviceError(
                f"logical blocks {part.block} to {last} (chunk {part.chunk}) cannot be read: "
                f"{missing.why_chunk(part.chunk)}",
                device=self.path,
                errno=errno.EIO,
            )
        _zero(view)

    def _read_one(self, part: ChunkPart, data_zone: int, buffer_zone: int, view: memoryview) -> bool:
        """Read a single block the short way; False when something is out of the ordinary."""
        for zone in (data_zone, buffer_zone):
            if zone == UNMAPPED:
                break
            if zone >= self._nr_zones or self._disk.offline[zone]:
                return False
            if self._store.missing is not None and zone in self._store.missing:
                return False
            if part.offset < self._disk.wp_blocks[zone] and self._store.bitmaps[zone].test(part.offset):
                self._disk.read_into(zone, part.offset, view)
                return True
        view[:] = _ZERO_BLOCK
        return True

    def _read_slice(self, part: ChunkPart, data_zone: int, buffer_zone: int, view: memoryview) -> None:
        try:
            if part.count == 1 and self._read_one(part, data_zone, buffer_zone, view):
                return
            if self._uniform(data_zone, buffer_zone, part.offset, part.count) == _DATA:
                self._disk.read_into(data_zone, part.offset, view)
                return
            labels = self.labels(data_zone, buffer_zone, part.offset, part.count)
            if bool((labels >= _LOST).any()):
                self._raise_lost(part, data_zone, buffer_zone)
            _zero(view)
            self._fill(data_zone, part.offset, labels == _DATA, view)
            if buffer_zone != UNMAPPED:
                self._fill(buffer_zone, part.offset, labels == _BUFFER, view)
        except DeviceError as error:
            last = part.block + part.count - 1
            raise DeviceError(
                f"logical blocks {part.block} to {last} (chunk {part.chunk}) cannot be read: {error.message}",
                device=error.device or self.path,
                errno=error.errno,
            ) from None

    def _raise_lost(self, part: ChunkPart, data_zone: int, buffer_zone: int) -> None:
        if data_zone < self._nr_zones and (buffer_zone == UNMAPPED or buffer_zone < self._nr_zones):
            assert self._store.missing is not None
            zone = data_zone if data_zone in self._store.missing else buffer_zone
            raise DeviceError(self._store.missing.why_zone(zone), errno=errno.EIO)
        kind, zone = ("data", data_zone) if data_zone >= self._nr_zones else ("buffer", buffer_zone)
        raise DeviceError(f"{kind} zone {zone} of chunk {part.chunk} is not on the device", errno=errno.EIO)

    def _fill(self, zone: int, offset: int, mask: BoolArray, view: memoryview) -> None:
        """Read the blocks in ``mask`` of a zone into their places in ``view``."""
        for start, end in joined_runs(mask, MAX_GAP_BLOCKS).tolist():
            into = view[start * BLOCK_BYTES : end * BLOCK_BYTES]
            wanted = mask[start:end]
            if bool(wanted.all()):
                self._disk.read_into(zone, offset + start, into)
                continue
            span = bytearray(len(into))
            try:
                self._disk.read_into(zone, offset + start, memoryview(span))
            except DeviceError as error:
                if error.errno != errno.EIO:
                    raise
                self._fill_exactly(zone, offset + start, wanted, into)  # a block that nobody wants may be the bad one
                continue
            blocks = np.frombuffer(into, np.uint8).reshape(-1, BLOCK_BYTES)
            blocks[wanted] = np.frombuffer(span, np.uint8).reshape(-1, BLOCK_BYTES)[wanted]

    def _fill_exactly(self, zone: int, offset: int, mask: BoolArray, view: memoryview) -> None:
        """As :meth:`_fill`, without a look at other blocks."""
        for start, end in mask_runs(mask).tolist():
            self._disk.read_into(zone, offset + start, view[start * BLOCK_BYTES : end * BLOCK_BYTES])

    def stored_in(self, chunk: int, zone: int, offset: int, count: int) -> Iterator[tuple[int, int]]:
        """``(first, end)`` of the blocks of a chunk, in a range of it, that are read from one of its zones."""
        data_zone, buffer_zone = self._store.zones_of(chunk)
        labels = self.labels(data_zone, buffer_zone, offset, count)
        runs = mask_runs(labels == (_DATA if zone == data_zone else _BUFFER)) + offset
        yield from map(tuple, runs.tolist())

    def read_zone(self, zone: int, offset: int, mask: BoolArray) -> bytearray:
        """Blocks of a zone from ``offset`` on, those outside ``mask`` as zeroes (for reclaim)."""
        content = bytearray(len(mask) * BLOCK_BYTES)
        self._fill(zone, offset, mask, memoryview(content))
        return content

    # -- looking up

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where blocks live: ascending, without gaps, holes included."""
        for part, pieces in self._segments(block, count):
            if pieces:
                yield from self._extents(part, pieces)
            else:
                yield MapExtent(part.block, part.count, 0, None, self._why_unmapped(part))

    def data_extents(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """``(block, blocks)`` of what is stored somewhere, ascending, adjacent ranges joined."""
        start = end = block
        for part, pieces in self._segments(block, count):
            for first, last, kind in pieces:
                if kind == _HOLE:
                    continue
                if part.block + first != end:
                    if end > start:
                        yield start, end - start
                    start = part.block + first
                end = part.block + last
        if end > start:
            yield start, end - start

    def _segments(self, block: int, count: int) -> Iterator[tuple[ChunkPart, list[Piece]]]:
        """Parts of mapped chunks with their pieces; unmapped chunks in a row are one part with none."""
        hole: ChunkPart | None = None
        missing = self._store.missing
        for part in self.parts(block, count):
            data_zone, buffer_zone = self._store.zones_of(part.chunk)
            if data_zone == UNMAPPED and (missing is None or not missing.is_unknown(part.chunk)):
                first = hole or part
                hole = ChunkPart(first.chunk, first.offset, part.block + part.count - first.block, first.block)
                continue
            if hole is not None:
                yield hole, []
                hole = None
            if data_zone == UNMAPPED:
                yield part, [(0, part.count, _UNKNOWN)]
            else:
                yield part, self._pieces(part, data_zone, buffer_zone)
        if hole is not None:
            yield hole, []

    def _pieces(self, part: ChunkPart, data_zone: int, buffer_zone: int) -> list[Piece]:
        """Runs of equally labelled blocks of a part."""
        kind = self._uniform(data_zone, buffer_zone, part.offset, part.count)
        if kind is not None:
            return [(0, part.count, kind)]
        labels = self.labels(data_zone, buffer_zone, part.offset, part.count)
        edges = value_runs(labels)
        kinds = labels[edges[:, 0]].tolist()
        return [(start, end, kind) for (start, end), kind in zip(edges.tolist(), kinds, strict=True)]

    def _why_unmapped(self, part: ChunkPart) -> str:
        last = (part.offset + part.count - 1) // self._zone_blocks + part.chunk
        if last == part.chunk:
            return f"chunk {part.chunk} is not mapped"
        return f"chunks {part.chunk} to {last} are not mapped"

    def _why_unknown(self, part: ChunkPart) -> str:
        missing, (data_zone, buffer_zone) = self._store.missing, self._store.zones_of(part.chunk)
        assert missing is not None
        if data_zone == UNMAPPED:
            return f"chunk {part.chunk}, lost: {missing.why_chunk(part.chunk)}"
        zone = data_zone if data_zone in missing else buffer_zone
        return f"chunk {part.chunk}, lost: {missing.why_zone(zone)}"

    def _extents(self, part: ChunkPart, pieces: list[Piece]) -> Iterator[MapExtent]:
        data_zone, buffer_zone = self._store.zones_of(part.chunk)
        name, commit = f"chunk {part.chunk}, zone {data_zone}", f"generation {self._store.generation}"
        lost, lost_zone = f"buffer zone {buffer_zone}", buffer_zone
        if data_zone >= self._nr_zones:
            lost, lost_zone = "the zone", data_zone
        # Lost blocks have the place that the mapping table claims: who takes them for holes would lose them silently.
        zones = {_DATA: data_zone, _BUFFER: buffer_zone, _LOST: lost_zone}
        why = {
            _HOLE: f"{name}, not valid, {commit}",
            _DATA: f"{name}, {commit}",
            _BUFFER: f"{name} (buffer zone {buffer_zone}), {commit}",
            _LOST: f"{name}, not readable: {lost} is not on the device, {commit}",
        }
        places: dict[int, tuple[int, int]] = {}
        for start, end, kind in pieces:
            if kind == _HOLE:
                yield MapExtent(part.block + start, end - start, 0, None, why[kind])
                continue
            if kind == _UNKNOWN:
                # Behind the end of the device, as what is on no device: it is no hole, and nobody can read it.
                yield MapExtent(part.block + start, end - start, 0, self._disk.size_blocks, self._why_unknown(part))
                continue
            if kind not in places:
                places[kind] = self._disk.place(zones[kind], part.offset)
            device, physical = places[kind]
            yield MapExtent(part.block + start, end - start, device, physical + start, why[kind])


def _zero(view: memoryview) -> None:
    np.frombuffer(view, np.uint8)[:] = 0
