"""The kernel's ``zoned`` target without the kernel: read, write, discard and flush a target's logical device.

Semantics are those of the Linux 6.1 target. What differs is what makes a power cut safe at any moment: see
:mod:`~.commit`, :mod:`~.allocate` (freed zones) and :mod:`~.sets` (both sets are made equal before the
first write).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.geometry import held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED
from zoned_tools.formats.dm_zoned.mapper.allocate import ZonePool
from zoned_tools.formats.dm_zoned.mapper.read import ChunkPart, ContentReader
from zoned_tools.formats.dm_zoned.mapper.reclaim import Reclaimer, ZoneUse, no_space
from zoned_tools.formats.dm_zoned.mapper.torn import torn_payload
from zoned_tools.formats.shared.losses import Losses
from zoned_tools.formats.shared.mapper import MapperBase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import MapExtent
    from zoned_tools.formats.dm_zoned.mapper.sets import Opened

MAX_CHANGED_BLOCKS = 8192
"""Metadata blocks that wait for a commit before one happens by itself (32 MiB)."""
DEFAULT_LOW_PERCENT = 30
"""Free cache or random zones, in percent, at which writers make reclaim run."""
DEFAULT_IDLE_LOW_PERCENT = 100
"""The same for an idle target: it reclaims while there is anything to free."""
IDLE_SECONDS = 10
"""A target that had no request for so long is idle (formats/dm-zoned.md, 5.4)."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When zones are reclaimed: percentages of free cache or random zones (``rlow``, ``idle_rlow``)."""

    low_percent: int = DEFAULT_LOW_PERCENT
    idle_low_percent: int = DEFAULT_IDLE_LOW_PERCENT


