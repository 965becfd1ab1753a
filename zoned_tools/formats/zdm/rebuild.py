"""Deciding what the tables should hold: forward and reverse table rebuilt from each other.

Zones where both agree are left alone. Elsewhere an entry is kept that the other table
confirms, or that a page with a good checksum holds and nobody else claims; otherwise the
one place that the reverse table names is taken; otherwise the mapping is dropped and
named. Then discard extents and map cache are folded in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES, ZONE_BLOCKS
from zoned_tools.formats.zdm.pages import PageStore
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

_NONE = np.zeros(0, np.int64)
_NO_PAIRS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, slots=True)
class Drop:
    """Mappings that are given up for one reason.

    Attributes:
        code: the rule that they break.
        logical: ascending.
        physical: what the entry named, -1 for no place in the data area.
        proved: both tables, or the map cache, said so: the entry is not just damaged.
    """

    code: str
    logical: IntArray
    physical: IntArray
    proved: bool = False


@dataclass(slots=True)
class Rebuilt:
    """Table pages with their new content, and what was decided.

    Attributes:
        drops: mappings that are given up.
        recovered: logical blocks whose mapping was taken from the reverse table.
        ties: rows ``(physical, logical block that keeps it, logical block that loses it)`` where nothing
            but their order decides.
    """

    pages: PageStore
    drops: list[Drop] = field(default_factory=list)
    recovered: IntArray = field(default_factory=_NONE.copy)
    ties: IntArray = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def drop(self, code: str, logical: IntArray, physical: IntArray, *, proved: bool = False) -> None:
        """Note dropped mappings, if there are any."""
        if len(logical):
            order = np.argsort(logical, kind="stable")
            self.drops.append(Drop(code, logical[order], physical[order], proved))


@dataclass(slots=True)
class _Doubts:
    """What is not confirmed; parallel arrays.

    Attributes:
        claims: forward entries ``(logical, physical)`` without confirmation, physical -1
            when outside the data area.
        claimed: the physical block is confirmed for another logical block.
        beyond: confirmed entries ``(logical, physical)`` above their zone's limit.
        lonely: reverse entries ``(logical, physical)`` without confirmation.
    """

    claims: IntArray
    claimed: BoolArray
    beyond: IntArray
    lonely: IntArray


def rebuild(state: State, survey: Survey) -> Rebuilt:
    """Decide; only pages in memory are changed."""
    return _Rebuilder(state, survey).run()


class _Rebuilder:
    """Works on one state and its survey."""

    def __init__(self, state: State, survey: Survey) -> None:
        self._state = state
        self._survey = survey
        self._geometry = state.geometry
        self._pairs = survey.pairs
        self._limits = _repair_limits(state, survey.pairs.limits)
        self._base = self._geometry.table_base
        self._result = Rebuilt(PageStore(survey.pairs.tables, verify=False))

    def run(self) -> Rebuilt:
        doubts = self._collect()
        forward, reverse = self._settle(doubts)
        self._apply(forward, reverse)
        self._fold()
        self._clear_strays()
        for direction in Direction:
            for page in self._survey.unread_pages[direction].tolist():
                self._result.pages.mutable(self._state.tables.start(direction) + page)
        return self._result

    # -- evidence

    def _collect(self) -> _Doubts:
        pairs, survey = self._pairs, self._survey
        claims, claimed, beyond, lonely = [], [], [], []
        zones = np.union1d(survey.suspect_zones, np.flatnonzero(survey.beyond))
        for group in pairs.groups(zones, survey.live):
            rows = np.full(self._geometry.data_zones, -1, np.int64)
            rows[group] = np.arange(len(group))
            logical, physical = pairs.pairs_in(group)
            owners = pairs.owners_in(group).reshape(-1)
            zone = pairs.zone_of(physical)
            place = rows[zone] * ZONE_BLOCKS + (physical - self._base) % ZONE_BLOCKS
            agree = owners[place] == logical
            above = ~self._below_limit(physical, drive_only=True)
            confirmed = np.zeros(len(owners), np.bool_)
            confirmed[place[agree & ~above]] = True
            claims.append(np.stack([logical[~agree], physical[~agree]], axis=1))
            claimed.append(confirmed[place[~agree]])
            beyond.append(np.stack([logical[agree & above], physical[agree & above]], axis=1))
            confirmed[place[agree & above]] = True  # cleared with their forward entries
            at = np.flatnonzero((owners >= 0) & ~confirmed)
            blocks = self._base + group[at // ZONE_BLOCKS] * ZONE_BLOCKS + at % ZONE_BLOCKS
            lonely.append(np.stack([owners[at], blocks], axis=1))
        outside = self._outside()
        claims.append(np.stack([outside, np.full(len(outside), -1, np.int64)], axis=1))
        claimed.append(np.zeros(len(outside), np.bool_))
        return _Doubts(
            np.concatenate(claims), np.concatenate(claimed), _joined(beyond, _NO_PAIRS), _joined(lonely, _NO_PAIRS)
        )

    def _outside(self) -> IntArray:
        """Logical blocks whose forward entry names nothing in the data area."""
        if not self._survey.fwd_range:
            return _NONE
        found = []
        end = self._base + self._geometry.area_blocks
        for chunk in self._pairs.tables.chunks(Direction.FORWARD):
            flat = chunk.entries.reshape(-1).astype(np.int64)
            at = np.flatnonzero((flat < layout.UNMAPPED_ALTERNATIVE) & ((flat < self._base) | (flat >= end)))
            found.append(chunk.pages[at // PAGE_ENTRIES] * PAGE_ENTRIES + at % PAGE_ENTRIES)
        logical = _joined(found, _NONE)
        return logical[~self._pairs.hidden.mask_of(logical)]

    # -- decisions

    def _page_is_bad(self, direction: Direction, entries: IntArray) -> BoolArray:
        bad = (self._survey.bad_pages[direction], self._survey.unread_pages[direction])
        mask: BoolArray = np.isin(entries // PAGE_ENTRIES, np.concatenate(bad))
        return mask

    def _below_limit(self, physical: IntArray, *, drive_only: bool = False) -> BoolArray:
        """Which blocks can hold data; with ``drive_only`` by the drive's word, not by what was recorded."""
        zone = (physical - self._base) // ZONE_BLOCKS
        limit = self._limits[zone]
        if drive_only:
            limit = np.where(self._state.zones.conventional[zone], ZONE_BLOCKS, limit)
        mask: BoolArray = (physical - self._base) % ZONE_BLOCKS < limit
        return mask

    def _settle(self, doubts: _Doubts) -> tuple[IntArray, IntArray]:
        """New forward entries ``(logical, physical or -1)`` and new reverse entries ``(physical, logical or -1)``."""
        logical, physical = doubts.claims[:, 0], doubts.claims[:, 1]
        keeps = self._kept_claims(doubts)
        taken = physical[keeps]
        names, places = self._places_by_reverse(doubts.lonely, taken)
        lost = np.concatenate([logical[~keeps], doubts.beyond[:, 0]])
        found = _lookup(names, places, lost)
        self._note_drops(doubts, keeps, found)
        # What looks unmapped, but in a page that cannot be trusted, is where the reverse table puts it.
        missing = self._page_is_bad(Direction.FORWARD, names) & ~np.isin(names, logical) & ~np.isin(names, lost)
        forward = np.concatenate([np.stack([lost, found], axis=1), np.stack([names[missing], places[missing]], axis=1)])
        mapped = forward[forward[:, 1] >= 0]
        self._result.recovered = np.sort(mapped[:, 0])
        cleared = np.concatenate([doubts.lonely[:, 1], doubts.beyond[:, 1]])
        reverse = np.concatenate(
            [
                np.stack([cleared, np.full(len(cleared), -1, np.int64)], axis=1),
                mapped[:, ::-1],
                np.stack([taken, logical[keeps]], axis=1),
            ]
        )
        return forward, _last_of_each(reverse)

    def _kept_claims(self, doubts: _Doubts) -> BoolArray:
        """Claims to keep: in a good page, below the limit, confirmed for nobody else, the first for their block."""
        logical, physical = doubts.claims[:, 0], doubts.claims[:, 1]
        possible = (physical >= 0) & ~doubts.claimed & ~self._page_is_bad(Direction.FORWARD, logical)
        at = np.flatnonzero(possible)
        at = at[self._below_limit(physical[at])]
        _, first, group = np.unique(physical[at], return_index=True, return_inverse=True)
        keeps = np.zeros(len(logical), np.bool_)
        keeps[at[first]] = True
        self._note_ties(logical[at], physical[at], logical[at[first]][group])
        return keeps

    def _note_ties(self, logical: IntArray, physical: IntArray, winner: IntArray) -> None:
        loses = logical != winner
        rows = np.stack([physical[loses], winner[loses], logical[loses]], axis=1)
        self._result.ties = np.concatenate([self._result.ties, rows])

    def _places_by_reverse(self, lonely: IntArray, taken: IntArray) -> tuple[IntArray, IntArray]:
        """Logical blocks, ascending, that the reverse table puts in one usable place, and that place."""
        owner, block = lonely[:, 0], lonely[:, 1]
        good = ~self._page_is_bad(Direction.REVERSE, block - self._base) & self._below_limit(block)
        good &= ~np.isin(block, taken)
        names, index, counts = np.unique(owner[good], return_index=True, return_counts=True)
        places = block[good][index]
        return names[counts == 1], places[counts == 1]

    def _note_drops(self, doubts: _Doubts, keeps: BoolArray, found: IntArray) -> None:
        """Mappings without a place, by what is wrong with them; ``found`` is parallel to claims and beyond."""
        claims = doubts.claims[~keeps]
        without = found[: len(claims)] < 0
        logical, physical = claims[without, 0], claims[without, 1]
        tied = np.isin(logical, self._result.ties[:, 2])
        outside = physical < 0
        above = ~outside & ~self._below_limit(np.where(outside, self._base, physical))
        owned = ~outside & ~above & doubts.claimed[~keeps][without]
        left = ~(outside | above | owned | tied)
        for code, mask in (
            ("fwd.range", outside),
            ("fwd.beyond_wp", above),
            ("map.double", owned),
            ("lut.crc.fwd", left),
        ):
            self._result.drop(code, logical[mask], physical[mask])
        gone = doubts.beyond[found[len(claims) :] < 0]
        self._result.drop("fwd.beyond_wp", gone[:, 0], gone[:, 1], proved=True)

    def _apply(self, forward: IntArray, reverse: IntArray) -> None:
        pages, start = self._result.pages, self._geometry.data_start
        values = np.where(forward[:, 1] < 0, layout.UNMAPPED, forward[:, 1])
        pages.scatter(Direction.FORWARD, forward[:, 0], values)
        owners = np.where(reverse[:, 1] < 0, layout.UNMAPPED, reverse[:, 1] + start)
        pages.scatter(Direction.REVERSE, reverse[:, 0] - self._base, owners)

    # -- cache and discards

    def _fold(self) -> None:
        """Map cache and discard extents into the tables."""
        hidden, pages, start = self._pairs.hidden, self._result.pages, self._geometry.data_start
        for first, count in hidden.discards:
            self._unmap_range(first, count)
        inside = (hidden.logical >= 0) & (hidden.logical < self._geometry.area_blocks)
        inside &= ~hidden.discards.mask_of(hidden.logical)
        logical, wanted = hidden.logical[inside], hidden.physical[inside]
        usable = self._usable_cache_blocks(logical, wanted)
        physical = np.where(usable, wanted, layout.UNMAPPED)
        pages.scatter(Direction.FORWARD, logical, physical)
        pages.scatter(Direction.REVERSE, physical[usable] - self._base, logical[usable] + start)

    def _usable_cache_blocks(self, logical: IntArray, physical: IntArray) -> BoolArray:
        """Cache entries to believe: inside, below the limit, first to name the block, not confirmed for another."""
        usable = (physical >= self._base) & (physical < self._base + self._geometry.area_blocks)
        outside = ~usable & (physical != 0)
        self._result.drop("cache.range", logical[outside], np.full(np.count_nonzero(outside), -1, np.int64))
        at = np.flatnonzero(usable)
        blocks, names = physical[at], logical[at]
        fine = self._below_limit(blocks, drive_only=True)
        _, index, group = np.unique(blocks, return_index=True, return_inverse=True)
        first = np.zeros(len(blocks), np.bool_)
        first[index] = True
        owned = self._owned_by_tables(blocks)
        self._result.drop("fwd.beyond_wp", names[~fine], blocks[~fine], proved=True)
        self._result.drop("map.double", names[fine & owned], blocks[fine & owned])
        tied = fine & ~owned
        self._note_ties(names[tied], blocks[tied], names[index][group][tied])
        usable[at] = tied & first
        return usable

    def _owned_by_tables(self, blocks: IntArray) -> BoolArray:
        """Which blocks both tables give to a logical block that is not hidden."""
        owners = self._result.pages.gather(Direction.REVERSE, blocks - self._base) - self._geometry.data_start
        owned = (owners >= 0) & (owners < self._geometry.area_blocks) & ~self._pairs.hidden.mask_of(owners)
        candidates = np.flatnonzero(owned)
        named = self._result.pages.gather(Direction.FORWARD, owners[candidates])
        owned[candidates] = named == blocks[candidates]
        return owned

    def _unmap_range(self, first: int, count: int) -> None:
        """Clear the forward entries of a discard extent, page by page."""
        low = max(first, 0)
        high = min(first + count, self._geometry.area_blocks)
        if low >= high:
            return
        pages = self._result.pages
        end_page = (high - 1) // PAGE_ENTRIES + 1
        used = [
            page
            for chunk in self._pairs.tables.chunks(Direction.FORWARD, low // PAGE_ENTRIES, end_page)
            for page in chunk.pages.tolist()
        ]
        changed = [h - self._geometry.forward_start for h in list(pages.dirty) if h < self._geometry.reverse_start]
        used += [page for page in changed if low // PAGE_ENTRIES <= page < end_page]
        for page in sorted(set(used)):
            start, end = max(low, page * PAGE_ENTRIES), min(high, (page + 1) * PAGE_ENTRIES)
            indices = np.arange(start, end, dtype=np.int64)
            pages.scatter(Direction.FORWARD, indices, np.full(end - start, layout.UNMAPPED, np.int64))

    def _clear_strays(self) -> None:
        """Clear reverse entries that name no logical block, or a hidden one that now lives elsewhere."""
        pages, start = self._result.pages, self._geometry.data_start
        end = self._base + self._geometry.area_blocks
        hidden = self._pairs.hidden
        if not (self._survey.rev_range or len(hidden.logical) or len(hidden.discards)):
            return
        for chunk in self._pairs.tables.chunks(Direction.REVERSE):
            flat = chunk.entries.reshape(-1).astype(np.int64)
            at = np.flatnonzero(flat < layout.UNMAPPED_ALTERNATIVE)
            index = chunk.pages[at // PAGE_ENTRIES] * PAGE_ENTRIES + at % PAGE_ENTRIES
            inside = (flat[at] >= self._base) & (flat[at] < end)
            logical = flat[at] - start
            suspect = ~inside | hidden.mask_of(logical)
            index, logical, inside = index[suspect], logical[suspect], inside[suspect]
            stray = ~inside
            named = pages.gather(Direction.FORWARD, logical[inside])
            stray[inside] = named != index[inside] + self._base
            # Decisions may have changed these entries since: only what still holds the old owner goes.
            index, logical = index[stray], logical[stray]
            unchanged = pages.gather(Direction.REVERSE, index) == logical + start
            index = index[unchanged]
            pages.scatter(Direction.REVERSE, index, np.full(len(index), layout.UNMAPPED, np.int64))


def _repair_limits(state: State, limits: IntArray) -> IntArray:
    """Limits that repair believes: the record of a conventional zone counts only if its block is intact."""
    limits = limits.copy()
    for group in state.wp_bad:
        part = slice(group * layout.GROUP_ZONES, (group + 1) * layout.GROUP_ZONES)
        limits[part][state.zones.conventional[part]] = ZONE_BLOCKS
    return limits


def _joined(parts: list[IntArray], empty: IntArray) -> IntArray:
    return np.concatenate(parts) if parts else empty


def _lookup(names: IntArray, values: IntArray, wanted: IntArray) -> IntArray:
    """The value of each of ``wanted`` by ascending ``names``, -1 for those that are not there."""
    if not len(names):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[at] == wanted, values[at], -1)


def _last_of_each(rows: IntArray) -> IntArray:
    """Of the rows with equal first columns, the last."""
    _, index = np.unique(rows[::-1, 0], return_index=True)
    last: IntArray = rows[::-1][index]
    return last
