"""A sound target, open for offline work that becomes a plan: chunks freed, chunks moved, ordinary commits.

The work is done on copy-on-write views with the mapper's own store, zones and commits, so what survives a power cut
there survives one while the plan is carried out. Chunks are moved whole, data zone and buffer zone together, and each
at most once: what a move reads is what is on the devices before the plan.

Source: sections 5.3, 5.4 and 11 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import ManageZones, Plan, Produce
from zoned_tools.device.planned import PlannedDevice
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import CheckOptions, Settings, Severity
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, check
from zoned_tools.formats.dm_zoned.geometry import held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED
from zoned_tools.formats.dm_zoned.mapper.allocate import ZonePool
from zoned_tools.formats.dm_zoned.mapper.bitmaps import joined_runs
from zoned_tools.formats.dm_zoned.mapper.read import MAX_GAP_BLOCKS
from zoned_tools.formats.dm_zoned.mapper.sets import REPAIR_HINT, open_for_writing, refuse_dead_zones
from zoned_tools.formats.dm_zoned.mapper.write import MAX_CHANGED_BLOCKS
from zoned_tools.formats.dm_zoned.settings import SETTINGS
from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.layout import MapArray, MetadataLayout
    from zoned_tools.formats.dm_zoned.open import TargetBlocks, Words

PackedBits = npt.NDArray[np.uint8]
"""Validity of consecutive blocks, eight in a byte, the first one highest."""

MOVE_BLOCKS = 1024
"""How much one step moves."""


def checked(target: Target, accepted: frozenset[str] = frozenset()) -> DmZonedEvidence:
    """A target that offline work may begin on; findings of the codes in ``accepted`` do not matter.

    Raises:
        RefusedError: check finds an error, or the sets need a sync first.
        NoValidSuperBlockError: no metadata set can be used.
        GeometryError, DeviceError: it cannot be read.
    """
    evidence = check(target, CheckOptions())
    refuse_dead_zones(evidence.geometry, evidence.chosen.layout, target.device.path)
    refuse_unsound(evidence, accepted)
    return evidence


def refuse_unsound(evidence: DmZonedEvidence, accepted: frozenset[str] = frozenset()) -> None:
    """Refuse a target with errors, or whose sets differ.

    Args:
        accepted: codes that do not matter here.

    Raises:
        RefusedError: the message has the first finding that does.
    """
    for group in evidence.findings.groups:
        if group.code in accepted:
            continue
        if group.severity is Severity.ERROR or group.code == "sets-gen-differ":
            first = next(iter(group))
            paths = " ".join(shell_word(path) for path in evidence.target.paths)
            sync = f"dmzadm --repair {paths} brings both sets together, which loses nothing"
            hint = REPAIR_HINT if group.severity is Severity.ERROR else sync
            raise RefusedError(f"{first.id}: {first.message}", device=evidence.target.device.path, hint=hint)


class Workspace:
    """A target whose changes become :attr:`plan`; nothing is written.

    Attributes:
        evidence: what a check found before.
        target: the views, which show what was done.
    """

    def __init__(self, target: Target, evidence: DmZonedEvidence, title: str) -> None:
        self.plan = Plan(title)
        self.evidence = evidence
        self._views = tuple(PlannedDevice(device, self.plan, number) for number, device in enumerate(target.devices))
        self.target = replace(target, devices=self._views)
        opened = open_for_writing(self.target, Settings({}, SETTINGS), resized_too=True)
        self._disk, self._store = opened.disk, opened.store
        layout = opened.store.layout
        named = evidence.chosen.map.owners.named
        warnings: list[str] = []
        self._pool = ZonePool(
            opened.disk, held_zones(evidence.geometry, layout), named, layout.nr_reserved_seq, warnings
        )
        self._source = evidence.state.blocks
        self.moved_blocks = 0

    # -- what is there

    @property
    def geometry(self) -> TargetGeometry:
        return self.evidence.geometry

    @property
    def layout(self) -> MetadataLayout:
        return self._store.layout

    @property
    def table(self) -> MapArray:
        """The mapping table as it is now: shape (map blocks * 512, 2)."""
        return self._store.table

    @property
    def generation(self) -> int:
        return self._store.generation

    def free_sequential(self, *, with_reserve: bool = False) -> int:
        """Sequential zones that are free, those that wait for a commit included."""
        counts = self._pool.counts()
        return counts["sequential"] + (counts["reserve"] if with_reserve else 0)

    def zones_reset(self) -> list[int]:
        """Zones that the plan resets, ascending."""
        found = set[int]()
        for step in self.plan.steps:
            if isinstance(step, ManageZones) and step.operation is ZoneOperation.RESET:
                member = self.geometry.members[step.device]
                first = step.first_zone - member.start_bytes // self.geometry.zone_bytes + member.first_zone
                found.update(range(first, first + step.count))
        return sorted(found)

    def is_dead(self, zones: Sequence[int]) -> bool:
        """True when one of the zones cannot be written any more."""
        return any(self._disk.is_dead(zone) for zone in zones)

    def zones_of(self, chunk: int) -> tuple[int, int]:
        """Data zone and buffer zone, ``UNMAPPED`` for none."""
        return self._store.zones_of(chunk)

    def bits(self, zone: int) -> BoolArray:
        """Valid blocks of a zone below its write pointer."""
        bits = self._store.bitmaps[zone].bits(0, self.layout.zone_blocks)
        bits[self._disk.wp_blocks[zone] :] = False
        return bits

    def words(self, zone: int) -> Words:
        """Bitmap of a zone as it is stored."""
        return np.frombuffer(bytes(self._store.bitmaps[zone].raw), "<u8")

    def can_append(self, chunk: int) -> bool:
        """True when a buffer zone's blocks fit behind the write pointer of the data zone."""
        data_zone, buffer_zone = self.zones_of(chunk)
        return self._store.bitmaps[buffer_zone].first_valid() >= self._disk.wp_blocks[data_zone]

    # -- what can be done

    def unmap(self, chunks: IntArray) -> None:
        """Chunks get no zones; their own are free, and sequential ones reset, after the next commit."""
        zones = self.table[chunks]
        for chunk in chunks.tolist():
            self._store.map_chunk(chunk, UNMAPPED)
        for zone in np.unique(zones[zones != UNMAPPED]).tolist():
            self._pool.free(zone)

    def move(self, chunk: int) -> bool:
        """All valid blocks of a chunk go to a new sequential zone; False when none is free.

        A chunk without a valid block is unmapped instead.
        """
        zones = [zone for zone in self.zones_of(chunk) if zone != UNMAPPED]
        parts = [(zone, self.bits(zone)) for zone in zones]
        merged = np.logical_or.reduce([bits for _, bits in parts])
        if not merged.any():
            self.unmap(np.array([chunk]))
            return True
        target = self._take()
        if target is None:
            return False
        self._copy(target, 0, parts, merged)
        self._disk.settle(target)
        self._store.replace(target, merged)
        self._store.map_chunk(chunk, target)
        self._leave(zones)
        return True

    def append(self, chunk: int) -> None:
        """The blocks of the buffer zone go behind the write pointer of the data zone (:meth:`can_append`)."""
        data_zone, buffer_zone = self.zones_of(chunk)
        bits = self.bits(buffer_zone)
        merged = self.bits(data_zone) | bits
        self._copy(data_zone, self._disk.wp_blocks[data_zone], [(buffer_zone, bits)], bits)
        self._store.replace(data_zone, merged)
        self._store.map_chunk(chunk, data_zone)
        self._leave([buffer_zone])

    def commit(self) -> None:
        """Make the changes durable, then reset the sequential zones that nothing names any more."""
        if self._store.nr_changed_blocks:
            self._note("")
            self._store.commit()
        if self._pool.has_pending:
            self._note("nothing names the zone any more")
            self._pool.committed()
            self._disk.flush()

    def _take(self) -> int | None:
        zone = self._pool.take_sequential()
        if zone is None and self._pool.has_pending:
            self.commit()
            zone = self._pool.take_sequential()
        return zone

    def _leave(self, zones: Sequence[int]) -> None:
        for zone in zones:
            self._store.assign(zone, 0, self.layout.zone_blocks, valid=False)
            self._pool.free(zone)
        if self._store.nr_changed_blocks > MAX_CHANGED_BLOCKS:
            self.commit()

    def _note(self, text: str) -> None:
        for view in self._views:
            view.note = text

    def _copy(self, target: int, first: int, parts: Sequence[tuple[int, BoolArray]], merged: BoolArray) -> None:
        """Blocks ``first`` to the last one in ``merged``, zeroes between valid ones."""
        end = int(np.flatnonzero(merged)[-1]) + 1
        note = f"zone {target}, from zone {' and '.join(str(zone) for zone, _ in parts)}"
        self.moved_blocks += int(np.count_nonzero(merged))
        for start in range(first, end, MOVE_BLOCKS):
            stop = min(start + MOVE_BLOCKS, end)
            pieces = tuple((zone, np.packbits(bits[start:stop])) for zone, bits in parts)
            produce = partial(valid_blocks, self._source, pieces, start, stop - start)
            device, offset = self.geometry.locate(target * self.layout.zone_blocks + start)
            self._views[device].write_later(
                Produce(device, offset, (stop - start) * BLOCK_BYTES, produce, note, moves=True)
            )
        self._disk.refresh(target)


def valid_blocks(blocks: TargetBlocks, pieces: Sequence[tuple[int, PackedBits]], first: int, count: int) -> bytes:
    """``count`` blocks from block ``first`` of zones on, each from the zone in which it is valid; else zeroes.

    Args:
        pieces: zones and their packed validity bits from block ``first`` on.

    Raises:
        DeviceError: a block cannot be read.
    """
    content = np.zeros((count, BLOCK_BYTES), np.uint8)
    for zone, packed in pieces:
        mask = np.unpackbits(packed, count=count).view(np.bool_)
        for start, end in joined_runs(mask, MAX_GAP_BLOCKS).tolist():
            raw = blocks.read(zone * blocks.geometry.zone_blocks + first + start, end - start)
            span = np.frombuffer(raw, np.uint8).reshape(-1, BLOCK_BYTES)
            wanted = mask[start:end]
            content[start:end][wanted] = span[wanted]
    return content.tobytes()
