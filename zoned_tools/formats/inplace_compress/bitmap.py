"""The bitmap in memory, loaded on demand and written back by pages, as the driver keeps it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.formats.inplace_compress.entries import Array, pack_entries, starts_unknown, swap_words
from zoned_tools.formats.inplace_compress.extents import Extents, join, scan
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES, TAIL

if TYPE_CHECKING:
    from collections.abc import Set

    from zoned_tools.formats.inplace_compress.open import Volume

_PART_BYTES = 20480
"""Five blocks of bitmap: the smallest whole number of blocks that holds whole entries."""

_PART_ENTRIES = _PART_BYTES * 8 // 5
_SCAN_ENTRIES = 16384
_CLEAN_PARTS_MAX = 256
"""Unchanged parts kept in memory (8 MiB)."""


class Bitmap:
    """Entries of a volume with the changes that are not on the device yet.

    Args:
        volume: its bitmap is read when needed.
        page_bytes: unit of dirtiness and of writes, the host's page.
        keeps_slack: bits behind the last entry are stored as they were read, not as zeroes.
    """

    def __init__(self, volume: Volume, page_bytes: int = BLOCK_BYTES, *, keeps_slack: bool = False) -> None:
        self._volume = volume
        self._page_bytes = page_bytes
        self._keeps_slack = keeps_slack
        self._area_bytes = volume.meta_blocks * BLOCK_BYTES
        self._parts: OrderedDict[int, Array] = OrderedDict()
        self._changed_parts: set[int] = set()
        self.dirty_pages: set[int] = set()

    def _part(self, number: int) -> Array:
        part = self._parts.get(number)
        if part is None:
            part = self._volume.read_entries(number * _PART_ENTRIES, _PART_ENTRIES)
            self._parts[number] = part
            self._evict()
        self._parts.move_to_end(number)
        return part

    def _evict(self) -> None:
        excess = len(self._parts) - len(self._changed_parts) - _CLEAN_PARTS_MAX
        if excess <= 0:
            return
        victims = [n for n in self._parts if n not in self._changed_parts][: min(excess, len(self._parts) - 1)]
        for number in victims:
            del self._parts[number]

    def entries(self, first_block: int, count: int) -> Array:
        """A copy of the entries (uint8) of ``count`` blocks."""
        pieces = []
        at, end = first_block, first_block + count
        while at < end:
            number, skip = divmod(at, _PART_ENTRIES)
            take = min(_PART_ENTRIES - skip, end - at)
            pieces.append(self._part(number)[skip : skip + take])
            at += take
        entries = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        if first_block == 0 and count:
            entries[0] &= ~TAIL & 0xFF  # the first block can only be a head
        return entries

    def put(self, first_block: int, entries: Array) -> None:
        """Change entries and mark their pages dirty."""
        at, end = first_block, first_block + len(entries)
        while at < end:
            number, skip = divmod(at, _PART_ENTRIES)
            take = min(_PART_ENTRIES - skip, end - at)
            self._part(number)[skip : skip + take] = entries[at - first_block : at - first_block + take]
            self._changed_parts.add(number)
            at += take
        self.dirty_pages.update(self.pages_of(first_block, len(entries)))

    def touch(self, block: int) -> None:
        """Have the page with the last bit of a block's entry written again, bits behind the last entry as zeroes."""
        self._part(block // _PART_ENTRIES)
        self._changed_parts.add(block // _PART_ENTRIES)
        used = (block + 1) * 5
        last_word_end = -(-used // 32) * 4
        first, last = (used - 1) // 8 // self._page_bytes, (last_word_end - 1) // self._page_bytes
        self.dirty_pages.update((first, last))

    def pages_of(self, first_block: int, count: int) -> range:
        """Pages that hold the entries of ``count`` blocks."""
        first = first_block * 5 // 8 // self._page_bytes
        last = ((first_block + count) * 5 - 1) // 8 // self._page_bytes
        return range(first, last + 1)

    def head_of(self, block: int) -> int:
        """First block of the extent that holds ``block``."""
        end = block + 1
        step = 64
        while end > 0:
            start = max(0, end - step)
            heads = np.flatnonzero((self.entries(start, end - start) & TAIL) == 0)
            if len(heads):
                return start + int(heads[-1])
            end, step = start, min(step * 8, _PART_ENTRIES)
        return 0

    def end_of(self, block: int) -> int:
        """The block behind the extent that holds ``block``."""
        start, step = block + 1, 64
        limit = self._volume.data_blocks
        while start < limit:
            count = min(step, limit - start)
            heads = np.flatnonzero((self.entries(start, count) & TAIL) == 0)
            if len(heads):
                return start + int(heads[0])
            start, step = start + count, min(step * 8, _PART_ENTRIES)
        return limit

    def extents(self, block: int, count: int) -> Extents:
        """Extents with anything in them that touch a range, whole."""
        first, end = self.head_of(block), self.end_of(block + count - 1)
        stop = end + 1 if end < self._volume.data_blocks and starts_unknown(self.entries(end, 1)) else end
        chunks = ((at, self.entries(at, min(_SCAN_ENTRIES, stop - at))) for at in range(first, stop, _SCAN_ENTRIES))
        extents = join(list(scan(chunks)))
        return extents.select(extents.head < end) if stop > end else extents

    def encoded(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Bytes of the meta area as they are to be stored."""
        first, last = offset_bytes // _PART_BYTES, (offset_bytes + length_bytes - 1) // _PART_BYTES
        raw = b"".join(pack_entries(self._trimmed(n)) for n in range(first, last + 1))
        if self._volume.reversed_words:
            raw = swap_words(raw)
        skip = offset_bytes - first * _PART_BYTES
        return raw[skip : skip + length_bytes]

    def _trimmed(self, number: int) -> Array:
        """A part whose entries behind the last data block are zero, unless they are kept."""
        used = self._volume.data_blocks - number * _PART_ENTRIES
        if used >= _PART_ENTRIES or self._keeps_slack:
            return self._part(number)
        part = np.zeros(_PART_ENTRIES, np.uint8)
        if used > 0:
            part[:used] = self._part(number)[:used]
        return part

    def page_write(self, first_page: int, last_page: int) -> tuple[int, bytes]:
        """``(device offset, bytes)`` of the driver's write request for a range of pages.

        It covers one sector of the next page unless that would pass the end of the meta
        area (dm-inplace-compress.c, ``dm_icomp_update_meta``); the content is current, so
        the extra sector is harmless.
        """
        start = first_page * self._page_bytes
        end = min((last_page + 1) * self._page_bytes, self._area_bytes)
        if end + SECTOR_BYTES <= self._area_bytes:
            end += SECTOR_BYTES
        return self._volume.bitmap_offset_bytes + start, self.encoded(start, end - start)

    def written(self, pages: Set[int]) -> None:
        """Mark pages clean, as after writing them."""
        self.dirty_pages -= pages
        still = {p for page in self.dirty_pages for p in self._parts_of_page(page)}
        self._changed_parts &= still

    def _parts_of_page(self, page: int) -> range:
        first = page * self._page_bytes // _PART_BYTES
        return range(first, ((page + 1) * self._page_bytes - 1) // _PART_BYTES + 1)

    def dirty_writes(self) -> list[tuple[int, int]]:
        """``(first page, last page)`` of the runs of dirty pages, ascending."""
        pages = np.array(sorted(self.dirty_pages), np.int64)
        return [(first, end - 1) for first, end in runs(pages)]
