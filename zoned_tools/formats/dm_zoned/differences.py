"""Steps that turn the blocks of a metadata set into wanted ones: only what differs, and small however much that is.

Long runs of zeroes or ones, and what another place has already, become fills and copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from zoned_tools.device.plan import Copy, Fill, Produce, Step, Write
from zoned_tools.device.runs import mask_runs, runs, value_runs
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.open import SetView, TargetBlocks

_BLOCK_WORDS = BLOCK_BYTES // 8
_LONG_RUN_BLOCKS = 64
"""Runs of zeroes or ones, or of blocks to copy, become one step when they are at least this long."""
_MAX_GAP_BLOCKS = 15
"""Blocks that need no change are written along when they separate two that do."""

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIXED, _ZERO, _ONE, _COPY = 0, 1, 2, 3

Blocks: TypeAlias = npt.NDArray[np.uint64]
"""Rows of one block each: shape (blocks, 512)."""
Producer: TypeAlias = Callable[[int, int], Callable[[], bytes]]
"""Given first and end row of some blocks, what makes their content again."""


class Marks(TypedDict):
    """Which of some blocks are written whatever they hold, and which are not at all."""

    forced: BoolArray | None
    barred: BoolArray | None


class Writing:
    """What cannot be read of some sets: it is written where its content is known, and left alone where it is not."""

    def __init__(self, view: SetView, numbers: Sequence[int]) -> None:
        self._layout = view.layout
        self._barred = view.lost
        self._forced: list[BoolArray | None] = [None, None]
        for number in numbers:
            unreadable = view.blocks.unreadable(view.layout, number)
            if unreadable.any():
                self._forced[number] = unreadable

    def map_blocks(self, number: int) -> Marks:
        """About the mapping table of a set."""
        return self._part(number, 0, self._layout.nr_map_blocks)

    def bitmap_blocks(self, number: int, zone: int, zones: int) -> Marks:
        """About the bitmaps of some zones."""
        per_zone = self._layout.bitmap_blocks_per_zone
        return self._part(number, self._layout.nr_map_blocks + zone * per_zone, zones * per_zone)

    def _part(self, number: int, first: int, count: int) -> Marks:
        part = slice(first, first + count)
        forced, barred = self._forced[number], self._barred
        return {
            "forced": forced[part] if forced is not None else None,
            "barred": barred[part] if barred is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Origin:
    """Content, as blocks, that is on the same device from absolute block ``block`` on.

    ``stays`` are the rows that no earlier step of the plan writes; None where none is written.
    """

    block: int
    rows: Blocks
    stays: BoolArray | None = None

    def same(self, wanted: Blocks) -> BoolArray:
        """Rows of ``wanted`` that can be copied from here."""
        same: BoolArray = np.asarray((wanted == self.rows).all(axis=1))
        return same if self.stays is None else same & self.stays


def as_blocks(array: npt.NDArray[np.unsignedinteger]) -> Blocks:
    """Rows of one block each."""
    return array.reshape(-1).view("<u8").reshape(-1, _BLOCK_WORDS)


def difference_steps(
    blocks: TargetBlocks,
    block: int,
    wanted: Blocks,
    actual: Blocks,
    note: str,
    origin: Origin | None = None,
    producer: Producer | None = None,
    *,
    forced: BoolArray | None = None,
    barred: BoolArray | None = None,
) -> Iterator[Step]:
    """Steps that turn ``actual``, the content from absolute block ``block`` on, into ``wanted``.

    Args:
        forced: blocks that are written whatever they hold, because that cannot be read.
        barred: blocks that are not written, because nobody knows what they should hold.

    Blocks that ``origin`` has at the same row are copied from there where that saves memory; what cannot be
    filled or copied is kept in the step, or made again by what ``producer`` gives.
    """
    must = forced is not None and bool(forced.any())
    if not must and np.array_equal(wanted, actual):
        return
    device, offset_bytes = blocks.geometry.locate(block)
    source_bytes = blocks.geometry.locate(origin.block)[1] if origin is not None else 0
    same = origin.same(wanted) if origin is not None else np.zeros(len(wanted), np.bool_)
    changes = (wanted != actual).any(axis=1)
    if forced is not None and must:
        changes |= forced
    if barred is not None:
        changes &= ~barred
    for start, end in _write_runs(changes, barred):
        for first, last, kind in _kinds(wanted[start:end], same[start:end]):
            skip, length = (start + first) * BLOCK_BYTES, (last - first) * BLOCK_BYTES
            at = offset_bytes + skip
            if kind == _COPY:
                yield Copy(device, source_bytes + skip, at, length, note)
            elif kind != _MIXED:
                yield Fill(device, at, length, 0xFFFF if kind == _ONE else 0, note)
            elif producer is not None:
                yield Produce(device, at, length, producer(start + first, start + last), note)
            else:
                yield Write(device, at, wanted[start + first : start + last].tobytes(), note)


def _write_runs(changes: BoolArray, barred: BoolArray | None) -> Iterator[tuple[int, int]]:
    """Runs of blocks that change, with short gaps inside that may be written along."""
    numbers = np.flatnonzero(changes)
    for start, end in runs(numbers, _MAX_GAP_BLOCKS + 1):
        if barred is None or not barred[start:end].any():
            yield start, end
            continue
        for first, last in mask_runs(~barred[start:end]).tolist():
            inside = np.flatnonzero(changes[start + first : start + last])
            if len(inside):
                yield start + first + int(inside[0]), start + first + int(inside[-1]) + 1


def _kinds(rows: Blocks, same: BoolArray) -> Iterator[tuple[int, int, int]]:
    """``(first, end, kind)`` of runs of blocks; ``same`` are those that can be copied."""
    kinds = np.where((rows == 0).all(axis=1), _ZERO, np.where((rows == _ONES).all(axis=1), _ONE, _MIXED))
    kinds = np.where(same & _is_short(kinds), _COPY, kinds)
    kinds[_is_short(kinds)] = _MIXED
    for start, end in value_runs(kinds).tolist():
        yield start, end, int(kinds[start])


def _is_short(kinds: IntArray) -> BoolArray:
    """Mask of the blocks that are not in a long run of one kind; mixed blocks never are."""
    lengths = np.diff(value_runs(kinds), axis=1)[:, 0]
    short: BoolArray = np.repeat(lengths < _LONG_RUN_BLOCKS, lengths) | (kinds == _MIXED)
    return short
