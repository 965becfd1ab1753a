"""Entries, extents, and the bitmap in memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.inplace_compress.images import (
    new_volume,
)
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.entries import (
    extent_entries,
    fill_extents,
    pack_entries,
    swap_words,
    unpack_entries,
)
from zoned_tools.formats.inplace_compress.extents import join, scan
from zoned_tools.formats.inplace_compress.open import open_volume


@given(st.lists(st.integers(0, 31), min_size=1, max_size=30).map(lambda e: (e * 8)[: len(e) // 8 * 8 or 8]))
def test_entries_are_five_bits_from_the_least_significant_on(entries: list[int]) -> None:
    entries = (entries * 8)[: max(8, len(entries) // 8 * 8)]
    number = sum(entry << (5 * i) for i, entry in enumerate(entries))
    raw = number.to_bytes(len(entries) * 5 // 8, "little")
    assert pack_entries(np.array(entries, np.uint8)) == raw
    assert unpack_entries(raw).tolist() == entries


def test_the_published_example() -> None:
    raw = bytes.fromhex("61208c220a011a88a681")
    assert unpack_entries(raw).tolist()[:14] == [1, 3, 8, 24, 8, 17, 8, 1, 1, 16, 6, 16, 8, 19]
    assert swap_words(swap_words(raw[:8])) == raw[:8]


def plain_scan(entries: list[int]) -> list[tuple[int, int, int, bool, bool]]:
    """Extents entry by entry: head, blocks, payload, bad nibble, uneven."""
    rows = []
    heads = [i for i, e in enumerate(entries) if i == 0 or not e & 16]
    for head, end in itertools.pairwise([*heads, len(entries)]):
        nibbles = [e & 15 for e in entries[head:end]]
        greedy = [max(0, min(8, sum(nibbles) - 8 * i)) for i in range(len(nibbles))]
        if sum(nibbles) or len(nibbles) > 1:
            bad = any(n > 8 for n in nibbles)
            rows.append((head, end - head, sum(nibbles), bad, not bad and nibbles != greedy))
    return rows


@settings(max_examples=300)
@given(st.lists(st.sampled_from([0, 1, 8, 16, 17, 24, 25, 31, 3, 19]), min_size=1, max_size=90), st.integers(1, 40))
def test_extents_do_not_depend_on_chunks(entries: list[int], step: int) -> None:
    array = np.array(entries, np.uint8)
    found = join(list(scan((at, array[at : at + step]) for at in range(0, len(entries), step))))
    uneven = found.uneven & ~found.bad_nibble
    columns = (a.tolist() for a in (found.head, found.blocks, found.payload, found.bad_nibble, uneven))
    wanted = plain_scan(entries)
    assert list(zip(*columns, strict=True)) == wanted
    assert found.holes == len(entries) - sum(blocks for _, blocks, *_ in wanted)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 72)), max_size=20))
def test_filling_extents(rows: list[tuple[int, int]]) -> None:
    rows = [(blocks, min(payload, 8 * blocks)) for blocks, payload in rows]
    blocks = np.array([r[0] for r in rows], np.int64)
    heads = np.cumsum(blocks) - blocks + 5
    entries = fill_extents(heads, blocks, np.array([r[1] for r in rows], np.int64), 200, origin=5)
    pieces = [extent_entries(*row) for row in rows]
    assert entries.tolist() == (np.concatenate(pieces).tolist() if pieces else []) + [0] * (200 - int(blocks.sum()))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 69_000), st.integers(1, 900), st.integers(1, 8)), max_size=12), st.booleans())
def test_bitmap_in_memory(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int]], big: bool
) -> None:
    device = new_volume(tmp_path_factory.mktemp("bitmap"), 290 << 20, Compressor.LZO)
    volume = open_volume(device)
    volume = volume.other_byte_order() if big else volume
    bitmap, model = Bitmap(volume), np.zeros(volume.data_blocks, np.uint8)
    for first, blocks, payload in changes:
        bitmap.put(first, extent_entries(blocks, payload))
        model[first : first + blocks] = extent_entries(blocks, payload)
    for first, last in bitmap.dirty_writes():
        device.write(*bitmap.page_write(first, last))
    bitmap.written(set(bitmap.dirty_pages))
    assert volume.read_entries(0, volume.data_blocks).tolist() == model.tolist()
    for first, _, _ in changes:
        heads = np.flatnonzero((model[: first + 1] & 16) == 0)
        ends = np.flatnonzero((model[first + 1 :] & 16) == 0)
        assert bitmap.head_of(first) == heads[-1]
        assert bitmap.end_of(first) == (first + 1 + ends[0] if len(ends) else volume.data_blocks)
