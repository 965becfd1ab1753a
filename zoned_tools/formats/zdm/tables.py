"""Table and CRC pages: their current copies, wherever they are.

Tables are half a GiB for each 1024 data zones and mostly 0xFF, so they are streamed in
chunks that are compared with the empty page before anything else is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, CRC_PAGE_ENTRIES, Geometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.zdm.volume import Bytes2D, Volume

CHUNK_PAGES = 512
_EMPTY_CHUNK = layout.EMPTY_PAGE * CHUNK_PAGES

_NO_PAGES = np.zeros(0, np.int64)

Entries = npt.NDArray[np.uint32]


class Direction(IntEnum):
    FORWARD = 0
    REVERSE = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive table pages, those left out that hold nothing.

    Attributes:
        pages: page numbers, ascending.
        entries: one row of 1024 entries a page.
        crcs: crc16 of each page.
    """

    pages: IntArray
    entries: Entries
    crcs: Words


@dataclass(frozen=True, slots=True)
class JournalFaults:
    """Slots that cannot be used, and pages that more than one slot names."""

    out_of_range: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()


class Tables:
    """Read access to the tables of one generation.

    Args:
        journal: block of the current copy of each page that is not at home.
    """

    def __init__(self, volume: Volume, geometry: Geometry, journal: dict[int, int]) -> None:
        self.volume = volume
        self.geometry = geometry
        self._journal = dict(journal)
        self._homes = np.array(sorted(journal), np.int64)

    def strictly(self) -> Tables:
        """The same pages, of which no further one may fail."""
        return Tables(self.volume.strictly(), self.geometry, self._journal)

    def start(self, direction: Direction) -> int:
        """First block of a table."""
        return self.geometry.forward_start if direction is Direction.FORWARD else self.geometry.reverse_start

    def crc_start(self, direction: Direction) -> int:
        """First block of a table's CRC pages."""
        return self.geometry.crc_start if direction is Direction.FORWARD else self.geometry.crc_reverse_start

    @property
    def journal(self) -> dict[int, int]:
        """Block of the current copy of each page that is not at home."""
        return dict(self._journal)

    def set_journal(self, journal: dict[int, int]) -> None:
        """Current copies have moved."""
        self._journal = dict(journal)
        self._homes = np.array(sorted(journal), np.int64)

    def current(self, home: int) -> int:
        """Block of the current copy of a page."""
        return self._journal.get(home, home)

    def crc_pages(self, direction: Direction) -> Words:
        """Every live CRC page as a row; with them the checksum of table page n at flat index n."""
        return self.rows(self.crc_start(direction), self.geometry.crc_count).view("<u2")

    def rows(self, first_home: int, count: int) -> Bytes2D:
        """Current copies of consecutive pages; those that cannot be read hold nothing (0xFF)."""
        rows = self.volume.read_rows(first_home, count)
        self.redirect(first_home, rows)
        return rows

    def is_unread(self, home: int) -> bool:
        """Whether the current copy of a page was found to be unreadable."""
        return self.current(home) in self.volume.unread

    def unread_pages(self, first_home: int, count: int) -> IntArray:
        """Which of ``count`` pages that were looked at cannot be read, counted from ``first_home``."""
        homes = {copy: home for home, copy in self._journal.items()}
        found = (homes.get(block, block) for block in self.volume.unread)
        pages = sorted({h - first_home for h in found if 0 <= h - first_home < count and self.is_unread(h)})
        return np.array(pages, np.int64)

    def redirect(self, first_home: int, rows: Bytes2D) -> bool:
        """Replace the rows of pages whose current copy is elsewhere, or cannot be read; True when there was any."""
        low, high = np.searchsorted(self._homes, [first_home, first_home + len(rows)])
        for home in self._homes[low:high].tolist():
            rows[home - first_home] = self.volume.read_rows(self._journal[home], 1)[0]
        unread = self.unread_pages(first_home, len(rows)) if self.volume.unread else _NO_PAGES
        rows[unread] = 0xFF
        return bool(high > low or len(unread))

    def is_empty(self, direction: Direction, first_page: int, count: int) -> bool:
        """Whether pages hold no entry at all; they are read in chunks of bounded size."""
        start = self.start(direction) + first_page
        low, high = np.searchsorted(self._homes, [start, start + count])
        if high > low:
            return False
        buffer = bytearray(min(count, CHUNK_PAGES) * BLOCK_BYTES)
        for page in range(0, count, CHUNK_PAGES):
            part = min(CHUNK_PAGES, count - page) * BLOCK_BYTES
            if part < len(buffer):
                buffer = bytearray(part)
            if self.volume.salvage(start + page, memoryview(buffer)):
                return False
            if buffer != (_EMPTY_CHUNK if part == len(_EMPTY_CHUNK) else _EMPTY_CHUNK[:part]):
                return False
        return True

    def chunks(self, direction: Direction, first_page: int = 0, end_page: int | None = None) -> Iterator[Chunk]:
        """Pages that are not empty, streamed in chunks of bounded size, ascending.

        The arrays of a chunk are only valid until the next one is asked for.
        """
        start = self.start(direction)
        end = self.geometry.map_count if end_page is None else min(end_page, self.geometry.map_count)
        buffer = bytearray(CHUNK_PAGES * BLOCK_BYTES)
        whole: Bytes2D = np.frombuffer(buffer, np.uint8).reshape(CHUNK_PAGES, BLOCK_BYTES)
        view = memoryview(buffer)
        for page in range(first_page, end, CHUNK_PAGES):
            count = min(CHUNK_PAGES, end - page)
            self.volume.salvage(start + page, view[: count * BLOCK_BYTES])
            rows = whole[:count]
            redirected = self.redirect(start + page, rows)
            if not redirected and count == CHUNK_PAGES and buffer == _EMPTY_CHUNK:
                continue
            used = np.flatnonzero(_not_empty(rows))
            if len(used):
                kept = rows[used] if len(used) < count else rows
                yield Chunk(used + page, kept.view("<u4"), crc16_pages(kept))


