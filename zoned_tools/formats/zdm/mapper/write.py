"""The mapper that writes: the current dialect, always so that a power cut leaves the last sync whole.

Writes go to the drive at once and into the map cache; a sync moves cached entries to the
tables and writes a generation (:mod:`zoned_tools.formats.zdm.mapper.commit`). What was not synced
is lost as a whole at a power cut, and nothing older with it.
"""

from __future__ import annotations

import errno
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.errors import DeviceError, ZonedError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, Dialect
from zoned_tools.formats.zdm.mapper import reclaim
from zoned_tools.formats.zdm.mapper.allocate import Held, ZoneAllocator, stream_of, zones_of_groups
from zoned_tools.formats.zdm.mapper.commit import MAX_PAGES, GenerationWriter
from zoned_tools.formats.zdm.mapper.read import ZdmReader
from zoned_tools.formats.zdm.mapping import UNMAPPED
from zoned_tools.formats.zdm.survey import survey
from zoned_tools.formats.zdm.tables import Direction

if TYPE_CHECKING:
    import uuid as uuids
    from collections.abc import Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.open import State

KEPT_ENTRIES = 4 * layout.CACHE_PAGE_ENTRIES
"""Cache entries that a flush leaves in cache pages rather than moving them to the tables."""

_CACHE_LIMIT = 100 * layout.CACHE_PAGE_ENTRIES
_DISCARD_LIMIT = 40 * layout.CACHE_PAGE_ENTRIES
_SMALL_DISCARD = 150
assert MAX_PAGES * layout.CACHE_PAGE_ENTRIES > 2 * _CACHE_LIMIT


