"""Validity bitmaps of single zones, and a cache of them that stays small.

A drive of 57,344 zones has 448 MiB of bitmaps in each set, so they are loaded when they
are needed and forgotten again; only those with changes that no commit has written yet
are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import mask_runs, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zoned_tools.device.zones import BoolArray, IntArray

CLEAN_CACHE_BYTES = 16 << 20
"""How much of clean bitmaps is kept."""
READ_AHEAD_BYTES = 64 << 10
"""Bitmaps of the following zones that are loaded along with one that was missing."""


class ZoneBitmap:
    """One bit for each block of a zone, as stored: least significant bit first."""

    __slots__ = ("_view", "raw", "zone_blocks")

    def __init__(self, raw: bytearray, zone_blocks: int) -> None:
        self.raw = raw
        self.zone_blocks = zone_blocks
        self._view = np.frombuffer(raw, np.uint8)

    def test(self, block: int) -> bool:
        return bool(self.raw[block >> 3] >> (block & 7) & 1)

    def bits(self, first_block: int, count: int) -> BoolArray:
        """A new boolean array, one element a block."""
        start = first_block >> 3
        unpacked = np.unpackbits(self._view[start : (first_block + count + 7) >> 3], bitorder="little")
        skip = first_block - (start << 3)
        return unpacked[skip : skip + count].view(np.bool_)

    def uniform(self, first_block: int, count: int) -> bool | None:
        """Whether all blocks of a range are valid, or none; None when they differ, or when it is not quick to tell."""
        if first_block & 7 or count & 7:
            return None
        part = self._view[first_block >> 3 : (first_block + count) >> 3]
        first = part[0]
        if first not in (0, 0xFF) or not bool((part == first).all()):
            return None
        return bool(first)

    def is_empty(self) -> bool:
        """True when no block of the zone is valid."""
        return not bool(self._view[: (self.zone_blocks + 7) >> 3].any())

    def first_valid(self) -> int:
        """The first valid block, ``zone_blocks`` when there is none."""
        nonzero = np.flatnonzero(self._view[: (self.zone_blocks + 7) >> 3])
        if not len(nonzero):
            return self.zone_blocks
        byte = int(nonzero[0])
        lowest = self.raw[byte] & -self.raw[byte]
        return byte * 8 + lowest.bit_length() - 1

    def weight(self) -> int:
        """How many blocks are valid."""
        return int(np.bitwise_count(self._view[: (self.zone_blocks + 7) >> 3]).sum())

    def assign(self, first_block: int, count: int, *, valid: bool) -> list[int]:
        """Set or clear a range; returns the bitmap's 4096-byte blocks that changed."""
        if count == 1:
            return self._assign_one(first_block, valid=valid)
        head, tail = first_block >> 3, (first_block + count + 7) >> 3
        bits = np.unpackbits(self._view[head:tail], bitorder="little")
        skip = first_block - (head << 3)
        bits[skip : skip + count] = valid
        packed = np.packbits(bits, bitorder="little")
        changed = np.flatnonzero(packed != self._view[head:tail])
        if not len(changed):
            return []
        self._view[head:tail] = packed
        return list(range((head + int(changed[0])) >> 12, ((head + int(changed[-1])) >> 12) + 1))

    def _assign_one(self, block: int, *, valid: bool) -> list[int]:
        byte, mask = block >> 3, 1 << (block & 7)
        old = self.raw[byte]
        new = old | mask if valid else old & ~mask
        if new == old:
            return []
        self.raw[byte] = new
        return [byte >> 12]

    def replace(self, bits: BoolArray) -> list[int]:
        """Take ``zone_blocks`` new bits; returns the bitmap's blocks that changed."""
        packed = np.packbits(bits, bitorder="little")
        changed = np.flatnonzero(packed != self._view[: len(packed)])
        self._view[: len(packed)] = packed
        return sorted(set((changed >> 12).tolist()))


def joined_runs(mask: BoolArray, max_gap: int) -> IntArray:
    """``(start, end)`` rows of the runs of true elements, those at most ``max_gap`` elements apart made one."""
    rows = mask_runs(mask)
    if len(rows) < 2:
        return rows
    apart = rows[1:, 0] - rows[:-1, 1] > max_gap
    starts = rows[np.concatenate(([True], apart)), 0]
    ends = rows[np.concatenate((apart, [True])), 1]
    return np.stack((starts, ends), axis=1)


class BitmapCache:
    """Bitmaps by zone id.

    Args:
        load: reads ``count`` bitmaps from zone id ``first`` on, back to back.
        bitmap_bytes: size of one bitmap.
        zone_blocks: blocks of a zone.
        nr_zones: how many bitmaps there are.
    """

    def __init__(self, load: Callable[[int, int], bytes], bitmap_bytes: int, zone_blocks: int, nr_zones: int) -> None:
        self._load = load
        self._bitmap_bytes = bitmap_bytes
        self._zone_blocks = zone_blocks
        self._nr_zones = nr_zones
        self._clean: OrderedDict[int, ZoneBitmap] = OrderedDict()
        self._dirty: dict[int, ZoneBitmap] = {}
        self._max_clean = max(CLEAN_CACHE_BYTES // bitmap_bytes, 64)
        self._ahead = max(READ_AHEAD_BYTES // bitmap_bytes, 1)

    def __getitem__(self, zone: int) -> ZoneBitmap:
        """The bitmap of a zone; good until the next one is asked for, unless it is dirty."""
        bitmap = self._dirty.get(zone)
        if bitmap is None:
            bitmap = self._clean.get(zone)
            if bitmap is None:
                return self._read(zone)
            self._clean.move_to_end(zone)
        return bitmap

    def _read(self, zone: int) -> ZoneBitmap:
        count = min(self._ahead, self._nr_zones - zone)
        content = self._load(zone, count)
        for index in reversed(range(count)):  # the wanted one last, so that it is the youngest
            if zone + index not in self._clean and zone + index not in self._dirty:
                raw = bytearray(content[index * self._bitmap_bytes : (index + 1) * self._bitmap_bytes])
                self._clean[zone + index] = ZoneBitmap(raw, self._zone_blocks)
        self._evict()
        return self._clean[zone]

    def _evict(self) -> None:
        while len(self._clean) > self._max_clean:
            self._clean.popitem(last=False)

    def keep(self, zone: int, bitmap: ZoneBitmap) -> None:
        """``bitmap`` has changes that are not on the drive yet."""
        self._clean.pop(zone, None)
        self._dirty[zone] = bitmap

    def all_written(self) -> None:
        """Every change is on the drive."""
        self._clean.update(self._dirty)
        self._dirty.clear()
        self._evict()

    @property
    def held_bytes(self) -> int:
        """Memory of all bitmaps that are held."""
        return (len(self._clean) + len(self._dirty)) * self._bitmap_bytes


def block_runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """``(first, count)`` of the runs of consecutive numbers in ``blocks``."""
    return [(first, end - first) for first, end in runs(np.array(sorted(blocks), np.int64))]
