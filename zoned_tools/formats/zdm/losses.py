"""What of the logical device hangs on forward table pages that cannot be read, and what reverse pages know of it.

A lost page is about 1024 logical blocks. Where discard extents or the map cache are about a block they count; else it
is where the one reverse entry that names it is, in a page with a good checksum, below the zone's limit and owned by
nobody else. What nothing names is lost: unmapped blocks look the same.

Source: section 1.5 of the specification of rescues (``docs/formats/rescue.md``), rule 3c of zdm.md 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import crc16_pages
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES, ZONE_BLOCKS
from zoned_tools.formats.zdm.pairs import TablePairs
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.zdm.checksums import Words
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.tables import Tables

UNKNOWN = -2
"""Physical block of a logical block of which nobody knows where it is."""


@dataclass(frozen=True, slots=True)
class LostPages:
    """Forward pages that cannot be read.

    Attributes:
        pages: ascending.
        entries: a row of 1024 physical blocks a page, :data:`UNKNOWN` where nothing tells.
    """

    pages: IntArray
    entries: IntArray

    def overlay(self, first_entry: int, physical: IntArray) -> None:
        """Put what is known into the answers for consecutive entries of the forward table."""
        end = first_entry + len(physical)
        low, high = np.searchsorted(self.pages, [first_entry // PAGE_ENTRIES, -(-end // PAGE_ENTRIES)])
        for index in range(int(low), int(high)):
            start = int(self.pages[index]) * PAGE_ENTRIES
            begin, stop = max(start, first_entry), min(start + PAGE_ENTRIES, end)
            physical[begin - first_entry : stop - first_entry] = self.entries[index, begin - start : stop - start]


def may_fail(device: Device) -> bool:
    """Whether something cannot be read, or only reading tells; an image without a map file can be read to its end."""
    return not device.emulated or len(known_bad_areas(device)) > 0


def has_unread(state: State) -> bool:
    """Whether a block of metadata cannot be read; reads both tables where that has to be tried."""
    if may_fail(state.volume.device):
        for direction in Direction:
            state.tables.crc_pages(direction)
            for _ in state.tables.chunks(direction):
                pass
    return bool(state.volume.unread)


def lost_pages(state: State) -> IntArray:
    """Forward pages that cannot be read; the forward table is read once where that has to be tried."""
    if may_fail(state.volume.device):
        for _ in state.tables.chunks(Direction.FORWARD):
            pass
    return state.tables.unread_pages(state.geometry.forward_start, state.geometry.map_count)


def recover(state: State, pages: IntArray, pairs: TablePairs | None = None) -> LostPages:
    """What the reverse table knows about some forward ``pages``; both tables are read once."""
    found = LostPages(pages, np.full((len(pages), PAGE_ENTRIES), UNKNOWN, np.int64))
    if not len(pages):
        return found
    pairs = pairs or TablePairs(state)
    logical, physical = _named(state, pairs, pages)
    unique, first, counts = np.unique(logical, return_index=True, return_counts=True)
    logical, physical = unique[counts == 1], physical[first[counts == 1]]
    free = ~_owned(pairs, physical)
    entry = logical[free] + state.geometry.data_start - pairs.base
    found.entries[np.searchsorted(pages, entry // PAGE_ENTRIES), entry % PAGE_ENTRIES] = physical[free]
    return found


def _named(state: State, pairs: TablePairs, pages: IntArray) -> tuple[IntArray, IntArray]:
    """``(logical, physical)`` of the reverse entries that name blocks of ``pages`` and can be believed."""
    shift = state.geometry.data_start - pairs.base
    good = _good_reverse_pages(state)
    logical, physical = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for chunk in pairs.tables.chunks(Direction.REVERSE):
        one = pairs.reverse_pairs(chunk)
        wanted = np.isin((one.logical + shift) // PAGE_ENTRIES, pages)
        wanted &= good[(one.physical - pairs.base) // PAGE_ENTRIES]
        wanted &= (one.physical - pairs.base) % ZONE_BLOCKS < pairs.limits[pairs.zone_of(one.physical)]
        logical.append(one.logical[wanted])
        physical.append(one.physical[wanted])
    return np.concatenate(logical), np.concatenate(physical)


def _good_reverse_pages(state: State) -> BoolArray:
    """Which reverse pages match their checksum, or are under a CRC page that does not tell."""
    tables, count = state.tables, state.geometry.map_count
    crcs = np.full(count, layout.EMPTY_PAGE_CRC, np.uint16)
    for chunk in tables.chunks(Direction.REVERSE):
        crcs[chunk.pages] = chunk.crcs
    stored = tables.crc_pages(Direction.REVERSE)
    doubtful = doubtful_crc_pages(state, Direction.REVERSE, crc16_pages(stored.view(np.uint8)))
    good: BoolArray = crcs == stored.reshape(-1)[:count]
    good |= np.repeat(doubtful, layout.CRC_PAGE_ENTRIES)[:count]
    return good


def doubtful_crc_pages(state: State, direction: Direction, found: Words) -> BoolArray:
    """Which CRC pages, whose checksums are ``found``, tell nothing: they are damaged, or cannot be read."""
    count, current = state.geometry.crc_count, state.current
    expected = np.full(count, layout.EMPTY_CRC_PAGE_CRC, np.uint16)
    if current is not None:
        expected = current.md_crcs[direction * 2048 :][:count]
    wrong: BoolArray = found != expected
    wrong[unread_crc_pages(state.tables, direction)] = True
    return wrong


def unread_crc_pages(tables: Tables, direction: Direction) -> IntArray:
    """CRC pages that were found to be unreadable."""
    return tables.unread_pages(tables.crc_start(direction), tables.geometry.crc_count)


def _owned(pairs: TablePairs, physical: IntArray) -> BoolArray:
    """Which physical blocks the forward table or the map cache give to somebody."""
    taken = [pairs.hidden.mapped[1]]
    for chunk in pairs.tables.chunks(Direction.FORWARD):
        named = pairs.forward_pairs(chunk).physical
        taken.append(named[np.isin(named, physical)])
    owned: BoolArray = np.isin(physical, np.concatenate(taken))
    return owned


def lost_runs(state: State, lost: LostPages, pairs: TablePairs | None = None) -> Iterator[tuple[int, int, int]]:
    """``(forward page, first logical block, blocks)`` of what is lost, ascending, inside the logical device."""
    hidden = (pairs or TablePairs(state)).hidden
    shift = state.geometry.data_start - state.geometry.table_base
    for page, entries in zip(lost.pages.tolist(), lost.entries, strict=True):
        logical = np.flatnonzero(entries == UNKNOWN) + page * PAGE_ENTRIES - shift
        logical = logical[(logical >= 0) & (logical < state.logical_blocks)]
        logical = logical[~hidden.mask_of(logical)]
        for part in np.split(logical, np.flatnonzero(np.diff(logical) > 1) + 1):
            if len(part):
                yield page, int(part[0]), len(part)
