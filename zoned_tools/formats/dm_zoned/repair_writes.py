"""Steps that bring the tables of a metadata set from what is on the device to what they should be.

Both sets are compared with the wanted content while its bitmaps stream by, so only blocks
that differ are written. Long runs of zeroes or ones, and what the other set is to get from
the source unchanged, cost no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoned_tools.device.plan import Copy, Fill, Step, Write
from zoned_tools.device.zones import BoolArray, IntArray
from zoned_tools.formats.dm_zoned.examine import WORD_BITS, take_beyond
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, MapArray, MetadataLayout
from zoned_tools.formats.dm_zoned.metadata import (
    TargetBlocks,
    Words,
    bitmap_words,
    read_bitmap,
    read_map,
    stream_bitmaps,
    stream_zones,
)
from zoned_tools.formats.dm_zoned.repair_map import BitmapEdits
from zoned_tools.formats.dm_zoned.superblock_plan import SET_NAMES

_BLOCK_WORDS = BLOCK_BYTES // 8
_LONG_RUN_BLOCKS = 64
"""Runs of zeroes or ones, or of blocks to copy, become one step when they are at least this long."""
_MAX_GAP_BLOCKS = 15
"""Blocks that need no change are written along when they separate two that do."""

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIXED, _ZERO, _ONE, _COPY = 0, 1, 2, 3


def table_steps(
    blocks: TargetBlocks, layout: MetadataLayout, source: int, table: MapArray, edits: BitmapEdits
) -> list[list[Step]]:
    """Steps for set 0 and set 1 to get mapping table ``table`` and the edited bitmaps of set ``source``.

    Those of the other set copy from the source, so they have to run before the source's.
    """
    steps: list[list[Step]] = [[], []]
    wanted, kept = as_blocks(table), as_blocks(read_map(blocks, layout, source))
    for number in range(NR_SETS):
        actual = kept if number == source else as_blocks(read_map(blocks, layout, number))
        origin = Origin(layout.map_block(source), kept) if number != source else None
        note = f"{SET_NAMES[number]} mapping table"
        steps[number] += difference_steps(blocks, layout.map_block(number), wanted, actual, note, origin)
    other = bitmap_words(layout, min(stream_zones(layout), layout.nr_zones))
    original = other.copy()
    for zone, words in stream_bitmaps(blocks, layout, source):
        before = original[: len(words)]
        before[...] = words
        _edit(blocks, layout, source, zone, words, edits)
        for number in range(NR_SETS):
            actual_words = before
            if number != source:
                actual_words = other[: len(words)]
                blocks.read_into(layout.bitmap_block(number, zone), actual_words.data.cast("B"))
            block = layout.bitmap_block(number, zone)
            note = f"{SET_NAMES[number]} bitmap blocks"
            origin = Origin(layout.bitmap_block(source, zone), as_blocks(before)) if number != source else None
            steps[number] += difference_steps(blocks, block, as_blocks(words), as_blocks(actual_words), note, origin)
    return steps


@dataclass(frozen=True, slots=True)
class Origin:
    """Content, as blocks, that is on the same device from absolute block ``block`` on."""

    block: int
    rows: npt.NDArray[np.uint64]


def as_blocks(array: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint64]:
    """Rows of one block each."""
    return array.reshape(-1).view("<u8").reshape(-1, _BLOCK_WORDS)


def _edit(
    blocks: TargetBlocks, layout: MetadataLayout, source: int, first_zone: int, words: Words, edits: BitmapEdits
) -> None:
    """Apply ``edits`` to the bitmaps of the zones from ``first_zone`` on, in place."""
    zones = range(first_zone, first_zone + len(words))
    part = slice(zones.start, zones.stop)
    take_beyond(words, layout.zone_blocks)
    words[edits.clear[part]] = 0
    for row in np.flatnonzero(edits.cut[part]).tolist():
        _keep_below(words[row], int(blocks.geometry.wp_blocks[first_zone + row]))
    for zone, origin in edits.merge.items():
        if zone in zones:
            moved = read_bitmap(blocks, layout, source, origin)
            _keep_below(moved, layout.zone_blocks)
            words[zone - first_zone] |= moved
    for zone, (winner, wp) in edits.subtract.items():
        if zone in zones:
            won = read_bitmap(blocks, layout, source, winner)
            _keep_below(won, wp)
            words[zone - first_zone] &= ~won


def _keep_below(words: Words, count: int) -> None:
    """Clear the bits of one zone's bitmap from block ``count`` on."""
    whole, rest = divmod(count, WORD_BITS)
    if whole < len(words):
        words[whole] &= np.uint64((1 << rest) - 1)
        words[whole + 1 :] = 0


def difference_steps(
    blocks: TargetBlocks,
    block: int,
    wanted: npt.NDArray[np.uint64],
    actual: npt.NDArray[np.uint64],
    note: str,
    origin: Origin | None = None,
) -> Iterator[Step]:
    """Steps that turn ``actual``, the content from absolute block ``block`` on, into ``wanted``.

    Blocks that ``origin`` has at the same row are copied from there where that saves memory.
    """
    if np.array_equal(wanted, actual):
        return
    device, offset_bytes = blocks.geometry.locate(block)
    source_bytes = blocks.geometry.locate(origin.block)[1] if origin is not None else 0
    same = (wanted == origin.rows).all(axis=1) if origin is not None else np.zeros(len(wanted), np.bool_)
    changed = np.flatnonzero((wanted != actual).any(axis=1))
    breaks = np.flatnonzero(np.diff(changed) > _MAX_GAP_BLOCKS + 1)
    starts = changed[np.concatenate(([0], breaks + 1))]
    ends = changed[np.concatenate((breaks, [len(changed) - 1]))] + 1
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for first, last, kind in _kinds(wanted[start:end], same[start:end]):
            skip, length = (start + first) * BLOCK_BYTES, (last - first) * BLOCK_BYTES
            if kind == _MIXED:
                yield Write(device, offset_bytes + skip, wanted[start + first : start + last].tobytes(), note)
            elif kind == _COPY:
                yield Copy(device, source_bytes + skip, offset_bytes + skip, length, note)
            else:
                yield Fill(device, offset_bytes + skip, length, 0xFFFF if kind == _ONE else 0, note)


def _kinds(rows: npt.NDArray[np.uint64], same: BoolArray) -> Iterator[tuple[int, int, int]]:
    """``(first, end, kind)`` of runs of blocks; ``same`` are those that can be copied."""
    kinds = np.where((rows == 0).all(axis=1), _ZERO, np.where((rows == _ONES).all(axis=1), _ONE, _MIXED))
    kinds = np.where(same & _is_short(kinds), _COPY, kinds)
    kinds[_is_short(kinds)] = _MIXED
    edges = _run_edges(kinds)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield start, end, int(kinds[start])


def _run_edges(kinds: IntArray) -> IntArray:
    return np.concatenate(([0], np.flatnonzero(np.diff(kinds)) + 1, [len(kinds)]))


def _is_short(kinds: IntArray) -> BoolArray:
    """Mask of the blocks that are not in a long run of one kind; mixed blocks never are."""
    lengths = np.diff(_run_edges(kinds))
    short: BoolArray = np.repeat(lengths < _LONG_RUN_BLOCKS, lengths) | (kinds == _MIXED)
    return short
