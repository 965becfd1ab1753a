"""One streamed pass over both tables: agreement, ranges, live counts, checksums; memory stays bounded.

The forward table is a set of pairs (logical, physical) and so is the reverse table. Instead
of looking every pair up in the other table, each pair is hashed and the hashes are summed
for each data zone: only zones whose sums differ are then compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zoned_tools.device.zones import BoolArray, IntArray
from zoned_tools.errors import MetadataError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES, ZONE_BLOCKS, ZONE_PAGES, Geometry
from zoned_tools.formats.zdm.mapping import DiscardExtents, discards_of
from zoned_tools.formats.zdm.state import State
from zoned_tools.formats.zdm.tables import Chunk, Direction, Tables

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
class Survey:
    """What the pass found; arrays of zones have one element a data zone.

    Attributes:
        page_crcs: checksum of every live table page, forward and reverse.
        bad_pages: table pages that do not match their CRC page, forward and reverse.
        bad_crc_pages: CRC pages that do not match the generation, forward and reverse.
        live: resolved blocks.
        beyond: resolved blocks at or above the zone's limit.
        highest: end of the highest resolved block in the zone, 0 when there is none.
        out_of_range: logical blocks whose forward entry is outside the data area (some of them).
        suspect_zones: zones where the tables disagree.
    """

    page_crcs: tuple[Words, Words]
    bad_pages: tuple[IntArray, IntArray]
    bad_crc_pages: tuple[IntArray, IntArray]
    live: IntArray
    beyond: IntArray
    highest: IntArray
    mapped: int = 0
    fwd_range: int = 0
    fwd_norev: int = 0
    rev_range: int = 0
    rev_nofwd: int = 0
    doubles: int = 0
    used_pages: list[int] = field(default_factory=lambda: [0, 0])
    suspect_zones: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    samples: dict[str, int] = field(default_factory=dict)


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


class Surveyor:
    """Runs the pass over one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.geometry: Geometry = state.geometry
        self.tables: Tables = state.tables
        self.hidden = hidden_of(state)
        self.limits = limits(state)
        self._base = self.geometry.table_base
        self._end = self._base + self.geometry.area_blocks
        self._shift = self.geometry.data_start - self._base

    # -- pairs

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
        inside = (physical >= self._base) & (physical < self._end)
        outside = len(inside) - int(np.count_nonzero(inside))
        if not outside:
            return Pairs(logical, physical, 0, -1)
        return Pairs(logical[inside], physical[inside], outside, int(logical[int(np.argmin(inside))]))

    def reverse_pairs(self, chunk: Chunk) -> Pairs:
        """Entries of a reverse chunk whose owner is not hidden."""
        index, address = self._split(chunk)
        physical = index + self._base
        inside = (address >= self._base) & (address < self._end)
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
        zones: IntArray = (physical - self._base) >> _ZONE_SHIFT
        return zones

    # -- the pass

    def run(self) -> Survey:
        geometry = self.geometry
        crcs = tuple(np.full(geometry.map_count, layout.EMPTY_PAGE_CRC, np.uint16) for _ in Direction)
        zeroes = np.zeros(geometry.data_zones, np.int64)
        survey = Survey(
            (crcs[0], crcs[1]),
            self._no_pages(),
            self._no_pages(),
            live=zeroes.copy(),
            beyond=zeroes.copy(),
            highest=zeroes.copy(),
        )
        sums = np.zeros(geometry.data_zones, np.uint64)
        for chunk in self.tables.chunks(Direction.FORWARD):
            self._note(survey, Direction.FORWARD, chunk)
            pairs = self.forward_pairs(chunk)
            survey.fwd_range += pairs.outside
            survey.mapped += pairs.outside
            if pairs.outside:
                survey.samples.setdefault("fwd.range", pairs.first_outside)
            self._count(survey, pairs.logical, pairs.physical)
            _sum_by_zone(sums, self.zone_of(pairs.physical), _hash(pairs.logical, pairs.physical))
        for chunk in self.tables.chunks(Direction.REVERSE):
            self._note(survey, Direction.REVERSE, chunk)
            pairs = self.reverse_pairs(chunk)
            survey.rev_range += pairs.outside
            if pairs.outside:
                survey.samples.setdefault("rev.range", pairs.first_outside)
            _sum_by_zone(sums, self.zone_of(pairs.physical), ~_hash(pairs.logical, pairs.physical) + np.uint64(1))
        survey.suspect_zones = np.flatnonzero(sums)
        logical, physical = self.hidden.mapped
        survey.mapped += int(np.count_nonzero((physical < self._base) | (physical >= self._end)))
        inside = (physical >= self._base) & (physical < self._end)
        self._count(survey, logical[inside], physical[inside])
        self._compare_zones(survey)
        self._doubles_of_cache(survey)
        survey.bad_crc_pages, survey.bad_pages = self._judge_checksums(survey)
        return survey

    @staticmethod
    def _no_pages() -> tuple[IntArray, IntArray]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def _note(self, survey: Survey, direction: Direction, chunk: Chunk) -> None:
        survey.page_crcs[direction][chunk.pages] = chunk.crcs
        survey.used_pages[direction] += len(chunk.pages)

    def _count(self, survey: Survey, logical: IntArray, physical: IntArray) -> None:
        """Live blocks and those beyond the limit, by zone."""
        survey.mapped += len(physical)
        if not len(physical):
            return
        zone = self.zone_of(physical)
        offset = (physical - self._base) & (ZONE_BLOCKS - 1)
        starts = np.flatnonzero(zone[1:] != zone[:-1]) + 1
        starts = np.concatenate(([0], starts))  # neighbours mostly live in one zone: work on runs
        zones, ends = zone[starts], np.maximum.reduceat(offset, starts) + 1
        np.add.at(survey.live, zones, np.diff(starts, append=len(zone)))
        np.maximum.at(survey.highest, zones, ends)
        if (ends > self.limits[zones]).any():
            beyond = offset >= self.limits[zone]
            survey.beyond += np.bincount(zone[beyond], minlength=self.geometry.data_zones)
            survey.samples.setdefault("fwd.beyond_wp", int(logical[int(np.argmax(beyond))]))

    # -- pair by pair, where the sums differ

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
                owners[row, pairs.physical - self._base - zone * ZONE_BLOCKS] = pairs.logical
        return owners

    def _compare_zones(self, survey: Survey) -> None:
        for zones in self.groups(survey.suspect_zones, survey.live):
            rows = np.full(self.geometry.data_zones, -1, np.int64)
            rows[zones] = np.arange(len(zones))
            logical, physical = self.pairs_in(zones)
            owners = self.owners_in(zones).reshape(-1)
            place = rows[self.zone_of(physical)] * ZONE_BLOCKS + (physical - self._base) % ZONE_BLOCKS
            agree = owners[place] == logical
            survey.fwd_norev += int(np.count_nonzero(~agree))
            confirmed = np.zeros(len(owners), np.bool_)
            confirmed[place[agree]] = True
            lonely = (owners >= 0) & ~confirmed
            survey.rev_nofwd += int(np.count_nonzero(lonely))
            counts = np.bincount(place, minlength=len(owners))
            survey.doubles += int(np.count_nonzero(counts > 1))
            if not agree.all():
                survey.samples.setdefault("fwd.norev", int(logical[int(np.argmin(agree))]))
            if lonely.any():
                at = int(np.argmax(lonely))
                survey.samples.setdefault(
                    "rev.nofwd", self._base + int(zones[at // ZONE_BLOCKS]) * ZONE_BLOCKS + at % ZONE_BLOCKS
                )
            if (counts > 1).any():
                survey.samples.setdefault("map.double", int(physical[int(np.argmax(counts[place] > 1))]))

    def _doubles_of_cache(self, survey: Survey) -> None:
        """Physical blocks that a cache entry and another block share."""
        _, physical = self.hidden.mapped
        inside = physical[(physical >= self._base) & (physical < self._end)]
        if not len(inside):
            return
        unique, counts = np.unique(inside, return_counts=True)
        survey.doubles += int(np.count_nonzero(counts > 1))
        zones = np.unique(self.zone_of(unique))
        for group in self.groups(zones, survey.live):
            mine = unique[np.isin(self.zone_of(unique), group)]
            _, tables = self.pairs_in_few(mine)
            survey.doubles += int(np.count_nonzero(np.isin(mine, tables)))

    def pairs_in_few(self, physical: IntArray) -> tuple[IntArray, IntArray]:
        """Forward pairs that name one of a few ``physical`` blocks, found through the reverse table.

        In zones where the tables disagree the reverse table proves nothing, but there
        :meth:`_compare_zones` has looked at every pair already.
        """
        owners = []
        for page in np.unique((physical - self._base) // PAGE_ENTRIES).tolist():
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

    # -- checksums

    def _judge_checksums(self, survey: Survey) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
        """Bad CRC pages, and bad table pages under good CRC pages."""
        bad_crc, bad_pages = [], []
        count = self.geometry.crc_count
        current = self.state.current
        for direction in Direction:
            stored = self.tables.crc_pages(direction)
            found = crc16_pages(stored.view(np.uint8))
            if current is None:
                expected: Words = np.full(count, layout.EMPTY_CRC_PAGE_CRC, np.uint16)
            else:
                expected = current.md_crcs[direction * 2048 :][:count]
            wrong = found != expected
            bad_crc.append(np.flatnonzero(wrong))
            promised = stored.reshape(-1)[: self.geometry.map_count]
            doubtful = np.repeat(wrong, layout.CRC_PAGE_ENTRIES)[: self.geometry.map_count]
            bad_pages.append(np.flatnonzero((promised != survey.page_crcs[direction]) & ~doubtful))
        return (bad_crc[0], bad_crc[1]), (bad_pages[0], bad_pages[1])


def _hash(logical: IntArray, physical: IntArray) -> npt.NDArray[np.uint64]:
    """64 well-mixed bits of each pair."""
    mixed = logical.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += physical.view(np.uint64)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _sum_by_zone(sums: npt.NDArray[np.uint64], zones: IntArray, values: npt.NDArray[np.uint64]) -> None:
    """Add each value to its zone's sum (modulo 2^64); zones come in runs."""
    if not len(zones):
        return
    starts = np.concatenate(([0], np.flatnonzero(zones[1:] != zones[:-1]) + 1))
    np.add.at(sums, zones[starts], np.add.reduceat(values, starts))
