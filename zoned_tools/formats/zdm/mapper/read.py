"""The logical device of a ZDM for reading, whatever releases wrote it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, MapExtent
from zoned_tools.formats.shared.losses import Loss, Losses
from zoned_tools.formats.shared.mapper import MapperBase
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, ZONE_BLOCKS, Dialect
from zoned_tools.formats.zdm.losses import UNKNOWN, LostPages, lost_pages, lost_runs, recover
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.open import State


HOME_ONLY = (
    "no complete generation can be read: map cache, discards and journaled pages are lost, and the tables are read as "
    "they are at their home place"
)
_LOST = "their forward table page cannot be read, and no reverse entry names them"
_UNMAPPED = {FROM_DISCARD: "discarded (discard extent)", FROM_CACHE: "discarded (map cache)"}


class ZdmReader(MapperBase):
    """Read-only view of any dialect that can be read.

    Attributes:
        state: the metadata.
        pages, cache, discards, map: from tables, map cache and discard extents to physical blocks.
    """

    def __init__(self, state: State, *, writable: bool = False) -> None:
        super().__init__(state.path, state.logical_blocks, writable=writable)
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
            self._recover,
        )
        self._recovered: LostPages | None = None
        self._losses: Losses | None = None

    def _recover(self, pages: IntArray) -> LostPages:
        """What is known of all forward pages that cannot be read, ``pages`` among them."""
        if self._recovered is None or not np.isin(pages, self._recovered.pages).all():
            geometry = self.geometry
            every = self.state.tables.unread_pages(geometry.forward_start, geometry.map_count)
            self._recovered = recover(self.state, every)
        return self._recovered

    def losses(self) -> Losses:
        """What cannot be read (:class:`~zoned_tools.formats.shared.losses.KnowsLosses`)."""
        if self._losses is None:
            self._losses = Losses(list(self._lost_metadata()), list(self._guessed()))
        return self._losses

    def _lost_metadata(self) -> Iterator[Loss]:
        state = self.state
        pages = lost_pages(state)
        if not len(pages):
            return
        forward, unread = self.geometry.forward_start, state.volume.unread
        for page, first, blocks in lost_runs(state, self._recover(pages)):
            status = unread[state.tables.current(forward + page)]
            reason = f"page {page} of the forward table cannot be read, and no reverse entry names the block"
            yield Loss(first * BLOCK_BYTES, blocks * BLOCK_BYTES, status, reason)

    def _guessed(self) -> Iterator[Loss]:
        if self.state.home_only:
            yield Loss(0, self.size_blocks * BLOCK_BYTES, "-", HOME_ONLY)

    @property
    def warnings(self) -> list[str]:
        """Oddities of the metadata that do not keep it from being read, one sentence each."""
        state, found = self.state, []
        current = state.current
        if state.home_only:
            found.append(HOME_ONLY)
        if state.dialect is not Dialect.D3:
            found.append(f"written by releases {state.dialect}")
        if current is not None and current.dirty:
            found.append("not stopped cleanly, what was written after the last sync is lost")
        if state.generations.torn:
            found.append("a newer generation of the metadata is incomplete")
        if state.geometry_faults:
            found.append(f"the identity does not fit: {state.geometry_faults[0]}")
        return found

    def read_blocks_into(self, block: int, buffer: memoryview) -> None:
        count = len(buffer) // BLOCK_BYTES
        volume = self.state.volume
        for logical, blocks, physical, _ in self.map.runs(block, count):
            part = buffer[(logical - block) * BLOCK_BYTES : (logical - block + blocks) * BLOCK_BYTES]
            if physical == UNMAPPED:
                part[:] = bytes(len(part))
                continue
            if physical == UNKNOWN:
                raise self.refusal(f"logical blocks {logical} to {logical + blocks - 1}: {_LOST}", errno.EIO)
            if not volume.has(physical, blocks):
                raise DeviceError(
                    f"logical block {logical} is mapped to block {physical}, which is not on the partition",
                    device=self.state.path,
                    hint="repair it",
                    errno=errno.EIO,
                )
            volume.device.read_into(volume.offset_bytes + physical * BLOCK_BYTES, part)

    def lookup_blocks(self, block: int, count: int) -> Iterator[MapExtent]:
        first, base = self.state.volume.offset_bytes // LOGICAL_BLOCK_BYTES, self.geometry.table_base
        end = base + self.geometry.data_zones * ZONE_BLOCKS
        for logical, blocks, physical, source in self.map.runs(block, count):
            if physical == UNMAPPED:
                yield MapExtent(logical, blocks, 0, None, _UNMAPPED.get(source, "never written"))
                continue
            if physical == UNKNOWN:  # behind the end of the device: it is no hole, and nobody can read it
                nowhere = self.state.volume.device.geometry.size_bytes // LOGICAL_BLOCK_BYTES
                yield MapExtent(logical, blocks, 0, nowhere, f"lost: {_LOST}")
                continue
            by = "forward table" if source == FROM_TABLE else "map cache"
            if base <= physical < end:
                zone, offset = divmod(physical - base, ZONE_BLOCKS)
                why = f"data zone {zone} block {offset} ({by})"
            else:
                why = f"{by}, outside the data area"
            yield MapExtent(logical, blocks, 0, first + physical, why)
