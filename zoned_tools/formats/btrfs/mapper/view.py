"""One device of a file system as a regular device: what a zoned drive shows, without rings, with the regular places.

A raw copy with the newest good super block also at the regular places is a file system for every kernel and tool. The
rings are left out: a slot of a ring lies at a regular place, and would be mounted (btrfs-zoned.md 11).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, MapExtent
from zoned_tools.formats.shared.losses import REASONS, Loss, Losses
from zoned_tools.formats.shared.mapper import MapperBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray

_BLOCK = LOGICAL_BLOCK_BYTES


def without(rows: IntArray, holes: Iterable[tuple[int, int]]) -> IntArray:
    """Ascending ``(start, end)`` rows, shape (n, 2), that do not overlap, without what lies in the holes."""
    cut = np.array(sorted(hole for hole in holes if hole[0] < hole[1]), np.int64).reshape(-1, 2)
    if not len(cut) or not len(rows):
        return rows
    starts = np.concatenate((np.zeros(1, np.int64), np.maximum.accumulate(cut[:, 1])))
    ends = np.append(cut[:, 0], max(int(rows[-1, 1]), int(cut[-1, 0])))
    first = np.searchsorted(ends, rows[:, 0], side="right")
    last = np.searchsorted(starts, rows[:, 1], side="left")
    counts = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(rows)), counts)
    gap = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    left: IntArray = np.column_stack((np.maximum(rows[row, 0], starts[gap]), np.minimum(rows[row, 1], ends[gap])))
    return left[left[:, 0] < left[:, 1]]


class CopyView(MapperBase):
    """A device as it is exported and served, read-only.

    Args:
        index: of the device among those of the target.
        start_bytes: where the file system begins on the device.
        rows: ``(start, end)`` in bytes of the device, shape (n, 2), ascending: what is shown as it is.
        placed: byte of the file system's device -> the super block shown there.
        warnings: what is to be said before it is read.
    """

    def __init__(
        self,
        device: Device,
        index: int,
        start_bytes: int,
        rows: IntArray,
        placed: Mapping[int, bytes],
        warnings: Sequence[str] = (),
    ) -> None:
        size_blocks = (device.geometry.size_bytes - start_bytes) // _BLOCK
        super().__init__(device.path, size_blocks, writable=False)
        self.warnings = tuple(warnings)
        self._device = device
        self._index = index
        self._start_bytes = start_bytes
        self._placed = {start_bytes + at: block for at, block in sorted(placed.items())}
        self._rows = without(rows, [(at, at + len(block)) for at, block in self._placed.items()])

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range of the device that are shown as they are."""
        first = int(np.searchsorted(self._rows[:, 1], start, side="right"))
        last = int(np.searchsorted(self._rows[:, 0], end, side="left"))
        for row in range(first, last):
            yield max(int(self._rows[row, 0]), start), min(int(self._rows[row, 1]), end)

    def _placed_in(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        yield from ((at, at + len(block)) for at, block in self._placed.items() if at < end and at + len(block) > start)

    def read_blocks_into(self, block: int, buffer: memoryview) -> None:
        start = self._start_bytes + block * _BLOCK
        end = start + len(buffer)
        at = start
        for first, last in self._parts(start, end):
            buffer[at - start : first - start] = bytes(first - at)
            self._device.read_into(first, buffer[first - start : last - start])
            at = last
        buffer[at - start :] = bytes(end - at)
        for first, last in self._placed_in(start, end):  # whole blocks both
            buffer[first - start : last - start] = self._placed[first]

    def lookup_blocks(self, block: int, count: int) -> Iterator[MapExtent]:
        at, end = block, block + count
        for first, last, why in self._stored(block, end):
            start = max(first, at)
            if start >= last:
                continue
            if at < start:
                yield MapExtent(at, start - at, self._index, None, "not shown")
            yield MapExtent(start, last - start, self._index, self._start_bytes // _BLOCK + start, why)
            at = last
        if at < end:
            yield MapExtent(at, end - at, self._index, None, "not shown")

    def _stored(self, block: int, end: int) -> Iterator[tuple[int, int, str]]:
        """``(first block, end, why)`` of what may hold other bytes than zeroes, or cannot be read, by first block."""
        start_bytes, end_bytes = self._start_bytes + block * _BLOCK, self._start_bytes + end * _BLOCK
        streams = [
            ((a, b, "super block") for a, b in self._placed_in(start_bytes, end_bytes)),
            ((a, b, "as it is") for a, b in self._data(start_bytes, end_bytes)),
            ((a, b, "unreadable") for a, b, _ in self._bad(start_bytes, end_bytes)),
        ]
        for first, last, why in heapq.merge(*streams):
            yield (first - self._start_bytes) // _BLOCK, -(-(last - self._start_bytes) // _BLOCK), why

    def _data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for first, last in self._parts(start, end):
            for offset, length in self._device.data_extents(first, last - first):
                yield offset, offset + length

    def _bad(self, start: int, end: int) -> Iterator[tuple[int, int, str]]:
        for first, last in self._parts(start, end):
            yield from known_bad_areas(self._device, first, last - first)

    def losses(self) -> Losses:
        """What of the shown is known to be unreadable."""
        whole = (self._start_bytes, self._start_bytes + self.size_blocks * _BLOCK)
        rows = [
            Loss(start - self._start_bytes, end - start, status, REASONS[status])
            for start, end, status in self._bad(*whole)
        ]
        return Losses(payload=rows)
