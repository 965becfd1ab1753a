"""The logical map: discard extents over the map cache over the forward table."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.judge import Candidate
    from zoned_tools.formats.zdm.losses import LostPages
    from zoned_tools.formats.zdm.pages import PageStore

Run: TypeAlias = tuple[int, int, int, int]
"""Logical block, blocks, physical block or :data:`UNMAPPED`, and where the answer came from."""

UNMAPPED = -1
"""Physical block of a logical block that reads as zeroes; :data:`~.losses.UNKNOWN` is that of one that is lost."""

_SMALL_RANGE = 16 * layout.PAGE_ENTRIES

FROM_NOTHING, FROM_TABLE, FROM_CACHE, FROM_DISCARD = range(4)
"""Where the answer for a block came from."""


class CacheView(Protocol):
    """What the map cache says about logical blocks; physical 0 stands for unmapped."""

    def overlay(self, first: int, physical: IntArray, source: IntArray) -> None: ...

    def touches(self, first: int, end: int) -> bool: ...


class ExtentCache:
    """Read-only cache of the dialects that store extents; rows ``(logical, blocks, physical)``."""

    def __init__(self, rows: IntArray) -> None:
        self._rows = rows[np.argsort(rows[:, 0], kind="stable")]
        self._longest = int(rows[:, 1].max(initial=0))

    def _between(self, first: int, end: int) -> IntArray:
        low, high = np.searchsorted(self._rows[:, 0], [first - self._longest, end])
        return self._rows[low:high]

    def touches(self, first: int, end: int) -> bool:
        rows = self._between(first, end)
        return bool((rows[:, 0] + rows[:, 1] > first).any())

    def overlay(self, first: int, physical: IntArray, source: IntArray) -> None:
        for start, blocks, target in self._between(first, first + len(physical)).tolist():
            low, high = max(start - first, 0), min(start + blocks - first, len(physical))
            if low < high:
                shift = target + (first + low - start)
                physical[low:high] = np.arange(shift, shift + high - low) if target else UNMAPPED
                source[low:high] = FROM_CACHE


class MapCache:
    """The map cache of a mapper that writes: one entry a block.

    Iterating gives logical blocks; :meth:`arrays` everything, sorted.
    """

    def __init__(self, logical: Iterable[int] = (), physical: Iterable[int] = ()) -> None:
        self._entries = dict(zip(logical, physical, strict=True))
        self._sorted: tuple[IntArray, IntArray] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, logical: Iterable[int], physical: Iterable[int]) -> None:
        """Map each of some blocks to one."""
        self._entries.update(zip(logical, physical, strict=True))
        self._sorted = None

    def drop(self, logical: Iterable[int]) -> None:
        for block in logical:
            self._entries.pop(block, None)
        self._sorted = None

    def within(self, first: int, end: int) -> list[tuple[int, int]]:
        """Entries of a range of logical blocks."""
        if end - first <= len(self._entries):
            return [(b, self._entries[b]) for b in range(first, end) if b in self._entries]
        keys, values = self.arrays()
        low, high = np.searchsorted(keys, [first, end])
        return list(zip(keys[low:high].tolist(), values[low:high].tolist(), strict=True))

    def arrays(self) -> tuple[IntArray, IntArray]:
        """Logical blocks, ascending, and the physical block of each."""
        if self._sorted is None:
            keys = np.fromiter(self._entries.keys(), np.int64, len(self._entries))
            values = np.fromiter(self._entries.values(), np.int64, len(self._entries))
            order = np.argsort(keys)
            self._sorted = keys[order], values[order]
        return self._sorted

    def touches(self, first: int, end: int) -> bool:
        return bool(self.within(first, end)) if end - first <= 4096 else self._touches_sorted(first, end)

    def _touches_sorted(self, first: int, end: int) -> bool:
        low, high = np.searchsorted(self.arrays()[0], [first, end])
        return bool(high > low)

    def overlay(self, first: int, physical: IntArray, source: IntArray) -> None:
        for block, target in self.within(first, first + len(physical)):
            physical[block - first] = target or UNMAPPED
            source[block - first] = FROM_CACHE


class DiscardExtents:
    """Disjoint, ascending ranges of discarded logical blocks."""

    def __init__(self, extents: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, count in extents:
            self.add(start, count)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """``(first block, blocks)``."""
        return ((s, e - s) for s, e in zip(self._starts, self._ends, strict=True))

    def add(self, start: int, count: int) -> None:
        """Add a range, joined with those that it overlaps or touches."""
        end = start + count
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def remove(self, start: int, count: int) -> None:
        """Take a range out, splitting what it lies in."""
        end = start + count
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if low >= high:
            return
        first, last = self._starts[low], self._ends[high - 1]
        kept = [(first, start)] if first < start else []
        kept += [(end, last)] if end < last else []
        self._starts[low:high] = [s for s, _ in kept]
        self._ends[low:high] = [e for _, e in kept]

    def within(self, first: int, end: int) -> list[tuple[int, int]]:
        """Parts of the extents inside a range, as ``(start, end)``."""
        low, high = bisect_right(self._ends, first), bisect_left(self._starts, end)
        return [(max(self._starts[i], first), min(self._ends[i], end)) for i in range(low, high)]

    def touches(self, first: int, end: int) -> bool:
        return bisect_right(self._ends, first) < bisect_left(self._starts, end)

    def overlay(self, first: int, physical: IntArray, source: IntArray) -> None:
        for start, end in self.within(first, first + len(physical)):
            physical[start - first : end - first] = UNMAPPED
            source[start - first : end - first] = FROM_DISCARD

    def mask_of(self, blocks: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of ``blocks`` are discarded."""
        if not self._starts:
            return np.zeros(len(blocks), np.bool_)
        starts, ends = np.array(self._starts), np.array(self._ends)
        index = np.searchsorted(starts, blocks, "right") - 1
        found = (index >= 0) & (blocks < ends[np.maximum(index, 0)])
        return np.asarray(found, np.bool_)


