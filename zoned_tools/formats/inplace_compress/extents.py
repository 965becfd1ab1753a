"""From entries to extents, chunk by chunk and without a loop over blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress.entries import is_unknown, starts_unknown
from zoned_tools.formats.inplace_compress.layout import BLOCK_SECTORS, NIBBLE, TAIL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.formats.inplace_compress.entries import Array


class Ranges:
    """Ranges of blocks ``(first, end)`` in any order, some of which may overlap each other; none is empty."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        rows = np.array(sorted(pairs), np.int64).reshape(-1, 2)
        self._first, self._furthest = rows[:, 0], np.maximum.accumulate(rows[:, 1])

    def overlap(self, first: Array, end: Array) -> Array:
        """For each range ``first`` to ``end`` whether it overlaps one of these (bool)."""
        if not len(self._first):
            return np.zeros(len(first), bool)
        before = np.searchsorted(self._first, end) - 1  # the last range that begins in front of the end
        return np.asarray((before >= 0) & (self._furthest[before] > first))


@dataclass(frozen=True, slots=True)
class Extents:
    """Extents in ascending order; arrays of one length.

    Holes of a single block (nothing wrong, nothing stored) are left out and counted.

    Attributes:
        head: first block (int64).
        blocks: length ``L`` (int64).
        payload: sectors of payload ``P``, the sum of the entries' nibbles (int64).
        bad_nibble: a nibble is above 8.
        uneven: the nibbles are not the greedy filling of ``P``.
        unknown: entries that cannot be read, and what cannot be told without them: tails behind them, and in front
            of them an extent without a stream, which may go on. ``bad_nibble`` too.
        cut: the entry behind the extent cannot be read; it ends there only if its stream decodes to just that.
        holes: single-block holes in the range.
    """

    head: Array
    blocks: Array
    payload: Array
    bad_nibble: Array
    uneven: Array
    unknown: Array
    cut: Array
    holes: int = 0

    def __len__(self) -> int:
        return len(self.head)

    def select(self, wanted: Array) -> Extents:
        """The extents at the indexes, or where the mask, ``wanted``."""
        return Extents(
            self.head[wanted], self.blocks[wanted], self.payload[wanted], self.bad_nibble[wanted], self.uneven[wanted],
            self.unknown[wanted], self.cut[wanted],
        )  # fmt: skip

    def touching(self, ranges: Ranges) -> Array:
        """Mask of the extents that overlap one of ``ranges``."""
        return ranges.overlap(self.head, self.head + self.blocks)

    @property
    def with_payload(self) -> Extents:
        """Those whose entries are possible and speak of a payload."""
        return self.select((self.payload > 0) & ~self.bad_nibble)

    @property
    def is_raw(self) -> Array:
        """Mask of the extents whose payload is their content."""
        return np.asarray(~self.bad_nibble & (self.payload == BLOCK_SECTORS * self.blocks) & (self.payload > 0))

    @property
    def is_compressed(self) -> Array:
        """Mask of the extents whose payload is a stream with a tag."""
        return np.asarray(~self.bad_nibble & (self.payload > 0) & (self.payload < BLOCK_SECTORS * self.blocks))


@dataclass(slots=True)
class _Open:
    """The extent whose end is not known yet; before its head every nibble may follow."""

    head: int
    blocks: int = 0
    payload: int = 0
    bad_nibble: bool = False
    uneven: bool = False
    unknown: bool = False
    last_nibble: int = BLOCK_SECTORS

    def extend(self, entries: Array) -> None:
        """Take in further tails, or at first the head too."""
        if not len(entries):
            return
        self.unknown |= starts_unknown(entries)
        nibbles = entries & NIBBLE
        before = np.concatenate(([self.last_nibble], nibbles[:-1]))
        self.uneven |= bool(((nibbles > 0) & (before != BLOCK_SECTORS)).any())
        self.blocks += len(nibbles)
        self.payload += int(nibbles.sum(dtype=np.int64))
        self.bad_nibble |= bool((nibbles > BLOCK_SECTORS).any())
        self.last_nibble = int(nibbles[-1])

    @property
    def is_hole(self) -> bool:
        return self.blocks == 1 and self.payload == 0


