"""Raw content straight into sequential zones, at about one byte written for a byte.

A chunk with anything but zeroes gets the next free sequential zone, mapped directly: the kernel target reads and writes
it as any chunk that it reclaimed. Its blocks go there in order up to the last one that is not zero; zeroes among them
fill the zone and are not valid. Data are durable before the commit that maps their chunks, so a power cut leaves the
chunks of the commits that were complete.

Source: section 11.3 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan, Stream
from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats.contract import Imported, ImportOptions, Settings
from zoned_tools.formats.dm_zoned.geometry import ZoneKind, held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BITS, BLOCK_BYTES, MAP_ENTRIES, NR_SETS, UNMAPPED
from zoned_tools.formats.dm_zoned.mapper.read import ContentReader
from zoned_tools.formats.dm_zoned.mapper.sets import open_for_writing
from zoned_tools.formats.dm_zoned.mapper.write import MAX_CHANGED_BLOCKS
from zoned_tools.formats.dm_zoned.settings import SETTINGS
from zoned_tools.formats.dm_zoned.workspace import checked
from zoned_tools.formats.shared.importing import inside, nonzero_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence

_COMMIT_SUPERBLOCKS = 3
"""Super blocks that a commit writes."""
_ZEROES = bytes(1 << 20)


@dataclass(slots=True)
class _Chunk:
    """The chunk that content comes for.

    Attributes:
        zone: where it goes; ``UNMAPPED`` for one that is there already and is compared.
        next: block of a sequential zone that is written next.
        bits: blocks that are not zero.
    """

    number: int
    zone: int
    next: int
    bits: BoolArray


class DmZonedImporter:
    """Fills a target (:class:`~zoned_tools.formats.contract.Importer`)."""

    def __init__(self, target: Target, options: ImportOptions) -> None:
        evidence = checked(target)
        _refuse_used(evidence, options)
        opened = open_for_writing(target, Settings({}, SETTINGS))
        self._options = options
        self._target = target
        self._disk, self._store = opened.disk, opened.store
        self._layout = opened.store.layout
        self._geometry = evidence.geometry
        self._reader = ContentReader(self._disk, self._store, target.device.path)
        self._free = _free_zones(evidence)
        self._used = 0
        self._waiting = 0
        self._rehearsed = 0  # metadata blocks that a rehearsal would have changed
        self._map_block = -1
        self._chunk: _Chunk | None = None
        self._done = Imported(zones={kind.name.lower(): 0 for kind in ZoneKind})

    @property
    def size_bytes(self) -> int:
        return self._layout.nr_chunks * self._geometry.zone_bytes

    @property
    def chunk_bytes(self) -> int:
        return self._geometry.zone_bytes

    def free_zones(self) -> dict[str, int]:
        """Zones that content may go to."""
        kinds = self._geometry.kinds[self._free[self._used :]]
        return {kind.name.lower(): int(np.count_nonzero(kinds == kind)) for kind in ZoneKind}

    def overwrites(self, chunks: int | None) -> Plan:
        """The zones that content may go to, and both metadata sets."""
        plan = Plan("import raw content to dm-zoned")
        for zone in self._free[: self._layout.nr_chunks if chunks is None else chunks]:
            self._stream(plan, zone * self._layout.zone_blocks, self._layout.zone_blocks, f"zone {zone}")
        for number in range(NR_SETS):
            self._stream(plan, self._layout.set_block(number), self._layout.nr_meta_blocks, f"metadata set {number}")
        return plan

    def _stream(self, plan: Plan, block: int, count: int, note: str) -> None:
        device, offset = self._geometry.locate(block)
        plan.steps.append(Stream(device, offset, count * BLOCK_BYTES, lambda: None, note))

    def taken(self) -> Sequence[tuple[int, int]]:
        """Mapped chunks, unless an import goes on: then they are compared."""
        if self._options.resume:
            return ()
        size = self._geometry.zone_bytes
        mapped = self._store.table[: self._layout.nr_chunks, 0] != UNMAPPED
        return [(first * size, (end - first) * size) for first, end in mask_runs(mapped).tolist()]

    # -- content

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Take whole blocks.

        Raises:
            RefusedError: they are behind the end, or for a chunk that holds something else.
            DeviceError: no zone is free, or a device failed.
        """
        data = inside(offset_bytes, data, self.size_bytes, self._target.device.path)
        block = offset_bytes // BLOCK_BYTES
        for part in self._reader.parts(block, len(data) // BLOCK_BYTES):
            start = (part.block - block) * BLOCK_BYTES
            self._take(part.chunk, part.offset, data[start : start + part.count * BLOCK_BYTES])

    def _take(self, number: int, offset: int, data: memoryview) -> None:
        mask = nonzero_blocks(data)
        if not mask.any():
            return
        if self._chunk is None or self._chunk.number != number:
            self._end_chunk()
            self._chunk = self._begin(number)
        chunk = self._chunk
        chunk.bits[offset : offset + len(mask)] = mask
        if chunk.zone == UNMAPPED:
            self._compare(chunk, offset, data)
            return
        for start, end in self._runs(chunk.zone, mask):
            if self._disk.sequential[chunk.zone]:
                self._fill(chunk, offset + start)
            self._put(chunk, offset + start, data[start * BLOCK_BYTES : end * BLOCK_BYTES])
        self._done.data_bytes += int(np.count_nonzero(mask)) * BLOCK_BYTES

    def _runs(self, zone: int, mask: BoolArray) -> Iterator[tuple[int, int]]:
        """What is written: of a sequential zone everything up to the last block that is not zero."""
        if not self._disk.sequential[zone]:
            yield from mask_runs(mask).tolist()
            return
        found = np.flatnonzero(mask)
        yield int(found[0]), int(found[-1]) + 1

    def _begin(self, number: int) -> _Chunk:
        bits = np.zeros(self._layout.zone_blocks, np.bool_)
        if self._store.zones_of(number)[0] != UNMAPPED:
            if not self._options.resume:
                raise self._refusal(number)
            return _Chunk(number, UNMAPPED, 0, bits)
        return _Chunk(number, self._next_zone(), 0, bits)

    def _refusal(self, number: int) -> RefusedError:
        return RefusedError(
            f"chunk {number} is mapped, and the content has something else than zeroes there"
            if not self._options.resume
            else f"chunk {number} holds something else than the content has there",
            device=self._target.device.path,
            hint="what was imported before stays as far as it was committed" if self._done.chunks else "",
        )

    def _next_zone(self) -> int:
        while self._used < len(self._free):
            zone = self._free[self._used]
            self._used += 1
            if self._disk.sequential[zone] and self._disk.wp_blocks[zone] and not self._options.rehearse:
                self._disk.reset(zone)  # what an import or a reclaim that was cut off left there
            if not self._disk.is_dead(zone):
                return zone
        raise DeviceError(
            "no zone is free any more",
            device=self._target.device.path,
            errno=errno.ENOSPC,
            hint=f"{self._layout.nr_reserved_seq} are reserved for reclaim",
        )

    def _fill(self, chunk: _Chunk, offset: int) -> None:
        """Zeroes up to a block."""
        while chunk.next < offset:
            count = min(offset - chunk.next, len(_ZEROES) // BLOCK_BYTES)
            self._put(chunk, chunk.next, memoryview(_ZEROES)[: count * BLOCK_BYTES])

    def _put(self, chunk: _Chunk, offset: int, data: memoryview) -> None:
        if not self._options.rehearse:
            self._disk.write(chunk.zone, offset, data)
        chunk.next = offset + len(data) // BLOCK_BYTES
        self._done.written_bytes += len(data)

    def _end_chunk(self) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        if chunk.zone == UNMAPPED:
            self._compare_rest(chunk)
            return
        self._done.chunks += 1
        self._done.zones[ZoneKind(int(self._geometry.kinds[chunk.zone])).name.lower()] += 1
        if self._options.rehearse:
            self._count_metadata(chunk)
            return
        self._disk.settle(chunk.zone)
        self._store.replace(chunk.zone, chunk.bits)
        self._store.map_chunk(chunk.number, chunk.zone)
        self._waiting += 1
        every = self._options.commit_every
        if (every and self._waiting >= every) or self._store.nr_changed_blocks > MAX_CHANGED_BLOCKS:
            self._commit()

    def _count_metadata(self, chunk: _Chunk) -> None:
        """Blocks of bitmaps and of the map that a commit of the chunk changes; none of them is kept in memory."""
        block = chunk.number // MAP_ENTRIES
        self._rehearsed += int(np.logical_or.reduceat(chunk.bits, range(0, len(chunk.bits), BLOCK_BITS)).sum())
        self._rehearsed += block != self._map_block
        self._map_block = block

    def _commit(self) -> None:
        self._waiting = 0
        changed = self._rehearsed if self._options.rehearse else self._store.nr_changed_blocks
        if changed:
            self._done.written_bytes += (NR_SETS * changed + _COMMIT_SUPERBLOCKS) * BLOCK_BYTES
        if not self._options.rehearse:
            self._store.commit()

    def finish(self) -> Imported:
        """Commit what is left."""
        self._end_chunk()
        self._commit()
        return self._done

    # -- going on

    def _compare(self, chunk: _Chunk, offset: int, data: memoryview) -> None:
        """A part of a chunk that is there."""
        found = bytearray(len(data))
        self._reader.read_into(chunk.number * self._layout.zone_blocks + offset, memoryview(found))
        if found != data:
            raise self._refusal(chunk.number)

    def _compare_rest(self, chunk: _Chunk) -> None:
        """Where the content of a chunk has nothing but zeroes, and was not looked at."""
        first = chunk.number * self._layout.zone_blocks
        for block, count in self._reader.data_extents(first, self._layout.zone_blocks):
            for start, end in mask_runs(~chunk.bits[block - first : block - first + count]).tolist():
                found = bytearray((end - start) * BLOCK_BYTES)
                self._reader.read_into(block + start, memoryview(found))
                if any(found):
                    raise self._refusal(chunk.number)


def open_importer(target: Target, options: ImportOptions) -> DmZonedImporter:
    """Open a target to be filled.

    Raises:
        RefusedError: it holds data and nobody agreed, check finds an error, or the sets need a sync.
        ZonedError: it cannot be read.
    """
    return DmZonedImporter(target, options)


def _refuse_used(evidence: DmZonedEvidence, options: ImportOptions) -> None:
    mapped = evidence.chosen.map.nr_mapped
    if mapped and not (options.force or options.resume):
        raise RefusedError(
            f"it holds data: {mapped} chunks are mapped",
            device=evidence.target.device.path,
            hint="--resume goes on after an import that was cut off, --force fills chunks that are not mapped",
        )


def _free_zones(evidence: DmZonedEvidence) -> list[int]:
    """Zones in the order in which they are filled: sequential ones without the reserve, random, then cache zones."""
    geometry, survey = evidence.geometry, evidence.chosen
    free = ~held_zones(geometry, survey.layout) & ~geometry.runt & ~geometry.dead & ~survey.map.owners.named
    zones: list[int] = np.flatnonzero(free & geometry.sequential)[survey.layout.nr_reserved_seq :].tolist()
    for kind in (ZoneKind.RANDOM, ZoneKind.CACHE):
        zones += np.flatnonzero(free & (geometry.kinds == kind)).tolist()
    return zones