class LogicalMap:
    """Resolves logical blocks: unmapped inside a discard extent, else the cache's word, else the table's.

    Args:
        recover: what is known of forward pages that cannot be read; asked for each once.
    """

    def __init__(
        self, pages: PageStore, cache: CacheView, discards: DiscardExtents, recover: Callable[[IntArray], LostPages]
    ) -> None:
        self.pages = pages
        self.cache = cache
        self.discards = discards
        geometry = pages.tables.geometry
        # Entry 0 of the forward table is the table address ``table_base``.
        self._first_entry = geometry.data_start - geometry.table_base
        self._nr_entries = geometry.map_count * layout.PAGE_ENTRIES
        self._lost = recover

    def resolve(self, first: int, count: int) -> tuple[IntArray, IntArray]:
        """Physical block (or :data:`UNMAPPED`) and source of ``count`` consecutive logical blocks."""
        entry = first + self._first_entry
        inside = max(min(count, self._nr_entries - entry), 0)
        physical = np.full(count, UNMAPPED, np.int64)
        if inside:
            found = self.pages.entries(Direction.FORWARD, entry, inside).astype(np.int64)
            physical[:inside] = np.where(found >= layout.UNMAPPED_ALTERNATIVE, UNMAPPED, found)
            self._put_lost(entry, physical[:inside])
        source = np.where(physical == UNMAPPED, FROM_NOTHING, FROM_TABLE).astype(np.int64)
        self.cache.overlay(first, physical, source)
        self.discards.overlay(first, physical, source)
        return physical, source

    def _put_lost(self, first_entry: int, physical: IntArray) -> None:
        """What is known of pages that cannot be read, instead of what they seem to hold."""
        tables = self.pages.tables
        if not tables.volume.unread:
            return
        low, high = first_entry // layout.PAGE_ENTRIES, -(-(first_entry + len(physical)) // layout.PAGE_ENTRIES)
        pages = tables.unread_pages(tables.start(Direction.FORWARD) + low, high - low) + low
        if len(pages):
            self._lost(pages).overlay(first_entry, physical)

    def runs(self, first: int, count: int, step: int = 1 << 20) -> Iterator[Run]:
        """``(logical, blocks, physical or UNMAPPED, source)`` of a range, ascending and without gaps.

        Physically consecutive blocks from one source are one run; so are unmapped ones.
        """
        pending: Run | None = None
        for at in range(first, first + count, step):
            blocks = min(step, first + count - at)
            if blocks > _SMALL_RANGE and self._is_unused(at, blocks):
                found = [(at, blocks, UNMAPPED, FROM_NOTHING)]
            else:
                found = self._runs_of_step(at, blocks)
            if pending is not None and _continues(pending, found[0]):
                found[0] = (pending[0], pending[1] + found[0][1], pending[2], pending[3])
            elif pending is not None:
                yield pending
            pending = found.pop()
            yield from found
        if pending is not None:
            yield pending

    def _is_unused(self, first: int, count: int) -> bool:
        """Whether a range was certainly never written."""
        if self.cache.touches(first, first + count) or self.discards.touches(first, first + count):
            return False
        entry = first + self._first_entry
        inside = min(count, self._nr_entries - entry)
        return inside <= 0 or self.pages.is_empty(Direction.FORWARD, entry, inside)

    def _runs_of_step(self, first: int, count: int) -> list[Run]:
        physical, source = self.resolve(first, count)
        mapped = physical >= 0
        follows = np.where(mapped[1:], physical[1:] == physical[:-1] + 1, physical[1:] == physical[:-1])
        follows &= (mapped[1:] == mapped[:-1]) & (source[1:] == source[:-1])
        starts = np.concatenate(([0], np.flatnonzero(~follows) + 1))
        columns = (starts + first, np.diff(starts, append=count), physical[starts], source[starts])
        return list(zip(*(column.tolist() for column in columns), strict=True))


def _continues(run: Run, following: Run) -> bool:
    if run[3] != following[3]:
        return False
    if run[2] < 0 or following[2] < 0:
        return run[2] == following[2]
    return run[2] + run[1] == following[2]


def discards_of(candidate: Candidate | None, data_start: int) -> DiscardExtents:
    """Discard extents of a generation as ranges of logical blocks; impossible ones are left out."""
    if candidate is None:
        return DiscardExtents()
    rows = candidate.discards
    return DiscardExtents((int(t) - data_start, int(n)) for t, n, _ in rows.tolist() if t >= data_start and n > 0)


def cache_of(candidate: Candidate | None, data_start: int) -> MapCache:
    """Cache entries of a generation by logical block; the last of several for one block counts."""
    if candidate is None:
        return MapCache()
    rows = candidate.cache[candidate.cache[:, 0] >= data_start]
    return MapCache((rows[:, 0] - data_start).tolist(), rows[:, 2].tolist())
