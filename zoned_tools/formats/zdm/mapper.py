"""The logical device of a ZDM, offline: read any dialect, write the current one.

Writes go to the drive at once and into the map cache; a sync moves cached entries to the
tables and writes a generation (:mod:`zoned_tools.formats.zdm.writer`). What was not synced
is lost as a whole at a power cut, and nothing older with it.
"""

from __future__ import annotations

import errno
import uuid as uuids
from collections.abc import Iterator, Mapping

import numpy as np

from zoned_tools.device.base import Buffer, ZoneOperation
from zoned_tools.device.zones import IntArray
from zoned_tools.errors import DeviceError, MetadataError, RefusedError, UsageError
from zoned_tools.formats.registry import LOGICAL_BLOCK_BYTES, MapExtent, Target, require_known
from zoned_tools.formats.zdm import layout, reclaim
from zoned_tools.formats.zdm.allocator import ZoneAllocator, stream_of
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, ZONE_BLOCKS, Dialect
from zoned_tools.formats.zdm.mapping import (
    FROM_CACHE,
    FROM_DISCARD,
    FROM_TABLE,
    UNMAPPED,
    DiscardExtents,
    ExtentCache,
    LogicalMap,
    MapCache,
    cache_of,
    discards_of,
)
from zoned_tools.formats.zdm.pages import PageStore
from zoned_tools.formats.zdm.state import State, load, require_usable
from zoned_tools.formats.zdm.survey import Surveyor
from zoned_tools.formats.zdm.tables import Direction
from zoned_tools.formats.zdm.writer import MAX_PAGES, GenerationWriter

KEPT_ENTRIES = 4 * layout.CACHE_PAGE_ENTRIES
"""Cache entries that a flush leaves in cache pages rather than moving them to the tables."""

_CACHE_LIMIT = 100 * layout.CACHE_PAGE_ENTRIES
_DISCARD_LIMIT = 40 * layout.CACHE_PAGE_ENTRIES
_SMALL_DISCARD = 150


class ZdmReader:
    """Read-only view of any dialect that can be read."""

    writable = False

    def __init__(self, state: State) -> None:
        self.state = state
        self.geometry = state.geometry
        self.pages = PageStore(state.tables)
        current = state.current
        start = self.geometry.data_start
        self.discards: DiscardExtents = discards_of(current, start)
        wide = current is not None and current.dialect in (Dialect.D4, Dialect.D5)
        self.cache: MapCache = MapCache() if wide else cache_of(current, start)
        shift = np.array([start, 0, 0], np.int64)
        self.map = LogicalMap(
            self.pages,
            ExtentCache(current.cache - shift) if wide and current is not None else self.cache,
            self.discards,
        )

    @property
    def size_blocks(self) -> int:
        return self.state.logical_blocks

    def _check_range(self, block: int, count: int) -> None:
        if block < 0 or count < 0 or block + count > self.size_blocks:
            raise DeviceError(
                f"{count} blocks at block {block} are not on the logical device ({self.size_blocks} blocks)",
                device=self.state.path,
                errno=errno.EIO,
            )

    @property
    def warnings(self) -> list[str]:
        """Oddities of the metadata that do not keep it from being read, one sentence each."""
        state, found = self.state, []
        current = state.current
        if state.dialect is not Dialect.D3:
            found.append(f"written by releases {state.dialect}")
        if current is not None and current.dirty:
            found.append("not stopped cleanly, what was written after the last sync is lost")
        if state.generations.torn:
            found.append("a newer generation of the metadata is incomplete")
        if state.geometry_faults:
            found.append(f"the identity does not fit: {state.geometry_faults[0]}")
        return found

    def read(self, block: int, count: int) -> bytes:
        self._check_range(block, count)
        content = bytearray(count * BLOCK_BYTES)
        self.read_into(block, memoryview(content))
        return bytes(content)

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer``, whole blocks from ``block`` on."""
        count = len(buffer) // BLOCK_BYTES
        self._check_range(block, count)
        if not count:
            return
        volume = self.state.volume
        for logical, blocks, physical, _ in self.map.runs(block, count):
            part = buffer[(logical - block) * BLOCK_BYTES : (logical - block + blocks) * BLOCK_BYTES]
            if physical == UNMAPPED:
                part[:] = bytes(len(part))
                continue
            if not volume.has(physical, blocks):
                raise DeviceError(
                    f"logical block {logical} is mapped to block {physical}, which is not on the partition",
                    device=self.state.path,
                    hint="repair it",
                    errno=errno.EIO,
                )
            volume.device.read_into(volume.offset_bytes + physical * BLOCK_BYTES, part)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        self._check_range(block, count)
        first = self.state.volume.offset_bytes // LOGICAL_BLOCK_BYTES
        for logical, blocks, physical, source in self.map.runs(block, count):
            why = self._why(physical, source)
            yield MapExtent(logical, blocks, 0, None if physical == UNMAPPED else first + physical, why)

    def _why(self, physical: int, source: int) -> str:
        if physical == UNMAPPED:
            return {FROM_DISCARD: "discarded (discard extent)", FROM_CACHE: "discarded (map cache)"}.get(
                source, "never written"
            )
        by = "forward table" if source == FROM_TABLE else "map cache"
        zone, offset = divmod(physical - self.geometry.table_base, ZONE_BLOCKS)
        if not 0 <= zone < self.geometry.data_zones:
            return f"{by}, outside the data area"
        return f"data zone {zone} block {offset} ({by})"

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        raise DeviceError("opened read-only", device=self.state.path, errno=errno.EBADF)

    def discard(self, block: int, count: int) -> None:
        raise DeviceError("opened read-only", device=self.state.path, errno=errno.EBADF)

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do; the device stays open."""


