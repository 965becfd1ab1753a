"""Sets of ranges: pages that are zeroes, bytes that a later step changes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ranges:
    """A set of integers, kept as ranges that are sorted and do not touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Put ``start`` to ``end`` (not included) into the set."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number < self._ends[index]

    def parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """``(start, end)`` of the parts of a range that are in the set."""
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                return
            yield max(start, self._starts[index]), min(end, self._ends[index])

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """``(start, end)`` of the parts of a range that are not in the set."""
        at = start
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            if at < self._starts[index]:
                yield at, self._starts[index]
            at = self._ends[index]
        if at < end:
            yield at, end
