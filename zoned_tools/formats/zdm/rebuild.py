"""Deciding what the tables should hold: forward and reverse table rebuilt from each other.

Zones where both agree are left alone. Elsewhere an entry is kept that the other table
confirms, or that a page with a good checksum holds and nobody else claims; otherwise the
one place that the reverse table names is taken; otherwise the mapping is dropped and
reported. Then discard extents and map cache are folded in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zoned_tools.device.zones import BoolArray, IntArray
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES, ZONE_BLOCKS
from zoned_tools.formats.zdm.pages import PageStore
from zoned_tools.formats.zdm.state import State
from zoned_tools.formats.zdm.survey import Survey, Surveyor
from zoned_tools.formats.zdm.tables import Direction

_NONE = np.zeros(0, np.int64)


@dataclass(slots=True)
class Rebuilt:
    """Table pages with their new content, and what was lost.

    Attributes:
        dropped: logical blocks whose mapping was dropped.
        recovered: logical blocks whose mapping was taken from the reverse table.
    """

    pages: PageStore
    dropped: list[int] = field(default_factory=list)
    recovered: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Evidence:
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


class Rebuilder:
    """Works on one state and its survey."""

    def __init__(self, state: State, survey: Survey) -> None:
        self._state = state
        self._survey = survey
        self._geometry = state.geometry
        self._surveyor = Surveyor(state)
        self._limits = _repair_limits(state, self._surveyor.limits)
        self._base = self._geometry.table_base
        self._result = Rebuilt(PageStore(state.tables, verify=False))

    def run(self) -> Rebuilt:
        evidence = self._collect()
        forward, reverse = self._settle(evidence)
        self._apply(forward, reverse)
        self._fold()
        self._clear_strays()
        return self._result

    # -- evidence

    def _collect(self) -> _Evidence:
        surveyor, survey = self._surveyor, self._survey
        claims, claimed, beyond, lonely = [], [], [], []
        zones = np.union1d(survey.suspect_zones, np.flatnonzero(survey.beyond))
        for group in surveyor.groups(zones, survey.live):
            rows = np.full(self._geometry.data_zones, -1, np.int64)
            rows[group] = np.arange(len(group))
            logical, physical = surveyor.pairs_in(group)
            owners = surveyor.owners_in(group).reshape(-1)
            zone = surveyor.zone_of(physical)
            offset = (physical - self._base) % ZONE_BLOCKS
            place = rows[zone] * ZONE_BLOCKS + offset
            agree = owners[place] == logical
            above = offset >= np.where(self._state.zones.conventional[zone], ZONE_BLOCKS, self._limits[zone])
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
        pairs = np.zeros((0, 2), np.int64)
        return _Evidence(
            np.concatenate(claims), np.concatenate(claimed), _joined(beyond, pairs), _joined(lonely, pairs)
        )

    def _outside(self) -> IntArray:
        """Logical blocks whose forward entry names nothing in the data area."""
        if not self._survey.fwd_range:
            return _NONE
        found = []
        end = self._base + self._geometry.area_blocks
        for chunk in self._surveyor.tables.chunks(Direction.FORWARD):
            flat = chunk.entries.reshape(-1).astype(np.int64)
            at = np.flatnonzero((flat < layout.UNMAPPED_ALTERNATIVE) & ((flat < self._base) | (flat >= end)))
            found.append(chunk.pages[at // PAGE_ENTRIES] * PAGE_ENTRIES + at % PAGE_ENTRIES)
        logical = _joined(found, _NONE)
        return logical[~self._surveyor.hidden.mask_of(logical)]

    # -- decisions

    def _page_is_bad(self, direction: Direction, entries: IntArray) -> BoolArray:
        mask: BoolArray = np.isin(entries // PAGE_ENTRIES, self._survey.bad_pages[direction])
        return mask

    def _below_limit(self, physical: IntArray) -> BoolArray:
        zone = (physical - self._base) // ZONE_BLOCKS
        mask: BoolArray = (physical - self._base) % ZONE_BLOCKS < self._limits[zone]
        return mask

    def _settle(self, evidence: _Evidence) -> tuple[IntArray, IntArray]:
        """New forward entries ``(logical, physical or -1)`` and new reverse entries ``(physical, logical or -1)``."""
        logical, physical = evidence.claims[:, 0], evidence.claims[:, 1]
        possible = np.flatnonzero((physical >= 0) & ~evidence.claimed & ~self._page_is_bad(Direction.FORWARD, logical))
        possible = possible[self._below_limit(physical[possible])]
        _, first = np.unique(physical[possible], return_index=True)
        kept = possible[np.sort(first)]  # of several claims to one block, the first is kept
        keeps = np.zeros(len(logical), np.bool_)
        keeps[kept] = True
        taken = physical[kept]

        owner, block = evidence.lonely[:, 0], evidence.lonely[:, 1]
        good = ~self._page_is_bad(Direction.REVERSE, block - self._base) & self._below_limit(block)
        good &= ~np.isin(block, taken)
        names, index, counts = np.unique(owner[good], return_index=True, return_counts=True)
        only = {int(n): int(block[good][i]) for n, i, c in zip(names, index, counts, strict=True) if c == 1}

        forward: dict[int, int] = {}
        for lost in np.concatenate([logical[~keeps], evidence.beyond[:, 0]]).tolist():
            forward[lost] = only.get(lost, -1)
        unmapped = names[self._page_is_bad(Direction.FORWARD, names) & ~np.isin(names, logical)]
        for missing in unmapped.tolist():  # looks unmapped, but in a page that cannot be trusted
            if missing in only and missing not in forward:
                forward[missing] = only[missing]
        self._result.dropped += sorted(lo for lo, p in forward.items() if p < 0)
        self._result.recovered += sorted(lo for lo, p in forward.items() if p >= 0)

        reverse = {int(p): -1 for p in np.concatenate([block, evidence.beyond[:, 1]])}
        reverse.update({p: lo for lo, p in forward.items() if p >= 0})
        reverse.update(zip(taken.tolist(), logical[kept].tolist(), strict=True))
        return _rows(forward), _rows(reverse)

    def _apply(self, forward: IntArray, reverse: IntArray) -> None:
        pages, start = self._result.pages, self._geometry.data_start
        values = np.where(forward[:, 1] < 0, layout.UNMAPPED, forward[:, 1])
        pages.scatter(Direction.FORWARD, forward[:, 0], values)
        owners = np.where(reverse[:, 1] < 0, layout.UNMAPPED, reverse[:, 1] + start)
        pages.scatter(Direction.REVERSE, reverse[:, 0] - self._base, owners)

    # -- cache and discards

    def _fold(self) -> None:
        """Map cache and discard extents into the tables."""
        hidden, pages, start = self._surveyor.hidden, self._result.pages, self._geometry.data_start
        for first, count in hidden.discards:
            self._unmap_range(first, count)
        inside = (hidden.logical >= 0) & (hidden.logical < self._geometry.area_blocks)
        inside &= ~hidden.discards.mask_of(hidden.logical)
        logical, wanted = hidden.logical[inside], hidden.physical[inside]
        usable = self._usable_cache_blocks(wanted)
        self._result.dropped += logical[(wanted != 0) & ~usable].tolist()
        physical = np.where(usable, wanted, layout.UNMAPPED)
        pages.scatter(Direction.FORWARD, logical, physical)
        pages.scatter(Direction.REVERSE, physical[usable] - self._base, logical[usable] + start)

    def _usable_cache_blocks(self, physical: IntArray) -> BoolArray:
        """Cache entries to believe: inside, below the limit, first to name the block, not confirmed for another."""
        end = self._base + self._geometry.area_blocks
        usable = (physical >= self._base) & (physical < end)
        at = np.flatnonzero(usable)
        blocks = physical[at]
        zone = (blocks - self._base) // ZONE_BLOCKS
        limit = np.where(self._state.zones.conventional[zone], ZONE_BLOCKS, self._limits[zone])
        fine = (blocks - self._base) % ZONE_BLOCKS < limit
        first = np.zeros(len(blocks), np.bool_)
        first[np.unique(blocks, return_index=True)[1]] = True
        owners = self._result.pages.gather(Direction.REVERSE, blocks - self._base) - self._geometry.data_start
        owned = (owners >= 0) & (owners < self._geometry.area_blocks) & ~self._surveyor.hidden.mask_of(owners)
        candidates = np.flatnonzero(owned)
        named = self._result.pages.gather(Direction.FORWARD, owners[candidates])
        owned[candidates] = named == blocks[candidates]
        usable[at] = fine & first & ~owned
        return usable

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
            for chunk in self._surveyor.tables.chunks(Direction.FORWARD, low // PAGE_ENTRIES, end_page)
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
        hidden = self._surveyor.hidden
        if not (self._survey.rev_range or len(hidden.logical) or len(hidden.discards)):
            return
        for chunk in self._surveyor.tables.chunks(Direction.REVERSE):
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


def _rows(entries: dict[int, int]) -> IntArray:
    return np.array(list(entries.items()), np.int64).reshape(-1, 2)