class ZdmMapper(ZdmReader):
    """The mapper: reads, writes, discards, syncs, reclaims."""

    writable = True

    def __init__(self, state: State, sb_uuid: uuids.UUID) -> None:
        super().__init__(state)
        self.zones = ZoneAllocator(state)
        self.writer = GenerationWriter(state, self.pages, self.zones, sb_uuid)
        self._fresh = state.fresh
        self._unclean = state.current is not None and state.current.dirty
        self._changed = False
        self._reclaiming = False
        self._unsynced = False
        for logical, physical in self._hidden_cache_entries():
            self._forget(logical, physical)
        if state.wp_bad or state.zf_bad:
            survey = Surveyor(state).run()
            self.zones.recount(survey.live, survey.highest)

    def _hidden_cache_entries(self) -> list[tuple[int, int]]:
        return [e for start, count in self.discards for e in self.cache.within(start, start + count)]

    # -- changes

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        view = memoryview(data).cast("B")
        if len(view) % BLOCK_BYTES:
            raise DeviceError("writes must be whole blocks", device=self.state.path, errno=errno.EINVAL)
        count = len(view) // BLOCK_BYTES
        self._check_range(block, count)
        if count == 1 and not any(view):
            self.discard(block, 1)
            return
        self._begin()
        done = 0
        while done < count:
            first, taken = self.allocate(stream_of(stream), count - done)
            self.state.volume.write(first, view[done * BLOCK_BYTES : (done + taken) * BLOCK_BYTES])
            self.map_run(block + done, first, taken)
            done += taken
        self._relieve()

    def discard(self, block: int, count: int) -> None:
        self._check_range(block, count)
        if not count:
            return
        self._begin()
        if count < _SMALL_DISCARD:
            physical, _ = self.map.resolve(block, count)
            for logical in (np.flatnonzero(physical != UNMAPPED) + block).tolist():
                self._drop_cached(logical)
                self.cache.put(logical, 0)
        else:
            for logical, physical_block in self.cache.within(block, block + count):
                self._forget(logical, physical_block)
            self.discards.add(block, count)
        self._relieve()

    def flush(self) -> None:
        if self._unsynced:
            self.sync()
        else:
            self.state.volume.device.flush()

    def close(self) -> None:
        if not self._changed and not self._unclean:
            return
        self._begin()
        self.sync(everything=True)
        for _ in range(3):  # so that every area, also the one that the reference never reads, holds this state
            self._commit(closed=True)
        self._changed = self._unclean = False

    def _begin(self) -> None:
        """First change: a format that was never started gets its data zones emptied."""
        self._changed = self._unsynced = True
        if not self._fresh:
            return
        self._fresh = False
        device, first = self.state.volume.device, self.geometry.first_device_zone
        for zone in np.flatnonzero((self.zones.wp > 0) & ~self.zones.closed).tolist():
            if self.zones.sequential[zone]:
                device.manage(ZoneOperation.RESET, first + zone)
            self.zones.release(zone)
        device.flush()

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

    def map_run(self, logical: int, physical: int, count: int) -> None:
        """Map consecutive logical blocks to fresh physical ones."""
        for block, _ in self.cache.within(logical, logical + count):
            self._drop_cached(block)
        self.discards.remove(logical, count)
        self.cache.put_run(logical, physical, count)
        self._changed = self._unsynced = True

    def _drop_cached(self, logical: int) -> None:
        physical = self.cache.get(logical)
        if physical is not None:
            self._forget(logical, physical)

    def _forget(self, logical: int, physical: int) -> None:
        """Drop a cache entry; its block is credited unless the table names it too (then by :meth:`_move`)."""
        self.cache.drop(logical)
        base = self.geometry.table_base
        if base <= physical < base + self.geometry.area_blocks:
            entry = self.pages.entries(Direction.FORWARD, logical, 1)[0]
            if int(entry) != physical:
                self.zones.credit(np.array([physical], np.int64))

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
        self.pages.scatter(Direction.REVERSE, replaced - base, np.full(len(replaced), layout.UNMAPPED, np.int64))
        self.zones.credit(replaced)
        self.pages.scatter(Direction.FORWARD, logical, np.where(mapped, physical, layout.UNMAPPED))
        owners = logical[mapped] + self.geometry.data_start
        self.pages.scatter(Direction.REVERSE, physical[mapped] - base, owners)
        for block in logical.tolist():
            self.cache.drop(block)

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
        step = 64 * layout.PAGE_ENTRIES
        for start, count in extents:
            for at in range(start, start + count, step):
                blocks = min(step, start + count - at)
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

    def reclaim(self) -> int:
        """Empty the zones that are worth it; returns how many that were."""
        if self._fresh:
            return 0
        self._reclaiming = True
        try:
            emptied = reclaim.reclaim(self)
        finally:
            self._reclaiming = False
        self._changed = self._changed or emptied > 0
        return emptied

    def free_zones(self) -> dict[str, int]:
        """Data zones that are empty, and those that have room left."""
        zones = self.zones
        return {"empty": int(np.count_nonzero(zones.empty)), "writable": int(np.count_nonzero(zones.writable))}