def _closed(extent: _Open, *, cut: bool) -> Extents:
    return _settled(
        np.array([extent.head]),
        np.array([extent.blocks]),
        np.array([extent.payload]),
        np.array([extent.bad_nibble]),
        np.array([extent.uneven]),
        np.array([extent.unknown]),
        np.array([cut]),
    )


def _settled(
    head: Array, blocks: Array, payload: Array, bad_nibble: Array, uneven: Array, unknown: Array, cut: Array,
    holes: int = 0,
) -> Extents:  # fmt: skip
    """Extents of which those that cannot be told apart from the beginning of a longer one are unknown."""
    if cut.any():
        unknown = unknown | (cut & (payload == BLOCK_SECTORS * blocks))
    return Extents(
        head, blocks, payload, bad_nibble | unknown, uneven & ~unknown, unknown, cut & ~unknown & ~bad_nibble, holes
    )


def _inner(entries: Array, nibbles: Array, heads: Array, start: int) -> Extents:
    """All extents of a chunk but the last, from positions of the heads."""
    first, last = int(heads[0]), int(heads[-1])
    bodies = heads[:-1]
    blocks = np.diff(heads)
    payload = np.add.reduceat(nibbles[:last], bodies, dtype=np.int64) if len(bodies) else np.empty(0, np.int64)
    inside = nibbles[first:last]
    bad = np.zeros(len(bodies), bool)
    wrong = np.flatnonzero(inside > BLOCK_SECTORS)
    bad[np.searchsorted(bodies, wrong + first, "right") - 1] = True
    uneven = np.zeros(len(bodies), bool)
    borrowed = (entries[first + 1 : last] > TAIL) & (inside[:-1] != BLOCK_SECTORS)
    wrong = np.flatnonzero(borrowed) + 1
    uneven[np.searchsorted(bodies, wrong + first, "right") - 1] = True
    unknown = is_unknown(entries[heads])
    keep = (payload > 0) | (blocks > 1)
    return _settled(
        (bodies + start)[keep], blocks[keep], payload[keep], bad[keep], uneven[keep],
        unknown[:-1][keep], unknown[1:][keep], len(bodies) - int(keep.sum()),
    )  # fmt: skip


def join(parts: Sequence[Extents]) -> Extents:
    """Batches one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Extents(
        np.concatenate([p.head for p in parts]),
        np.concatenate([p.blocks for p in parts]),
        np.concatenate([p.payload for p in parts]),
        np.concatenate([p.bad_nibble for p in parts]),
        np.concatenate([p.uneven for p in parts]),
        np.concatenate([p.unknown for p in parts]),
        np.concatenate([p.cut for p in parts]),
        sum(p.holes for p in parts),
    )


def _nothing(holes: int = 0) -> Extents:
    numbers, flags = np.empty(0, np.int64), np.empty(0, bool)
    return Extents(numbers, numbers, numbers, flags, flags, flags, flags, holes)


def scan(chunks: Iterable[tuple[int, Array]]) -> Iterator[Extents]:
    """Extents of consecutive chunks of entries ``(first block, entries)``.

    A tail in the very first block is taken for a head. An extent appears in the batch of
    the chunk in which its end is found; extents may have any length.
    """
    extent: _Open | None = None
    for start, entries in chunks:
        if extent is None:
            extent = _Open(start)
            tails = entries & TAIL
            tails[0] = 0
        else:
            tails = entries & TAIL
        parts = [_nothing()]
        nibbles = entries & NIBBLE
        heads = np.flatnonzero(tails == 0)
        if not len(heads):
            extent.extend(entries)
            continue
        first, last = int(heads[0]), int(heads[-1])
        extent.extend(entries[:first])
        if extent.blocks:
            cut = starts_unknown(entries[first:])
            parts.append(_nothing(holes=1) if extent.is_hole else _closed(extent, cut=cut))
        parts.append(_inner(entries, nibbles, heads, start))
        extent = _Open(start + last)
        extent.extend(entries[last:])
        yield join(parts)
    if extent is not None and extent.blocks:
        yield _nothing(holes=1) if extent.is_hole else _closed(extent, cut=False)