class ZdmMapper(ZdmReader):
    """The mapper: reads, writes, discards, syncs, reclaims."""

    def __init__(self, state: State, sb_uuid: uuids.UUID) -> None:
        super().__init__(state, writable=True)
        self.zones = ZoneAllocator(state)
        self.writer = GenerationWriter(state, self.pages, self.zones, sb_uuid)
        self._fresh = state.fresh
        self._untidy = _is_untidy(state)
        self._changed = False
        self._reclaiming = False
        self._unsynced = False
        hidden = self._hidden_cache_entries()
        self.zones.credit(self._superseded(hidden))
        self.cache.drop(logical for logical, _ in hidden)
        if state.wp_bad or state.zf_bad:
            doubtful = zones_of_groups(state.wp_bad + state.zf_bad, self.geometry.data_zones)
            self.zones.recount(doubtful, self._held())

    def _hidden_cache_entries(self) -> list[tuple[int, int]]:
        return [e for start, count in self.discards for e in self.cache.within(start, start + count)]

    def _held(self) -> Held:
        """Blocks that a logical block resolves to, and those that only tables name, each once.

        The latter lie below cache entries and discards: they are credited when these move to the tables.
        """
        geometry = self.geometry
        cached, physical = self.cache.arrays()
        found = [self._replaced(cached, physical)]
        for start, count in self.discards:
            for at, blocks in _steps(start, count):
                entries = self.pages.entries(Direction.FORWARD, at, blocks)
                mapped = np.flatnonzero(entries < layout.UNMAPPED_ALTERNATIVE) + at
                found.append(self._replaced(mapped, np.zeros(len(mapped), np.int64)))
        hidden = np.setdiff1d(np.concatenate(found), physical) - geometry.table_base
        zones, offsets = hidden // layout.ZONE_BLOCKS, hidden % layout.ZONE_BLOCKS
        measured = survey(self.state)
        highest = measured.highest.copy()
        np.maximum.at(highest, zones, offsets + 1)
        return Held(measured.live + np.bincount(zones, minlength=geometry.data_zones), highest)

    # -- changes

    def write_blocks(self, block: int, data: memoryview, stream: int) -> None:
        count = len(data) // BLOCK_BYTES
        if count == 1 and not any(data):
            self.discard_blocks(block, 1)
            return
        self._begin()
        self.store(np.arange(block, block + count), data, stream_of(stream))
        self._relieve()

    def discard_blocks(self, block: int, count: int) -> None:
        self._begin()
        cached = self.cache.within(block, block + count)
        if count < _SMALL_DISCARD:
            physical, _ = self.map.resolve(block, count)
            superseded = self._superseded(cached)
            mapped = np.flatnonzero(physical != UNMAPPED) + block
            self.cache.put(mapped.tolist(), repeat(0, len(mapped)))
        else:
            superseded = self._superseded(cached)
            self.cache.drop(logical for logical, _ in cached)
            self.discards.add(block, count)
        self.zones.credit(superseded)
        self._relieve()

    def flush_changes(self) -> None:
        if self._unsynced:
            self.sync()
        else:
            self.state.volume.device.flush()

    def close_cleanly(self) -> None:
        if not self._changed and not self._untidy:
            return
        self._begin()
        self.sync(everything=True)
        self.writer.avoid_blind_area()
        for _ in range(3):  # so that every area, also the one that the reference never reads, holds this state
            self._commit(closed=True)
        self._changed = self._untidy = False

    def _begin(self) -> None:
        """A change follows; ahead of the first one a format that was never started is started."""
        if self._fresh:
            self._start()
            self._fresh = False
        self._changed = self._unsynced = True

    def _start(self) -> None:
        """Empty the data zones and record that, so that what a power cut leaves of later writes is no fresh format."""
        device, first = self.state.volume.device, self.geometry.first_device_zone
        for zone in np.flatnonzero((self.zones.wp > 0) & ~self.zones.closed).tolist():
            if self.zones.sequential[zone]:
                device.manage(ZoneOperation.RESET, first + zone)
            self.zones.clear(zone)
        self._commit()

    # -- pieces that reclaim shares

    def allocate(self, stream: int, wanted: int, avoid: int = -1) -> tuple[int, int]:
        """Blocks to write to; reclaims zones when few are left.

        Raises:
            DeviceError: ENOSPC, nothing can be reclaimed.
        """
        zones = self.zones
        if zones.room(stream) == 0 or int(zones.streams[stream]) == avoid:
            if not self._reclaiming:
                self.reclaim()
            opened = zones.open_zone(stream, avoid, use_reserve=self._reclaiming)
            if not opened:
                raise DeviceError("no zone has room left", device=self.state.path, errno=errno.ENOSPC)
        return zones.take(stream, wanted)

    def store(self, logical: IntArray, data: memoryview, stream: int, avoid: int = -1) -> None:
        """Write blocks to fresh places, not in zone ``avoid``, and map them there.

        Parts that do not fit one zone are written and mapped one after the other. What can fail
        comes before a part is mapped, so that after an error each block has its old or its new content.

        Raises:
            DeviceError: ENOSPC, or what the drive gives.
        """
        done = 0
        while done < len(logical):
            first, taken = self.allocate(stream, len(logical) - done, avoid)
            part = logical[done : done + taken]
            bounds = [0, *(np.flatnonzero(np.diff(part) != 1) + 1).tolist(), taken]
            runs = [(int(part[low]), high - low) for low, high in pairwise(bounds)]
            try:
                superseded = self._superseded([e for at, n in runs for e in self.cache.within(at, at + n)])
                self.state.volume.write(first, data[done * BLOCK_BYTES : (done + taken) * BLOCK_BYTES])
            except ZonedError:
                self.zones.give_back(first, taken)
                raise
            for at, count in runs:
                self.discards.remove(at, count)
            self.cache.put(part.tolist(), range(first, first + taken))
            self.zones.credit(superseded)
            done += taken
        self._changed = self._unsynced = True

    def _superseded(self, cached: list[tuple[int, int]]) -> IntArray:
        """Blocks that are free once these cache entries ``(logical, physical)`` go.

        Those that the table names, too, are not: they are credited when its entry is replaced.
        """
        logical, physical = np.array(cached, np.int64).reshape(-1, 2).T
        base = self.geometry.table_base
        inside = (physical >= base) & (physical < base + self.geometry.area_blocks)
        logical, physical = logical[inside], physical[inside]
        superseded: IntArray = physical[self.pages.gather(Direction.FORWARD, logical) != physical]
        return superseded

    # -- sync

    def sync(self, *, everything: bool = False) -> None:
        """Make the current state durable, in as many generations as the journal needs."""
        while True:
            finished = self._move(everything=everything)
            self._commit()
            if finished:
                self._unsynced = False
                return

    def _commit(self, *, closed: bool = False) -> None:
        self._changed = True
        self.writer.commit(self._cache_rows(), self._discard_rows(), closed=closed)
        if self.writer.crowded and not closed:
            self.writer.checkpoint(self._cache_rows(), self._discard_rows())

    def _cache_rows(self) -> IntArray:
        logical, physical = self.cache.arrays()
        kept = (physical != 0) & ~self.discards.mask_of(logical)
        return np.stack([logical[kept] + self.geometry.data_start, physical[kept]], axis=1)

    def _discard_rows(self) -> IntArray:
        """Discard extents, and trimmed blocks that are not moved yet as extents of one block.

        The reference returns old data for zero entries of the cache.
        """
        logical, physical = self.cache.arrays()
        trimmed = logical[(physical == 0) & ~self.discards.mask_of(logical)]
        extents = np.array(list(self.discards), np.int64).reshape(-1, 2)
        singles = np.stack([trimmed, np.ones_like(trimmed)], axis=1)
        rows: IntArray = np.concatenate([extents, singles]) + np.array([self.geometry.data_start, 0], np.int64)
        return rows

    def _move(self, *, everything: bool) -> bool:
        """Move cache entries to the tables, as many as one generation can journal; True when enough were."""
        logical, physical = self.cache.arrays()
        wanted = physical == 0
        if everything or np.count_nonzero(~wanted) > KEPT_ENTRIES:
            wanted = np.ones(len(logical), np.bool_)
        chosen = np.flatnonzero(wanted)
        chosen = chosen[np.argsort(physical[chosen] != 0, kind="stable")]  # trimmed blocks first
        logical, physical = logical[chosen], physical[chosen]
        count = len(logical)
        while count and self.writer.pages_needed(self._pages_of(logical[:count], physical[:count])) > self._budget():
            if count == 1:
                return False  # the generation that follows, or its checkpoint, makes room
            count //= 2
        self._move_entries(logical[:count], physical[:count])
        return count == len(logical)

    def _budget(self) -> int:
        return self.writer.free_slots

    def _replaced(self, logical: IntArray, physical: IntArray) -> IntArray:
        """Old blocks of these logical blocks, where the reverse table confirms them."""
        geometry = self.geometry
        old = self.pages.gather(Direction.FORWARD, logical)
        base = geometry.table_base
        valid = (old >= base) & (old < base + geometry.area_blocks) & (old != physical)
        at = np.flatnonzero(valid)
        owner = self.pages.gather(Direction.REVERSE, old[at] - base)
        replaced: IntArray = old[at[owner == logical[at] + geometry.data_start]]
        return replaced

    def _pages_of(self, logical: IntArray, physical: IntArray) -> set[int]:
        """Table pages that moving these entries changes."""
        geometry, base = self.geometry, self.geometry.table_base
        replaced = self._replaced(logical, physical)
        fresh = physical[physical != 0]
        forward = geometry.forward_start + np.unique(logical // layout.PAGE_ENTRIES)
        reverse = np.unique((np.concatenate([replaced, fresh]) - base) // layout.PAGE_ENTRIES)
        return set(forward.tolist()) | set((geometry.reverse_start + reverse).tolist())

    def _move_entries(self, logical: IntArray, physical: IntArray) -> None:
        if not len(logical):
            return
        base = self.geometry.table_base
        replaced = self._replaced(logical, physical)
        mapped = physical != 0
        owners = logical[mapped] + self.geometry.data_start
        reverse = self.pages.prepare(
            Direction.REVERSE,
            np.concatenate([replaced, physical[mapped]]) - base,
            np.concatenate([np.full(len(replaced), layout.UNMAPPED, np.int64), owners]),
        )
        forward = self.pages.prepare(Direction.FORWARD, logical, np.where(mapped, physical, layout.UNMAPPED))
        self.pages.apply(reverse + forward)
        self.zones.credit(replaced)
        self.cache.drop(logical.tolist())

    def relieve_cache(self) -> None:
        """Keep the map cache small enough for the cache pages of a generation."""
        if len(self.cache) > _CACHE_LIMIT:
            self.sync(everything=True)

    def _relieve(self) -> None:
        """Keep everything that has to fit into cache pages below its limits."""
        self.relieve_cache()
        while len(self.discards) > _DISCARD_LIMIT:
            self.dissolve(list(self.discards)[:1000])

    def dissolve(self, extents: list[tuple[int, int]]) -> None:
        """Turn discard extents into cleared forward entries."""
        for start, count in extents:
            for at, blocks in _steps(start, count):
                entries = self.pages.entries(Direction.FORWARD, at, blocks)
                mapped = np.flatnonzero(entries < layout.UNMAPPED_ALTERNATIVE) + at
                for part in np.split(mapped, range(_CACHE_LIMIT, len(mapped), _CACHE_LIMIT)):
                    self.clear(part)
            self.discards.remove(start, count)
        self._unsynced = True

    def clear(self, logical: IntArray) -> None:
        """Clear forward entries of hidden blocks, syncing whenever the journal is full."""
        done = 0
        while done < len(logical):
            count = len(logical) - done
            zeroes = np.zeros(count, np.int64)
            part = logical[done:]
            while count > 1 and self.writer.pages_needed(self._pages_of(part[:count], zeroes[:count])) > self._budget():
                count //= 2
            self._move_entries(part[:count], zeroes[:count])
            done += count
            if done < len(logical):
                self._commit()

    # -- reclaim

    @property
    def reclaims_when_idle(self) -> bool:
        """Nothing asks for it: zones are reclaimed when few are empty, or :meth:`reclaim` is called."""
        return False

    @property
    def idle_seconds(self) -> int:
        """Nothing of the kind is known of the driver (formats/zdm.md, 9): long enough for nobody to wait for it."""
        return 10

    def reclaim(self) -> int:
        """Empty the zones that are worth it; returns how many that were."""
        if self._fresh:
            return 0
        self._reclaiming = True
        try:
            emptied = reclaim.free_zones(self)
        finally:
            self._reclaiming = False
        return emptied

    def free_zones(self) -> dict[str, int]:
        """Data zones that are empty, and those that have room left."""
        zones = self.zones
        return {"empty": int(np.count_nonzero(zones.empty)), "writable": int(np.count_nonzero(zones.writable))}


def _is_untidy(state: State) -> bool:
    """Whether a clean close leaves more behind than it found: no torn generation, and records that are true."""
    current, zones = state.current, state.zones
    if current is None:
        return False
    recorded = (state.wp & layout.WP_MASK).astype(np.int64)
    behind = zones.sequential & ~zones.dead & (recorded < zones.wp_blocks)
    blind = current.window == layout.AREA_STARTS[Dialect.D3][2]
    return current.dirty or blind or bool(state.wp_bad or state.zf_bad or state.generations.torn or behind.any())


def _steps(start: int, count: int) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of the parts of an extent whose forward entries are in memory at a time."""
    step = 64 * layout.PAGE_ENTRIES
    for at in range(start, start + count, step):
        yield at, min(step, start + count - at)