def open_mapper(target: Target, *, writable: bool, options: Mapping[str, str]) -> ZdmReader:
    """Open the logical device. ``options``: ``sb-uuid`` for a first start.

    Raises:
        MetadataError: nothing usable is there, or repair is needed first.
        GeometryError: the reference would corrupt this layout.
        RefusedError: writing was asked for and the dialect is not the current one.
        UsageError: an option is unknown.
    """
    require_known(options, ("sb-uuid",))
    state = load(target)
    require_usable(state)
    if not writable:
        return ZdmReader(state)
    if state.dialect is not Dialect.D3:
        raise RefusedError(
            f"metadata of releases {state.dialect} are only read",
            device=state.path,
            hint="copy the content to a new ZDM",
        )
    if state.geometry_faults:
        raise MetadataError(
            f"the identity does not fit: {state.geometry_faults[0]}", device=state.path, hint="it can only be read"
        )
    try:
        wanted = uuids.UUID(options["sb-uuid"]) if "sb-uuid" in options else uuids.uuid4()
    except ValueError:
        raise UsageError(f"{options['sb-uuid']!r} is not a uuid") from None
    return ZdmMapper(state, state.current.key.super.uuid if state.current else wanted)


assert MAX_PAGES * layout.CACHE_PAGE_ENTRIES > 2 * _CACHE_LIMIT
