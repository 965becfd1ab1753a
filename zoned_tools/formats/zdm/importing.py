"""Raw content straight into the zones of a ZDM, one block after the other, at about one byte written for a byte.

The mapper's own writes are sequential already: blocks that hold anything go to the open zone of the default stream, and
syncs move the map to the tables. An import begins in an empty zone, so that what is saved for an undo is nobody's data,
and never reclaims. Everything of a sync that was complete survives a power cut; going on compares it with the content
and writes the rest.

Source: section 9 of the specification of the format (``docs/formats/zdm.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan, Stream
from zoned_tools.device.runs import mask_runs, runs
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import CheckOptions, Imported, ImportOptions, Settings, Severity
from zoned_tools.formats.shared.importing import inside, nonzero_blocks
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.check import check
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, ZONE_BLOCKS
from zoned_tools.formats.zdm.mapper.allocate import DEFAULT_STREAM
from zoned_tools.formats.zdm.mapper.open import state_to_write
from zoned_tools.formats.zdm.mapper.write import ZdmMapper
from zoned_tools.formats.zdm.mapping import UNMAPPED
from zoned_tools.formats.zdm.settings import SETTINGS
from zoned_tools.formats.zdm.volume import Volume

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.zdm.open import State

CHUNK_BLOCKS = layout.PAGE_ENTRIES
"""Blocks of the logical device that one page of the forward table describes."""


@dataclass(frozen=True, slots=True)
class _Counting(Volume):
    """Counts what is written, and where nothing may be written leaves it at that."""

    done: Imported | None = None
    rehearse: bool = False

    def write(self, block: int, data: Buffer) -> None:
        if self.done is not None:
            self.done.written_bytes += len(data)
        if not self.rehearse:
            Volume.write(self, block, data)


class _Filler(ZdmMapper):
    """The mapper without reclaim.

    Attributes:
        filled: data zones that got something.
    """

    def __init__(self, state: State, sb_uuid: uuid.UUID, *, rehearse: bool) -> None:
        super().__init__(state, sb_uuid)
        self.filled = set[int]()
        self._rehearse = rehearse

    def reclaim(self) -> int:
        """Nothing: what is overwritten was saved ahead."""
        return 0

    def candidates(self) -> IntArray:
        """Data zones in the order in which they are filled: empty ones, then what is left of others."""
        empty, writable = np.flatnonzero(self._empty()), np.flatnonzero(self.zones.writable)
        order: IntArray = np.concatenate([empty, np.setdiff1d(writable, empty)])
        return order

    def _empty(self) -> BoolArray:
        """A first start empties all zones."""
        mask = self.zones.empty
        if self._fresh:
            mask |= ~self.zones.closed
            mask[[self.zones.gc_reserve, self.zones.meta_reserve]] = False
        return mask

    def to_empty(self) -> IntArray:
        """Data zones that a first start resets."""
        return np.flatnonzero((self.zones.wp > 0) & ~self.zones.closed) if self._fresh else np.zeros(0, np.int64)

    def begin(self) -> None:
        """Start what was never started, and open an empty zone where there is one."""
        if not self._rehearse:
            self._begin()
        elif self._fresh:
            self.zones.wp[~self.zones.closed] = 0
        if self.zones.empty.any():
            self.zones.open_zone(DEFAULT_STREAM)

    def fill(self, block: int, data: memoryview) -> None:
        self.store(np.arange(block, block + len(data) // BLOCK_BYTES), data, DEFAULT_STREAM)
        self._relieve()

    def store(self, logical: IntArray, data: memoryview, stream: int, avoid: int = -1) -> None:
        if not self._rehearse:
            super().store(logical, data, stream, avoid)
            return
        done = 0
        while done < len(logical):
            first, taken = self.allocate(stream, len(logical) - done, avoid)
            self.state.volume.write(first, data[done * BLOCK_BYTES : (done + taken) * BLOCK_BYTES])
            done += taken

    def allocate(self, stream: int, wanted: int, avoid: int = -1) -> tuple[int, int]:
        first, taken = super().allocate(stream, wanted, avoid)
        self.filled.add((first - self.geometry.table_base) // ZONE_BLOCKS)
        return first, taken


class ZdmImporter:
    """Fills a ZDM (:class:`~zoned_tools.formats.contract.Importer`)."""

    def __init__(self, target: Target, options: ImportOptions) -> None:
        self._refuse_used(target, options)
        self._target, self._options = target, options
        self._done = Imported()
        state, sb_uuid = state_to_write(target, Settings({}, SETTINGS))
        volume = state.volume
        counting = _Counting(
            volume.device,
            volume.offset_bytes,
            volume.start_sector,
            volume.size_blocks,
            volume.unread,
            volume.strict,
            self._done,
            options.rehearse,
        )
        self._mapper = _Filler(replace(state, volume=counting), sb_uuid, rehearse=options.rehearse)
        self._began = False
        self._at = 0  # block behind what was looked at
        self._last_chunk = -1
        self._waiting = 0

    @staticmethod
    def _refuse_used(target: Target, options: ImportOptions) -> None:
        evidence = check(target, CheckOptions())
        if evidence.has_errors:
            group = next(group for group in evidence.findings.groups if group.severity is Severity.ERROR)
            first = next(iter(group))
            raise RefusedError(f"{first.id}: {first.message}", device=target.device.path, hint="repair it first")
        mapped = evidence.survey.mapped if evidence.survey is not None else 0
        if mapped and not (options.force or options.resume):
            raise RefusedError(
                f"it holds data: {mapped} blocks are mapped",
                device=target.device.path,
                hint="--resume goes on after an import that was cut off, --force fills blocks that are not mapped",
            )

    @property
    def size_bytes(self) -> int:
        return self._mapper.size_blocks * BLOCK_BYTES

    @property
    def chunk_bytes(self) -> int:
        return CHUNK_BLOCKS * BLOCK_BYTES

    def free_zones(self) -> dict[str, int]:
        """Data zones that content may go to, part of one counted as one."""
        order = self._mapper.candidates()
        return self._by_kind(order.tolist())

    def _by_kind(self, zones: Sequence[int]) -> dict[str, int]:
        sequential = int(np.count_nonzero(self._mapper.zones.sequential[list(zones)]))
        return {"sequential": sequential, "random": len(zones) - sequential}

    def overwrites(self, chunks: int | None) -> Plan:
        """Zones that content may go to, their pages of the tables, and what syncs write."""
        plan = Plan("import raw content to ZDM")
        mapper, geometry = self._mapper, self._mapper.geometry
        order = mapper.candidates()
        if chunks is not None:
            room = np.where(mapper.zones.empty, mapper.zones.capacity, mapper.zones.capacity - mapper.zones.wp)[order]
            order = order[: int(np.searchsorted(np.cumsum(room), chunks * CHUNK_BLOCKS)) + 1]
        pages = -(-mapper.size_blocks // CHUNK_BLOCKS)
        per_zone = ZONE_BLOCKS // layout.PAGE_ENTRIES
        metadata = [
            (1, layout.JOURNAL_BLOCK + geometry.journal_map_blocks * layout.PAGE_ENTRIES, "generations and journal"),
            (geometry.forward_start, geometry.forward_start + pages, "forward table"),
            (
                geometry.crc_start,
                geometry.crc_reverse_start + geometry.crc_reverse_start - geometry.crc_start,
                "checksums",
            ),
        ]
        zones = np.union1d(order, mapper.to_empty())
        for first, end in runs(zones):
            reverse = geometry.reverse_start
            metadata.append((reverse + first * per_zone, reverse + end * per_zone, "reverse table"))
        for first, end, what in metadata:
            self._stream(plan, first, end - first, what)
        for zone in zones.tolist():
            self._stream(plan, geometry.table_base + zone * ZONE_BLOCKS, ZONE_BLOCKS, f"data zone {zone}")
        return plan

    def _stream(self, plan: Plan, block: int, count: int, note: str) -> None:
        offset = self._mapper.state.volume.offset_bytes + block * BLOCK_BYTES
        plan.steps.append(Stream(0, offset, count * BLOCK_BYTES, lambda: None, note))

    def taken(self) -> Sequence[tuple[int, int]]:
        """Mapped blocks, unless an import goes on: then they are compared."""
        if self._options.resume:
            return ()
        return [
            (block * BLOCK_BYTES, count * BLOCK_BYTES) for block, count in self._mapped(0, self._mapper.size_blocks)
        ]

    def _mapped(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """``(block, blocks)`` of what is mapped in a range, ascending, adjoining runs joined."""
        at, end = first, first
        for block, blocks, physical, _ in self._mapper.map.runs(first, count) if count else ():
            if physical == UNMAPPED:
                continue
            if block != end:
                if end > at:
                    yield at, end - at
                at = block
            end = block + blocks
        if end > at:
            yield at, end - at

    # -- content

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Take whole blocks.

        Raises:
            RefusedError: they are behind the end, or for blocks that hold something else.
            DeviceError: no zone has room, or the device failed.
        """
        data = inside(offset_bytes, data, self.size_bytes, self._target.device.path)
        block, count = offset_bytes // BLOCK_BYTES, len(data) // BLOCK_BYTES
        self._compare_zeroes(block)
        self._at = block + count
        mask = nonzero_blocks(data)
        self._done.data_bytes += int(np.count_nonzero(mask)) * BLOCK_BYTES
        for at, blocks in self._mapped(block, count) if self._options.resume or self._options.force else ():
            part = slice(at - block, at - block + blocks)
            self._compare(at, data[part.start * BLOCK_BYTES : part.stop * BLOCK_BYTES], mask[part])
            mask[part] = False
        for start, end in mask_runs(mask).tolist():
            self._fill(block + start, data[start * BLOCK_BYTES : end * BLOCK_BYTES])

    def _compare_zeroes(self, end: int) -> None:
        """Where the content has a hole."""
        if not self._options.resume:
            return
        for at, blocks in self._mapped(self._at, end - self._at):
            for first in range(at, at + blocks, CHUNK_BLOCKS):
                count = min(CHUNK_BLOCKS, at + blocks - first)
                self._compare(first, memoryview(bytes(count * BLOCK_BYTES)), np.zeros(count, np.bool_))

    def _compare(self, block: int, data: memoryview, mask: BoolArray) -> None:
        """What is mapped stays; going on it has to be the content, else the content nothing but zeroes."""
        same = self._mapper.read(block, len(mask)) == data if self._options.resume else not mask.any()
        if not same:
            what = "hold something else than the content has there" if self._options.resume else "hold data"
            raise RefusedError(
                f"logical blocks {block} to {block + len(mask) - 1} {what}",
                device=self._target.device.path,
                hint="what was imported before stays as far as it was committed" if self._began else "",
            )

    def _fill(self, block: int, data: memoryview) -> None:
        if not self._began:
            self._began = True
            self._mapper.begin()
        first, last = block // CHUNK_BLOCKS, (block + len(data) // BLOCK_BYTES - 1) // CHUNK_BLOCKS
        every = self._options.commit_every
        if first > self._last_chunk and every and self._waiting >= every and not self._options.rehearse:
            self._mapper.flush()
            self._waiting = 0
        new = last - max(first - 1, self._last_chunk)
        self._last_chunk = last
        self._done.chunks += new
        self._waiting += new
        self._mapper.fill(block, data)

    def finish(self) -> Imported:
        """Close cleanly, which makes everything durable."""
        self._done.zones = self._by_kind(sorted(self._mapper.filled))
        if not self._options.rehearse:
            self._mapper.close()
        return self._done


def open_importer(target: Target, options: ImportOptions) -> ZdmImporter:
    """Open a ZDM to be filled.

    Raises:
        RefusedError: it holds data and nobody agreed, or check finds an error.
        ZonedError: it cannot be read, or not be written.
    """
    return ZdmImporter(target, options)