class DmZonedMapper(MapperBase):
    """The logical device of a dm-zoned target (:class:`~zoned_tools.formats.contract.Mapper`).

    Attributes:
        warnings: what a user should know about the choice of the metadata set, and about failing zones.
        set_number: the metadata set in use.
        reclaims_when_idle: the user asked that idle time be used for it.
    """

    def __init__(self, opened: Opened, thresholds: Thresholds, *, writable: bool, reclaims_when_idle: bool) -> None:
        layout = opened.store.layout
        path = opened.disk.devices[0].path
        super().__init__(path, layout.nr_chunks * layout.zone_blocks, writable=writable)
        self.warnings = opened.warnings
        self.set_number = opened.number
        self.reclaims_when_idle = reclaims_when_idle
        self.idle_seconds = IDLE_SECONDS
        self._thresholds = thresholds
        self._disk = opened.disk
        self._store = opened.store
        self._reader = ContentReader(self._disk, self._store, path)
        self._use = ZoneUse()
        if writable:
            self._pool = self._load_pool()
            self._reclaimer = Reclaimer(self._disk, self._store, self._pool, self._use, self._reader)

    def _load_pool(self) -> ZonePool:
        layout, geometry = self._store.layout, self._disk.geometry
        mapped = np.zeros(geometry.nr_zones, np.bool_)
        table = self._store.table[: layout.nr_chunks]
        for chunk in np.flatnonzero(table[:, 0] != UNMAPPED).tolist():
            data_zone, buffer_zone = table[chunk].tolist()
            mapped[data_zone] = True
            self._note_use(chunk, data_zone, buffer_zone)
            if buffer_zone != UNMAPPED:
                mapped[buffer_zone] = True
        return ZonePool(self._disk, held_zones(geometry, layout), mapped, layout.nr_reserved_seq, self.warnings)

    def _note_use(self, chunk: int, data_zone: int, buffer_zone: int) -> None:
        self._use.owner[data_zone] = chunk
        if self._disk.geometry.cache[data_zone]:
            self._use.buffers[data_zone] = None
        if buffer_zone != UNMAPPED:
            self._use.owner[buffer_zone] = chunk
            self._use.buffers[buffer_zone] = None
            self._use.buffered[data_zone] = None

    # -- reading

    @property
    def generation(self) -> int:
        """Generation of the last commit."""
        return self._store.generation

    def losses(self) -> Losses:
        """What no readable metadata are about, what is read by a guess, and what bad areas hit."""
        missing = self._store.missing
        found = missing.losses() if missing is not None else Losses()
        found.payload = torn_payload(self._disk, self._reader, self._store.table[: self._store.layout.nr_chunks])
        return found

    def read_blocks_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``block`` on.

        Raises:
            DeviceError: not readable; the message names the logical blocks.
        """
        self._reader.read_into(block, buffer)

    def lookup_blocks(self, block: int, count: int) -> Iterator[MapExtent]:
        return self._reader.lookup(block, count)

    def data_extents(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """``(block, blocks)`` of what is stored, ascending; everything else reads as zeroes."""
        self.check_range(block, count)
        return self._reader.data_extents(block, count)

    # -- writing

    def write_blocks(self, block: int, data: memoryview, stream: int) -> None:
        """Write whole blocks; ``stream`` means nothing to dm-zoned.

        Raises:
            DeviceError: ``EROFS`` (a zone of the chunk is read-only), ``ENOSPC`` (no zone can be made
                free), or the device's own.
        """
        del stream
        self._store.require_intact()
        for part in self._reader.parts(block, len(data) // BLOCK_BYTES):
            start = (part.block - block) * BLOCK_BYTES
            self._write_part(part, data[start : start + part.count * BLOCK_BYTES])
            self._commit_if_much()

    def _write_part(self, part: ChunkPart, data: memoryview) -> None:
        data_zone, buffer_zone = self._store.zones_of(part.chunk)
        if data_zone == UNMAPPED:
            self._write_new_chunk(part, data)
            return
        self._require_zones(data_zone, buffer_zone)
        if not self._disk.sequential[data_zone] or self._disk.wp_blocks[data_zone] == part.offset:
            self._write_data_zone(part, data, data_zone, buffer_zone)
        else:
            self._write_buffer_zone(part, data, data_zone, buffer_zone)
        self._use.touch(data_zone)

    def _write_new_chunk(self, part: ChunkPart, data: memoryview) -> None:
        zone = self._allocate()
        self._write_taken(zone, part.offset, data)
        self._store.map_chunk(part.chunk, zone)
        self._store.assign(zone, part.offset, part.count, valid=True)
        self._note_use(part.chunk, zone, UNMAPPED)

    def _write_data_zone(self, part: ChunkPart, data: memoryview, data_zone: int, buffer_zone: int) -> None:
        self._write_zone(data_zone, part.offset, data)
        self._store.assign(data_zone, part.offset, part.count, valid=True)
        if buffer_zone != UNMAPPED:
            self._store.assign(buffer_zone, part.offset, part.count, valid=False)
            self._drop_empty_buffer(part.chunk, data_zone, buffer_zone)

    def _write_buffer_zone(self, part: ChunkPart, data: memoryview, data_zone: int, buffer_zone: int) -> None:
        """The write pointer is elsewhere: the blocks go to the chunk's buffer zone."""
        if buffer_zone == UNMAPPED:
            buffer_zone = self._allocate()
            self._write_taken(buffer_zone, part.offset, data)
            self._store.map_chunk(part.chunk, data_zone, buffer_zone)
            self._note_use(part.chunk, data_zone, buffer_zone)
        else:
            self._disk.write(buffer_zone, part.offset, data)
        self._store.assign(buffer_zone, part.offset, part.count, valid=True)
        self._invalidate_written(data_zone, part)
        self._use.touch(buffer_zone)

    def _write_taken(self, zone: int, offset: int, data: memoryview) -> None:
        """Write to a zone that was just taken from the pool; it goes back when that fails."""
        try:
            self._disk.write(zone, offset, data)
        except DeviceError:
            self._pool.give_back(zone)
            raise

    def _write_zone(self, zone: int, offset: int, data: memoryview) -> None:
        """Write to a data zone; after a failure nothing above the device's write pointer stays valid."""
        try:
            self._disk.write(zone, offset, data)
        except DeviceError:
            written = self._disk.wp_blocks[zone]
            if self._disk.sequential[zone] and written < self._disk.zone_blocks and not self._disk.is_dead(zone):
                self._store.assign(zone, written, self._disk.zone_blocks - written, valid=False)
            raise

    def discard_blocks(self, block: int, count: int) -> None:
        """Make blocks read as zeroes; no data are touched.

        Raises:
            DeviceError: ``EROFS``: a zone of the chunk is read-only.
        """
        self._store.require_intact()
        for part in self._reader.parts(block, count):
            data_zone, buffer_zone = self._store.zones_of(part.chunk)
            if data_zone == UNMAPPED:
                continue
            self._require_zones(data_zone, buffer_zone)
            self._invalidate_written(data_zone, part)
            if buffer_zone != UNMAPPED:
                self._store.assign(buffer_zone, part.offset, part.count, valid=False)
                self._drop_empty_buffer(part.chunk, data_zone, buffer_zone)
            self._use.touch(data_zone)
            self._commit_if_much()

    def _invalidate_written(self, zone: int, part: ChunkPart) -> None:
        """Clear the bits of a range of a data zone, as far as it lies below the write pointer."""
        count = min(part.count, self._disk.wp_blocks[zone] - part.offset)
        if count > 0:
            self._store.assign(zone, part.offset, count, valid=False)

    def _drop_empty_buffer(self, chunk: int, data_zone: int, buffer_zone: int) -> None:
        if self._store.bitmaps[buffer_zone].is_empty():
            self._store.map_chunk(chunk, data_zone)
            self._use.forget(buffer_zone)
            self._use.buffered.pop(data_zone, None)
            self._pool.free(buffer_zone)
        else:
            self._use.touch(buffer_zone)

    def _require_zones(self, data_zone: int, buffer_zone: int) -> None:
        self._disk.require_writable(data_zone)
        if buffer_zone != UNMAPPED:
            self._disk.require_writable(buffer_zone)

    # -- zones

    def _allocate(self) -> int:
        """A cache (several devices) or random zone (one device), reclaimed when few are left."""
        if self._pool.free_percent() <= self._thresholds.low_percent:
            self._reclaim_to(self._thresholds.low_percent)
        zone = self._pool.take_buffer()
        if zone is None and self._pool.has_pending:
            self.flush()
            zone = self._pool.take_buffer()
        if zone is None:
            raise no_space(self.path)
        return zone

    def _reclaim_to(self, percent: int) -> int:
        """Free zones until more than ``percent`` are free; returns how many steps that took."""
        steps = 0
        while self._pool.free_percent() <= percent and self._pool.nr_free_buffers < self._pool.nr_buffers:
            if self._reclaimer.reclaim_one():
                steps += 1
                self._commit_if_much()
            elif self._pool.has_pending:
                self.flush()  # zones that were freed can be moved to from now on
            else:
                break
        return steps

    def reclaim(self) -> int:
        """What an idle kernel target does: free cache and random zones up to ``idle_rlow`` percent, then commit.

        Returns:
            How many times a chunk was moved.
        """
        self.check_change(0, 0)
        self._store.require_intact()
        steps = self._reclaim_to(self._thresholds.idle_low_percent)
        self.flush()
        return steps

    def free_zones(self) -> dict[str, int]:
        """Free zones by kind, as the status line of the kernel target counts them."""
        return self._pool.counts()

    # -- durability

    def _commit_if_much(self) -> None:
        if self._store.nr_changed_blocks > MAX_CHANGED_BLOCKS:
            self.flush()

    def flush_changes(self) -> None:
        """Make everything written so far durable, on every device.

        Raises:
            DeviceError: a device failed; open again to go on from the last commit.
        """
        self._store.commit()
        self._pool.committed()

    def close_cleanly(self) -> None:
        """Commit what is left. The devices stay open; they belong to the caller."""
        self.flush_changes()
