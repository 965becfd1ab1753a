"""Moving chunks out of cache and random zones, so that there is always one for the next writer.

The cases are those of the kernel target (``dmz_do_reclaim`` in
``drivers/md/dm-zoned-reclaim.c``). A zone that is freed here is neither reset nor used
again before the next commit: the kernel target resets the data zone of case d at once and
loses committed data when the power fails between the reset and the commit.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.layout import UNMAPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.dm_zoned.mapper.allocate import ZonePool
    from zoned_tools.formats.dm_zoned.mapper.commit import MetadataStore
    from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk
    from zoned_tools.formats.dm_zoned.mapper.read import ContentReader

COPY_BLOCKS = 1024
"""How much is copied at a time."""


@dataclass(slots=True)
class ZoneUse:
    """Which chunk uses a zone, and in what order zones were used; oldest first.

    Attributes:
        owner: zone id to chunk, for zones that the mapping table names.
        buffers: cache and random zones in use (as data or buffer zones).
        buffered: sequential data zones that have a buffer zone.
    """

    owner: dict[int, int] = field(default_factory=dict)
    buffers: dict[int, None] = field(default_factory=dict)
    buffered: dict[int, None] = field(default_factory=dict)

    def touch(self, zone: int) -> None:
        """``zone`` was used just now."""
        for order in (self.buffers, self.buffered):
            if zone in order:
                del order[zone]
                order[zone] = None

    def forget(self, zone: int) -> None:
        """``zone`` is not named by the mapping table any more."""
        self.owner.pop(zone, None)
        self.buffers.pop(zone, None)
        self.buffered.pop(zone, None)


class Reclaimer:
    """Frees cache and random zones, one at a time."""

    def __init__(
        self, disk: TargetDisk, store: MetadataStore, pool: ZonePool, use: ZoneUse, reader: ContentReader
    ) -> None:
        self._disk = disk
        self._store = store
        self._pool = pool
        self._use = use
        self._reader = reader
        self._zone_blocks = disk.zone_blocks

    def reclaim_one(self) -> bool:
        """Free one zone, or swap a chunk's zones so that the next call can; False when nothing can be done.

        Raises:
            DeviceError: a device failed and no chunk could be moved; nothing that was readable is lost.
        """
        failed: DeviceError | None = None
        for chunk in self._candidates():
            try:
                if self._reclaim(chunk):
                    return True
            except DeviceError as error:  # one bad zone must not stop the others
                failed = failed or error
        if failed is not None:
            raise failed
        return False

    def _candidates(self) -> Iterator[int]:
        """Chunks in the order in which the kernel target would choose them."""
        buffered = [self._use.owner[z] for z in self._use.buffered]
        if self._pool.reserve_is_empty:
            yield from buffered
        for zone in list(self._use.buffers):
            chunk = self._use.owner[zone]
            if self._store.zones_of(chunk)[0] == zone:
                yield chunk
        # The largest data zone first: what is copied is then mostly the small rest in the buffer.
        weights = {c: self._store.bitmaps[self._store.zones_of(c)[0]].weight() for c in buffered}
        yield from sorted(buffered, key=lambda c: -weights[c])

    def _reclaim(self, chunk: int) -> bool:
        data_zone, buffer_zone = self._store.zones_of(chunk)
        zones = [z for z in (data_zone, buffer_zone) if z != UNMAPPED]
        if any(self._disk.is_dead(z) for z in zones):
            return False
        if not self._disk.sequential[data_zone]:
            return self._move_out(chunk, data_zone)
        if self._store.bitmaps[buffer_zone].first_valid() >= self._disk.wp_blocks[data_zone]:
            self._append_buffer(chunk, data_zone, buffer_zone)
        else:
            self._gather_in_buffer(chunk, data_zone, buffer_zone)
        return True

    # -- the four cases

    def _move_out(self, chunk: int, data_zone: int) -> bool:
        """Cases a and b: a chunk in a cache or random zone goes, or moves to a sequential zone."""
        bits = self._bits(data_zone)
        if not bits.any():
            self._store.map_chunk(chunk, UNMAPPED)
            self._release(data_zone)
            return True
        target = self._pool.take_target()
        if target is None:
            return False
        try:
            self._copy(data_zone, target, bits, fill_gaps=self._disk.sequential[target])
            self._disk.settle(target)
        except DeviceError:
            self._pool.give_back(target)
            raise
        self._store.replace(target, bits)
        self._store.map_chunk(chunk, target)
        self._use.owner[target] = chunk
        self._clear(data_zone)
        self._release(data_zone)
        return True

    def _append_buffer(self, chunk: int, data_zone: int, buffer_zone: int) -> None:
        """Case c: everything in the buffer zone fits behind the write pointer of the data zone."""
        bits = self._bits(buffer_zone)
        self._copy(buffer_zone, data_zone, bits, fill_gaps=True)
        merged = self._bits(data_zone)
        merged |= bits
        self._store.replace(data_zone, merged)
        self._store.map_chunk(chunk, data_zone)
        self._use.buffered.pop(data_zone, None)
        self._clear(buffer_zone)
        self._release(buffer_zone)

    def _gather_in_buffer(self, chunk: int, data_zone: int, buffer_zone: int) -> None:
        """Case d: the rest of the data zone goes into the buffer zone, which becomes the data zone."""
        bits = self._bits(data_zone)
        self._copy(data_zone, buffer_zone, bits, fill_gaps=False)
        merged = self._bits(buffer_zone)
        merged |= bits
        self._store.replace(buffer_zone, merged)
        self._store.map_chunk(chunk, buffer_zone)
        self._clear(data_zone)
        self._release(data_zone)

    # -- pieces of them

    def _bits(self, zone: int) -> BoolArray:
        bits = self._store.bitmaps[zone].bits(0, self._zone_blocks)
        bits[self._disk.wp_blocks[zone] :] = False
        return bits

    def _clear(self, zone: int) -> None:
        self._store.assign(zone, 0, self._zone_blocks, valid=False)

    def _release(self, zone: int) -> None:
        self._use.forget(zone)
        self._pool.free(zone)

    def _copy(self, source: int, target: int, bits: BoolArray, *, fill_gaps: bool) -> None:
        """Copy the blocks in ``bits`` to the same offsets of ``target``.

        With ``fill_gaps`` the target is written without gaps, from its write pointer to the
        last valid block, zeroes between valid ones.
        """
        valid = np.flatnonzero(bits)
        if not len(valid):
            return
        runs = [[self._disk.wp_blocks[target], int(valid[-1]) + 1]] if fill_gaps else mask_runs(bits).tolist()
        for start, end in runs:
            for first in range(start, end, COPY_BLOCKS):
                last = min(first + COPY_BLOCKS, end)
                self._disk.write(target, first, self._reader.read_zone(source, first, bits[first:last]))


def no_space(path: str) -> DeviceError:
    """No zone is free and none can be made free."""
    return DeviceError(
        "no free zone left, and reclaim finds nothing to free", device=path, errno=errno.ENOSPC, hint="discard data"
    )