def _not_empty(rows: Bytes2D) -> BoolArray:
    mask: BoolArray = (rows.view("<u8") != np.uint64(0xFFFFFFFFFFFFFFFF)).any(axis=1)
    return mask


def usable_journal(
    volume: Volume, geometry: Geometry, rows: IntArray, md_crcs: Words
) -> tuple[dict[int, int], JournalFaults]:
    """Home block to current block of the journal's pages, and what is wrong with the map.

    A slot must name a live table or CRC page and lie in front of the tables. Of several
    slots that name one page the one is taken whose checksum is the page's.
    """
    journal: dict[int, int] = {}
    doubled: dict[int, list[int]] = {}
    outside = []
    for slot, home, copy in rows.tolist():
        if not geometry.is_table_page(home) or not volume.has(copy) or _is_fixed(geometry, copy):
            outside.append(slot)
        elif home in journal:
            doubled.setdefault(home, [journal[home]]).append(copy)
        else:
            journal[home] = copy
    # CRC pages first: the checksums of table pages are in them.
    for home in sorted(doubled, reverse=True):
        expected = expected_crc(volume, geometry, journal, md_crcs, home)
        found = crc16_pages(np.concatenate([volume.read_rows(copy, 1) for copy in doubled[home]]))
        matching = np.flatnonzero(found == expected)
        if len(matching):
            journal[home] = doubled[home][int(matching[0])]
    return journal, JournalFaults(tuple(outside), tuple(sorted(doubled)))


def _is_fixed(geometry: Geometry, block: int) -> bool:
    """Whether a block is behind the place where journal slots are and not in a data zone either."""
    return block < layout.WP_BLOCK or geometry.md_start <= block < min(geometry.table_base, geometry.data_start)


def expected_crc(volume: Volume, geometry: Geometry, journal: dict[int, int], md_crcs: Words, home: int) -> int:
    """Checksum that the metadata promise for a table or CRC page."""
    reverse = home >= geometry.crc_reverse_start
    if home >= geometry.crc_start:
        number = home - (geometry.crc_reverse_start if reverse else geometry.crc_start)
        return int(md_crcs[number + (2048 if reverse else 0)])
    if home >= geometry.reverse_start:
        page, start = home - geometry.reverse_start, geometry.crc_reverse_start
    else:
        page, start = home - geometry.forward_start, geometry.crc_start
    crc_home = start + page // CRC_PAGE_ENTRIES
    row = volume.read_rows(journal.get(crc_home, crc_home), 1)[0]
    return int(row.view("<u2")[page % CRC_PAGE_ENTRIES])
