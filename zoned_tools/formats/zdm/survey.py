"""One streamed pass over both tables: agreement, ranges, live counts, checksums; memory stays bounded.

The forward table is a set of pairs (logical, physical) and so is the reverse table. Instead
of looking every pair up in the other table, each pair is hashed and the hashes are summed
for each data zone: only zones whose sums differ are then compared pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import value_runs
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.layout import ZONE_BLOCKS
from zoned_tools.formats.zdm.losses import doubtful_crc_pages, unread_crc_pages
from zoned_tools.formats.zdm.pairs import TablePairs
from zoned_tools.formats.zdm.tables import Chunk, Direction

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.open import State

_NO_PAGES = np.zeros(0, np.int64)


@dataclass(slots=True)
class Survey:
    """What the pass found; arrays of zones have one element a data zone.

    Attributes:
        pairs: what was compared; who works on the tables goes on with it.
        page_crcs: checksum of every live table page, forward and reverse.
        bad_pages: table pages that do not match their CRC page, forward and reverse.
        bad_crc_pages: CRC pages that do not match the generation, forward and reverse.
        unread_pages: table pages that cannot be read, forward and reverse; they are taken for empty, and nothing that
            this contradicts is counted.
        live: resolved blocks.
        beyond: resolved blocks at or above the zone's limit.
        highest: end of the highest resolved block in the zone, 0 when there is none.
        suspect_zones: zones where the tables disagree.
        samples: one block for each code that was met.
    """

    pairs: TablePairs
    page_crcs: tuple[Words, Words]
    live: IntArray
    beyond: IntArray
    highest: IntArray
    bad_pages: tuple[IntArray, IntArray] = (_NO_PAGES, _NO_PAGES)
    bad_crc_pages: tuple[IntArray, IntArray] = (_NO_PAGES, _NO_PAGES)
    unread_pages: tuple[IntArray, IntArray] = (_NO_PAGES, _NO_PAGES)
    mapped: int = 0
    fwd_range: int = 0
    fwd_norev: int = 0
    rev_range: int = 0
    rev_nofwd: int = 0
    doubles: int = 0
    used_pages: list[int] = field(default_factory=lambda: [0, 0])
    suspect_zones: IntArray = field(default_factory=_NO_PAGES.copy)
    samples: dict[str, int] = field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """Whether every entry is in range, confirmed by the other table, and the only one for its block."""
        return not (self.fwd_norev or self.rev_nofwd or self.doubles or self.fwd_range or self.rev_range)


def survey(state: State) -> Survey:
    """Read both tables of the current generation once, and compare them.

    Raises:
        MetadataError: the map cache is impossible.
    """
    found = _Pass(state).run()
    found.pairs.tables = state.tables.strictly()  # who goes on with them takes the rest for read
    return found


class _Pass:
    """The pass over one state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pairs = pairs = TablePairs(state)
        geometry = state.geometry
        crcs = tuple(np.full(geometry.map_count, layout.EMPTY_PAGE_CRC, np.uint16) for _ in Direction)
        zeroes = np.zeros(geometry.data_zones, np.int64)
        self._found = Survey(pairs, (crcs[0], crcs[1]), zeroes, zeroes.copy(), zeroes.copy())

    def run(self) -> Survey:
        found, pairs = self._found, self._pairs
        found.suspect_zones = np.flatnonzero(self._compare_sums())
        found.unread_pages = (self._unread(Direction.FORWARD), self._unread(Direction.REVERSE))
        logical, physical = pairs.hidden.mapped
        inside = (physical >= pairs.base) & (physical < pairs.end)
        found.mapped += int(np.count_nonzero(~inside))
        self._count(logical[inside], physical[inside])
        self._compare_zones()
        self._doubles_of_cache()
        found.bad_crc_pages, found.bad_pages = self._judge_checksums()
        return found

    def _compare_sums(self) -> npt.NDArray[np.uint64]:
        """Sum of the hashes of the forward pairs of each zone, less those of the reverse pairs."""
        found, pairs = self._found, self._pairs
        sums = np.zeros(pairs.geometry.data_zones, np.uint64)
        for chunk in pairs.tables.chunks(Direction.FORWARD):
            self._note(Direction.FORWARD, chunk)
            forward = pairs.forward_pairs(chunk)
            found.fwd_range += forward.outside
            found.mapped += forward.outside
            if forward.outside:
                found.samples.setdefault("fwd.range", forward.first_outside)
            self._count(forward.logical, forward.physical)
            _sum_by_zone(sums, pairs.zone_of(forward.physical), _hash(forward.logical, forward.physical))
        for chunk in pairs.tables.chunks(Direction.REVERSE):
            self._note(Direction.REVERSE, chunk)
            reverse = pairs.reverse_pairs(chunk)
            found.rev_range += reverse.outside
            if reverse.outside:
                found.samples.setdefault("rev.range", reverse.first_outside)
            negative = ~_hash(reverse.logical, reverse.physical) + np.uint64(1)
            _sum_by_zone(sums, pairs.zone_of(reverse.physical), negative)
        return sums

    def _unread(self, direction: Direction) -> IntArray:
        tables = self._pairs.tables
        return tables.unread_pages(tables.start(direction), tables.geometry.map_count)

    def _note(self, direction: Direction, chunk: Chunk) -> None:
        self._found.page_crcs[direction][chunk.pages] = chunk.crcs
        self._found.used_pages[direction] += len(chunk.pages)

    def _count(self, logical: IntArray, physical: IntArray) -> None:
        """Live blocks and those beyond the limit, by zone."""
        found, pairs = self._found, self._pairs
        found.mapped += len(physical)
        if not len(physical):
            return
        zone = pairs.zone_of(physical)
        offset = (physical - pairs.base) & (ZONE_BLOCKS - 1)
        bounds = value_runs(zone)  # neighbours mostly live in one zone: work on runs
        zones, ends = zone[bounds[:, 0]], np.maximum.reduceat(offset, bounds[:, 0]) + 1
        np.add.at(found.live, zones, bounds[:, 1] - bounds[:, 0])
        np.maximum.at(found.highest, zones, ends)
        if (ends > pairs.limits[zones]).any():
            beyond = offset >= pairs.limits[zone]
            found.beyond += np.bincount(zone[beyond], minlength=pairs.geometry.data_zones)
            found.samples.setdefault("fwd.beyond_wp", int(logical[int(np.argmax(beyond))]))

    # -- pair by pair, where the sums differ

    def _compare_zones(self) -> None:
        found, pairs = self._found, self._pairs
        for zones in pairs.groups(found.suspect_zones, found.live):
            rows = np.full(pairs.geometry.data_zones, -1, np.int64)
            rows[zones] = np.arange(len(zones))
            logical, physical = pairs.pairs_in(zones)
            owners = pairs.owners_in(zones).reshape(-1)
            place = rows[pairs.zone_of(physical)] * ZONE_BLOCKS + (physical - pairs.base) % ZONE_BLOCKS
            agree = owners[place] == logical
            confirmed = np.zeros(len(owners), np.bool_)
            confirmed[place[agree]] = True
            lonely = (owners >= 0) & ~confirmed
            untold = ~agree & self._is_unread(Direction.REVERSE, physical - pairs.base)
            alone = np.flatnonzero(lonely)
            shift = pairs.geometry.data_start - pairs.base
            lonely[alone[self._is_unread(Direction.FORWARD, owners[alone] + shift)]] = False
            agree |= untold
            shared = np.bincount(place, minlength=len(owners)) > 1
            found.fwd_norev += int(np.count_nonzero(~agree))
            found.rev_nofwd += int(np.count_nonzero(lonely))
            found.doubles += int(np.count_nonzero(shared))
            if not agree.all():
                found.samples.setdefault("fwd.norev", int(logical[int(np.argmin(agree))]))
            if lonely.any():
                at = int(np.argmax(lonely))
                first = pairs.base + int(zones[at // ZONE_BLOCKS]) * ZONE_BLOCKS
                found.samples.setdefault("rev.nofwd", first + at % ZONE_BLOCKS)
            if shared.any():
                found.samples.setdefault("map.double", int(physical[int(np.argmax(shared[place]))]))

    def _is_unread(self, direction: Direction, entries: IntArray) -> npt.NDArray[np.bool_]:
        """Which table entries are in a page that cannot be read."""
        mask: npt.NDArray[np.bool_] = np.isin(entries // layout.PAGE_ENTRIES, self._found.unread_pages[direction])
        return mask

    def _doubles_of_cache(self) -> None:
        """Physical blocks that a cache entry and another block share."""
        found, pairs = self._found, self._pairs
        _, physical = pairs.hidden.mapped
        inside = physical[(physical >= pairs.base) & (physical < pairs.end)]
        if not len(inside):
            return
        unique, counts = np.unique(inside, return_counts=True)
        found.doubles += int(np.count_nonzero(counts > 1))
        zones = np.unique(pairs.zone_of(unique))
        for group in pairs.groups(zones, found.live):
            mine = unique[np.isin(pairs.zone_of(unique), group)]
            _, tables = pairs.pairs_in_few(mine)
            found.doubles += int(np.count_nonzero(np.isin(mine, tables)))

    # -- checksums

    def _judge_checksums(self) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
        """Bad CRC pages, and bad table pages under good CRC pages."""
        bad_crc, bad_pages = [], []
        for direction in Direction:
            stored = self._pairs.tables.crc_pages(direction)
            wrong = doubtful_crc_pages(self._state, direction, crc16_pages(stored.view(np.uint8)))
            told = np.setdiff1d(np.flatnonzero(wrong), unread_crc_pages(self._pairs.tables, direction))
            bad_crc.append(told)
            promised = stored.reshape(-1)[: self._pairs.geometry.map_count]
            doubtful = np.repeat(wrong, layout.CRC_PAGE_ENTRIES)[: self._pairs.geometry.map_count]
            differs = np.flatnonzero((promised != self._found.page_crcs[direction]) & ~doubtful)
            bad_pages.append(np.setdiff1d(differs, self._found.unread_pages[direction]))
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
    starts = value_runs(zones)[:, 0]
    np.add.at(sums, zones[starts], np.add.reduceat(values, starts))
