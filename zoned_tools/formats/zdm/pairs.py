"""The tables as pairs of logical and physical block: the entries that count, whole or for some zones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES, ZONE_BLOCKS, ZONE_PAGES, Geometry
from zoned_tools.formats.zdm.mapping import DiscardExtents, discards_of
from zoned_tools.formats.zdm.tables import Chunk, Direction, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.zdm.open import State

MAX_CACHED_BLOCKS = 1 << 24
_PAGE_SHIFT, _ZONE_SHIFT = 10, 16
_GROUP_PAIRS = 8 << 20
"""Pairs that are compared at a time."""


@dataclass(slots=True)
class Hidden:
    """Logical blocks whose table entries do not count: discarded ones and those in the map cache.

    Attributes:
        logical, physical: the map cache, ascending and without doubles; 0 is unmapped.
    """

    discards: DiscardExtents
    logical: IntArray
    physical: IntArray

    def mask_of(self, blocks: IntArray) -> BoolArray:
        """Which of ``blocks`` are hidden."""
        mask: BoolArray = self.discards.mask_of(blocks)
        if len(self.logical):
            at = np.minimum(np.searchsorted(self.logical, blocks), len(self.logical) - 1)
            mask = mask | (self.logical[at] == blocks)
        return mask

    @property
    def mapped(self) -> tuple[IntArray, IntArray]:
        """Cache entries that resolve to a physical block."""
        live = (self.physical != 0) & ~self.discards.mask_of(self.logical)
        return self.logical[live], self.physical[live]


def hidden_of(state: State) -> Hidden:
    """Cache and discard extents of the current generation.

    Raises:
        MetadataError: the extents of a cache add up to more than any drive has.
    """
    start = state.geometry.data_start
    current = state.current
    if current is None:
        empty = np.zeros(0, np.int64)
        return Hidden(DiscardExtents(), empty, empty)
    rows = current.cache
    total = int(rows[:, 1].sum())
    if total > MAX_CACHED_BLOCKS:
        raise MetadataError(f"the map cache claims {total} blocks", device=state.path)
    within = np.arange(total) - np.repeat(np.cumsum(rows[:, 1]) - rows[:, 1], rows[:, 1])
    logical = np.repeat(rows[:, 0], rows[:, 1]) + within - start
    base = np.repeat(rows[:, 2], rows[:, 1])
    physical = np.where(base == 0, 0, base + within)
    # Of several entries for one block the last counts.
    logical, index = np.unique(logical[::-1], return_index=True)
    return Hidden(discards_of(current, start), logical, physical[::-1][index])


@dataclass(slots=True)
class Pairs:
    """Table entries that are mapped and count.

    Attributes:
        logical, physical: one element an entry.
        outside: entries that name no place in the data area.
    """

    logical: IntArray
    physical: IntArray
    outside: int
    first_outside: int


def limits(state: State) -> IntArray:
    """First block of each data zone that cannot hold data: device write pointer, or the recorded one."""
    recorded = (state.wp & layout.WP_MASK).astype(np.int64)
    zones = state.zones
    limit = np.where(zones.sequential & (zones.wp_blocks >= 0), zones.wp_blocks, recorded)
    return np.where(zones.dead, ZONE_BLOCKS, limit)


class TablePairs:
    """Both tables of one generation, without the entries that cache and discards hide.

    Attributes:
        hidden: what does not count, and what counts instead.
        base, end: blocks of the data area.
        limits: first block of each data zone that cannot hold data.

    Raises:
        MetadataError: the extents of a cache add up to more than any drive has.
    """

    def __init__(self, state: State) -> None:
        self.geometry: Geometry = state.geometry
        self.tables: Tables = state.tables
        self.hidden = hidden_of(state)
        self.limits = limits(state)
        self.base = self.geometry.table_base
        self.end = self.base + self.geometry.area_blocks
        self._shift = self.geometry.data_start - self.base

    def _split(self, chunk: Chunk) -> tuple[IntArray, IntArray]:
        """Flat entry index and value of the mapped entries of a chunk."""
        flat = chunk.entries.reshape(-1)
        pages = chunk.pages
        mapped = flat < layout.UNMAPPED_ALTERNATIVE
        if mapped.all():
            at, values = np.arange(len(flat)), flat.astype(np.int64)
        else:
            at = np.flatnonzero(mapped)
            values = flat[at].astype(np.int64)
        if pages[-1] - pages[0] + 1 == len(pages):  # side by side, the common case
            return at + pages[0] * PAGE_ENTRIES, values
        return pages[at >> _PAGE_SHIFT] * PAGE_ENTRIES + (at & (PAGE_ENTRIES - 1)), values

    def forward_pairs(self, chunk: Chunk) -> Pairs:
        """Entries of a forward chunk that are not hidden."""
        index, physical = self._split(chunk)
        logical = index - self._shift
        hidden = self.hidden.mask_of(logical)
        if hidden.any():
            logical, physical = logical[~hidden], physical[~hidden]
        inside = (physical >= self.base) & (physical < self.end)
        outside = len(inside) - int(np.count_nonzero(inside))
        if not outside:
            return Pairs(logical, physical, 0, -1)
        return Pairs(logical[inside], physical[inside], outside, int(logical[int(np.argmin(inside))]))

    def reverse_pairs(self, chunk: Chunk) -> Pairs:
        """Entries of a reverse chunk whose owner is not hidden."""
        index, address = self._split(chunk)
        physical = index + self.base
        inside = (address >= self.base) & (address < self.end)
        outside = len(inside) - int(np.count_nonzero(inside))
        first = int(physical[int(np.argmin(inside))]) if outside else -1
        if outside:
            address, physical = address[inside], physical[inside]
        logical = address - self.geometry.data_start
        hidden = self.hidden.mask_of(logical)
        if hidden.any():
            logical, physical = logical[~hidden], physical[~hidden]
        return Pairs(logical, physical, outside, first)

    def zone_of(self, physical: IntArray) -> IntArray:
        """Data zone of each block of the data area."""
        zones: IntArray = (physical - self.base) >> _ZONE_SHIFT
        return zones

    def groups(self, zones: IntArray, live: IntArray) -> Iterator[IntArray]:
        """``zones`` in groups with a bounded number of pairs."""
        weights = np.cumsum(ZONE_BLOCKS + live[zones])
        yield from (g for g in np.split(zones, np.flatnonzero(np.diff(weights // _GROUP_PAIRS)) + 1) if len(g))

    def pairs_in(self, zones: IntArray) -> tuple[IntArray, IntArray]:
        """All forward pairs (not hidden) that name a block of ``zones``."""
        wanted = np.zeros(self.geometry.data_zones, np.bool_)
        wanted[zones] = True
        logical, physical = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for chunk in self.tables.chunks(Direction.FORWARD):
            pairs = self.forward_pairs(chunk)
            mine = wanted[self.zone_of(pairs.physical)]
            if mine.any():
                logical.append(pairs.logical[mine])
                physical.append(pairs.physical[mine])
        return np.concatenate(logical), np.concatenate(physical)

    def owners_in(self, zones: IntArray) -> IntArray:
        """Logical owner of every block by the reverse table, -1 for none or a hidden one; a row a zone."""
        owners = np.full((len(zones), ZONE_BLOCKS), -1, np.int64)
        for row, zone in enumerate(zones.tolist()):
            for chunk in self.tables.chunks(Direction.REVERSE, zone * ZONE_PAGES, (zone + 1) * ZONE_PAGES):
                pairs = self.reverse_pairs(chunk)
                owners[row, pairs.physical - self.base - zone * ZONE_BLOCKS] = pairs.logical
        return owners

    def pairs_in_few(self, physical: IntArray) -> tuple[IntArray, IntArray]:
        """Forward pairs that name one of a few ``physical`` blocks, found through the reverse table.

        In zones where the tables disagree the reverse table proves nothing, but there the
        survey has looked at every pair already.
        """
        owners = []
        for page in np.unique((physical - self.base) // PAGE_ENTRIES).tolist():
            for chunk in self.tables.chunks(Direction.REVERSE, page, page + 1):
                pairs = self.reverse_pairs(chunk)
                mine = np.isin(pairs.physical, physical)
                owners.append(np.stack([pairs.logical[mine], pairs.physical[mine]]))
        if not owners:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        logical, named = np.concatenate(owners, axis=1)
        order = np.argsort(logical)
        logical, named = logical[order], named[order]
        entries = logical + self._shift
        found = np.full(len(logical), -1, np.int64)
        for page in np.unique(entries // PAGE_ENTRIES).tolist():
            for chunk in self.tables.chunks(Direction.FORWARD, page, page + 1):
                mine = entries // PAGE_ENTRIES == page
                found[mine] = chunk.entries[0][entries[mine] % PAGE_ENTRIES]
        agree = found == named
        return logical[agree], named[agree]
