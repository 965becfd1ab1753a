"""The kernel's ``zoned`` target without the kernel: read, write, discard and flush a target's logical device.

Semantics are those of the Linux 6.1 target (``drivers/md/dm-zoned-target.c``). What differs
is what makes a power cut safe at any moment: see :mod:`~.mapper_store` (commits),
:mod:`~.mapper_zones` (freed zones) and :mod:`~.mapper_open` (both sets are made equal before
the first write).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from zoned_tools.device.base import Buffer
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED, held_zones
from zoned_tools.formats.dm_zoned.mapper_open import Opened, open_for_reading, open_for_writing
from zoned_tools.formats.dm_zoned.mapper_reader import ChunkPart, ContentReader
from zoned_tools.formats.dm_zoned.mapper_zones import ZonePool
from zoned_tools.formats.dm_zoned.reclaim import Reclaimer, ZoneUse, no_space
from zoned_tools.formats.registry import MapExtent, Target

MAX_CHANGED_BLOCKS = 8192
"""Metadata blocks that wait for a commit before one happens by itself (32 MiB)."""
DEFAULT_LOW_PERCENT = 30
"""Free cache or random zones, in percent, at which writers make reclaim run."""
DEFAULT_IDLE_LOW_PERCENT = 100
"""The same for an idle target: it reclaims while there is anything to free."""


@dataclass(frozen=True, slots=True)
class MapperOptions:
    """Settings of a mapper.

    Attributes:
        use_set: metadata set to trust, None for the kernel's choice.
        low_percent, idle_low_percent: reclaim thresholds (``rlow``, ``idle_rlow``).
        accept_members: read also when a member says that it belongs elsewhere.
    """

    use_set: int | None = None
    low_percent: int = DEFAULT_LOW_PERCENT
    idle_low_percent: int = DEFAULT_IDLE_LOW_PERCENT
    accept_members: bool = False

    @classmethod
    def parse(cls, settings: Mapping[str, str]) -> MapperOptions:
        """Decode ``use_set=0|1``, ``rlow=PERCENT``, ``idle_rlow=PERCENT`` and ``accept_members=0|1``.

        Raises:
            UsageError: an unknown setting, or a value out of range.
        """
        limits = {"use_set": 1, "rlow": 100, "idle_rlow": 100, "accept_members": 1}
        values: dict[str, int] = {}
        for name, text in settings.items():
            if name not in limits:
                raise UsageError(f"dm-zoned has no setting {name!r}", hint=f"known: {', '.join(limits)}")
            if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= limits[name]):
                raise UsageError(f"{name}={text}: expected a number from 0 to {limits[name]}")
            values[name] = int(text)
        return cls(
            use_set=values.get("use_set"),
            low_percent=values.get("rlow", DEFAULT_LOW_PERCENT),
            idle_low_percent=values.get("idle_rlow", DEFAULT_IDLE_LOW_PERCENT),
            accept_members=bool(values.get("accept_members", 0)),
        )


def open_mapper(target: Target, *, writable: bool, options: Mapping[str, str]) -> DmZonedMapper:
    """Open the logical device of a dm-zoned target.

    Reading works on everything that has one metadata set left, whether a kernel would start
    it or not, and writes nothing. Writing needs metadata without errors; an incomplete or
    older set is brought up to date first.

    Raises:
        GeometryError: the devices cannot form a target.
        MetadataError: no usable metadata set.
        RefusedError: opened for writing, and the metadata are damaged.
        UsageError: an unknown option.
    """
    chosen = MapperOptions.parse(options)
    if writable:
        opened = open_for_writing(target, use_set=chosen.use_set)
    else:
        opened = open_for_reading(target, use_set=chosen.use_set, accept_members=chosen.accept_members)
    return DmZonedMapper(opened, chosen, writable=writable)


class DmZonedMapper:
    """The logical device of a dm-zoned target (:class:`~zoned_tools.formats.registry.Mapper`).

    Attributes:
        writable: False when nothing may change.
        warnings: what a user should know about the choice of the metadata set, and about failing zones.
        set_number: the metadata set in use.
    """

    def __init__(self, opened: Opened, options: MapperOptions, *, writable: bool) -> None:
        self.writable = writable
        self.warnings = opened.warnings
        self.set_number = opened.number
        self._options = options
        self._disk = opened.disk
        self._store = opened.store
        self._path = opened.disk.devices[0].path
        self._reader = ContentReader(self._disk, self._store, self._store.layout.nr_chunks, self._path)
        self._use = ZoneUse()
        self._closed = False
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
    def size_blocks(self) -> int:
        return self._reader.size_blocks

    @property
    def generation(self) -> int:
        """Generation of the last commit."""
        return self._store.generation

    def read(self, block: int, count: int) -> bytes:
        """``count`` blocks; :meth:`read_into` saves a copy."""
        self._reader.require_range(block, count)
        content = bytearray(count * BLOCK_BYTES)
        self.read_into(block, memoryview(content))
        return bytes(content)

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer``, a whole number of blocks, from ``block`` on.

        Raises:
            DeviceError: out of range, or not readable; the message names the logical blocks.
        """
        self._reader.read_into(block, buffer)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where the blocks live: ascending, without gaps, holes included."""
        return self._reader.lookup(block, count)

    def data_extents(self, block: int, count: int) -> Iterator[tuple[int, int]]:
        """``(block, blocks)`` of what is stored, ascending; everything else reads as zeroes."""
        return self._reader.data_extents(block, count)

    # -- writing

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        """Write whole blocks; ``stream`` means nothing to dm-zoned.

        Raises:
            DeviceError: out of range, ``EROFS`` (a zone of the chunk is read-only), ``ENOSPC``
                (no zone can be made free), or the device's own.
        """
        view = memoryview(data).cast("B")
        if len(view) % BLOCK_BYTES:
            raise DeviceError(f"writes must be multiples of {BLOCK_BYTES} bytes", device=self._path, errno=errno.EINVAL)
        self._require_writable()
        for part in self._reader.parts(block, len(view) // BLOCK_BYTES):
            start = (part.block - block) * BLOCK_BYTES
            self._write_part(part, view[start : start + part.count * BLOCK_BYTES])
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

    def discard(self, block: int, count: int) -> None:
        """Make blocks read as zeroes; no data are touched.

        Raises:
            DeviceError: out of range, or ``EROFS``: a zone of the chunk is read-only.
        """
        self._require_writable()
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

    def _require_writable(self) -> None:
        if not self.writable:
            raise DeviceError("opened read-only", device=self._path, errno=errno.EROFS)
        if self._closed:
            raise DeviceError("the mapper is closed", device=self._path, errno=errno.EBADF)
        self._store.require_intact()

    def _require_zones(self, data_zone: int, buffer_zone: int) -> None:
        self._disk.require_writable(data_zone)
        if buffer_zone != UNMAPPED:
            self._disk.require_writable(buffer_zone)

    # -- zones

    def _allocate(self) -> int:
        """A cache (several devices) or random zone (one device), reclaimed when few are left."""
        if self._pool.free_percent() <= self._options.low_percent:
            self._reclaim_to(self._options.low_percent)
        zone = self._pool.take_buffer()
        if zone is None and self._pool.has_pending:
            self.flush()
            zone = self._pool.take_buffer()
        if zone is None:
            raise no_space(self._path)
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
        self._require_writable()
        steps = self._reclaim_to(self._options.idle_low_percent)
        self.flush()
        return steps

    def free_zones(self) -> dict[str, int]:
        """Free zones by kind, as the status line of the kernel target counts them."""
        return self._pool.counts()

    # -- durability

    def _commit_if_much(self) -> None:
        if self._store.nr_changed_blocks > MAX_CHANGED_BLOCKS:
            self.flush()

    def flush(self) -> None:
        """Make everything written so far durable, on every device.

        Raises:
            DeviceError: a device failed; open again to go on from the last commit.
        """
        if not self.writable or self._closed:
            return
        self._store.commit()
        self._pool.committed()

    def close(self) -> None:
        """Commit what is left. The devices stay open; they belong to the caller."""
        if self._closed:
            return
        try:
            if self.writable:
                self.flush()
        finally:
            self._closed = True
