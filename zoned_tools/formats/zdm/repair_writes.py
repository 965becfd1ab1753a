"""From decisions to steps: consistent tables at home and three equal, closed generations.

Every area then holds the same state, so that nothing old can be picked up. Changed pages
go into journal slots that the old generation does not use and count only with the first
new generation; they are copied home under its protection. So a power cut leaves the old
state or the repaired one, whole.
"""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.overlay import Overlay
from zoned_tools.errors import MetadataError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.judge import Generations, looks_like_key
from zoned_tools.formats.zdm.keys import KeyFields, area_of, md_blocks, pack_key
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, GROUP_ZONES, ZONE_BLOCKS
from zoned_tools.formats.zdm.survey import survey
from zoned_tools.formats.zdm.tables import Direction, Tables
from zoned_tools.formats.zdm.volume import Volume

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.rebuild import Rebuilt
    from zoned_tools.formats.zdm.superblock import SuperBlock
    from zoned_tools.formats.zdm.survey import Survey


def write_identity(state: State, fixed: SuperBlock, plan: Plan) -> None:
    """Steps for a new block 0."""
    plan.write(0, state.volume.offset_bytes, fixed.pack(), "identity super block")
    plan.flush(0)


def write_empty_crc_pages(state: State, plan: Plan) -> None:
    """Steps for a format that was never started and has damaged CRC pages."""
    start = state.volume.offset_bytes + state.geometry.crc_start * BLOCK_BYTES
    plan.fill(0, start, state.created.crc_pages * BLOCK_BYTES, layout.EMPTY_PAGE_CRC, "empty CRC pages")
    plan.flush(0)


def write_rebuilt(state: State, measured: Survey, rebuilt: Rebuilt, plan: Plan) -> None:
    """Steps for rebuilt tables.

    Raises:
        MetadataError: the generation's number is impossible.
    """
    _Writing(state, measured, rebuilt, plan).run()


@dataclass(slots=True)
class _Pointers:
    """Write pointer and free estimate blocks, alternating, and the key's stream and reserve fields."""

    blocks: list[bytes]
    streams: bytes
    gc_reserve: int
    meta_reserve: int


@dataclass(frozen=True, slots=True)
class JournalSlots:
    """Slots of the first new generation by home block: for changed pages, and kept for others."""

    changed: dict[int, int]
    kept: dict[int, int]


def slots_for(state: State, homes: list[int]) -> JournalSlots | None:
    """A journal slot for each page that the old generation does not use; None when they do not suffice."""
    nr_slots = state.geometry.journal_map_blocks * layout.PAGE_ENTRIES
    used = {home: copy - layout.JOURNAL_BLOCK for home, copy in state.tables.journal.items()}
    taken = set(used.values())
    free = [slot for slot in range(nr_slots) if slot not in taken]
    # Table pages that are journaled and right keep their slots in the first new generation. CRC pages
    # do not: those that are not written anew are right at home, whatever the journal holds.
    changed = set(homes)
    kept = {h: slot for h, slot in used.items() if h not in changed and h < state.geometry.crc_start}
    if len(free) < len(homes) or any(slot >= nr_slots for slot in kept.values()):
        return None
    return JournalSlots(dict(zip(homes, free, strict=False)), kept)


class _Writing:
    """Turns rebuilt tables into the steps of a plan."""

    def __init__(self, state: State, measured: Survey, rebuilt: Rebuilt, plan: Plan) -> None:
        self._state = state
        self._measured = measured
        self._geometry = state.geometry
        self._plan = plan
        self._offset = state.volume.offset_bytes
        self._changed = {h: p.tobytes() for h, p in rebuilt.pages.dirty.items()}
        current = state.current
        self._uuid = current.key.super.uuid if current else uuids.uuid4()
        self._number = self._first_number(state.generations)

    def _first_number(self, found: Generations) -> int:
        number = max(found.highest_number, layout.FIRST_GENERATION - 1) + 1
        if number >= 1 << 63:
            raise MetadataError(f"generation number {number - 1} is impossible", device=self._state.path)
        if found.chosen is not None and area_of(number) == found.chosen.window:
            number += 1  # the generation that counts until the first new one is complete stays
        return number

    def run(self) -> None:
        home = self._home_pages()
        result = self._result_of(home)
        crc_pages, md_crcs = self._crc_pages(result)
        pointers = self._pointers(result)
        changed = self._changed | crc_pages
        slots = slots_for(self._state, sorted(changed)) if changed else None
        if slots is not None:
            journaled = {layout.JOURNAL_BLOCK + slot: changed[home] for home, slot in slots.changed.items()}
            self._write_pages(journaled, "changed page, journaled")
        elif changed:
            self._plan.messages.append(
                f"{len(changed)} changed pages do not fit the journal and are overwritten in place; keep the undo file"
            )
        for index, block in enumerate(pointers.blocks):
            self._write(layout.WP_BLOCK + index, block, "free estimates" if index % 2 else "write pointers")
        self._plan.flush(0)
        if slots is not None:
            self._generation(slots.changed | slots.kept, pointers, md_crcs)
        self._write_pages(home | crc_pages, "table page")
        self._plan.flush(0)
        keys = [self._generation({}, pointers, md_crcs) for _ in range(3)]
        self._clear_stale_keys(keys)

    def _home_pages(self) -> dict[int, bytes]:
        """Everything to be written home: changed pages, and pages that are in the journal now."""
        volume = self._state.volume
        kept = {h: copy for h, copy in self._state.tables.journal.items() if h not in self._changed}
        journaled = {h: volume.read(copy) for h, copy in kept.items() if h < self._geometry.crc_start}
        return journaled | self._changed

    def _result_of(self, home: dict[int, bytes]) -> Survey:
        """Survey of the repaired tables: that of the check where they stay as they are."""
        state, measured = self._state, self._measured
        hidden = measured.pairs.hidden
        if not self._changed and measured.consistent and not len(hidden.logical) and not len(hidden.discards):
            return measured
        view = Overlay(state.volume.device)
        volume = Volume(view, state.volume.offset_bytes, state.volume.start_sector, state.volume.size_blocks)
        for block, data in home.items():
            volume.write(block, data)
        tables = Tables(volume, self._geometry, {})
        result = survey(replace(state, volume=volume, tables=tables, generations=Generations([], None)))
        if not result.consistent:
            raise MetadataError("the tables cannot be rebuilt", device=state.path, hint="this is a bug, please report")
        return result

    def _crc_pages(self, result: Survey) -> tuple[dict[int, bytes], Words]:
        """CRC pages of the repaired tables that differ from those at home, and the CRC-of-CRC entries."""
        state, geometry = self._state, self._geometry
        pages: dict[int, bytes] = {}
        md_crcs = np.full(4096, layout.EMPTY_CRC_PAGE_CRC, np.uint16)
        for direction in Direction:
            entries = np.full(geometry.crc_count * layout.CRC_PAGE_ENTRIES, layout.EMPTY_PAGE_CRC, "<u2")
            entries[: geometry.map_count] = result.page_crcs[direction]
            rows = entries.view(np.uint8).reshape(-1, BLOCK_BYTES)
            md_crcs[direction * 2048 :][: len(rows)] = crc16_pages(rows)
            start = state.tables.crc_start(direction)
            stored = state.volume.read_rows(start, len(rows))
            for number in np.flatnonzero((stored != rows).any(axis=1)).tolist():
                pages[start + number] = rows[number].tobytes()
        return pages, md_crcs

    def _pointers(self, result: Survey) -> _Pointers:
        state, count = self._state, self._geometry.data_zones
        current = state.current
        streams = current.streams if current else np.full(256, -1, np.int64)
        streams = np.where((streams < 0) | (streams >= count), layout.NO_ZONE, streams)
        defaults = (count - 1, count - 2)
        reserves = (int(current.key.gc_resv), int(current.key.meta_resv)) if current else defaults
        gc_reserve, meta_reserve = (
            value if value & layout.RESERVE_ZONE_MASK < count else default
            for value, default in zip(reserves, defaults, strict=True)
        )
        return _Pointers(_pointer_blocks(state, result), streams.astype("<u4").tobytes(), gc_reserve, meta_reserve)

    # -- steps

    def _write(self, block: int, data: bytes, note: str) -> None:
        self._plan.write(0, self._offset + block * BLOCK_BYTES, data, note)

    def _write_pages(self, pages: dict[int, bytes], note: str) -> None:
        """Pages in ascending order, adjacent ones in one step of at most a MiB."""
        run: list[int] = []
        for block in sorted(pages):
            if run and (block != run[-1] + 1 or len(run) == 256):
                self._write(run[0], b"".join(pages[b] for b in run), note)
                run = []
            run.append(block)
        if run:
            self._write(run[0], b"".join(pages[b] for b in run), note)

    def _generation(self, slots: dict[int, int], pointers: _Pointers, md_crcs: Words) -> int:
        """Write a closed generation without cache pages; the block of its key."""
        geometry = self._geometry
        journal = np.full(geometry.journal_map_blocks * layout.PAGE_ENTRIES, layout.SLOT_FREE, "<u4")
        for home, slot in slots.items():
            journal[slot] = home
        crcs = crc16_pages(np.frombuffer(b"".join(pointers.blocks), np.uint8).reshape(-1, BLOCK_BYTES)).tolist()
        md = md_blocks(md_crcs)
        fields = KeyFields(
            self._uuid,
            geometry.data_zones,
            geometry.zdstart,
            0,
            pointers.streams,
            pointers.gc_reserve,
            pointers.meta_reserve,
            geometry.journal_map_blocks,
            0,
            self._number,
            crcs[0::2],
            crcs[1::2],
        )
        key = pack_key(fields, journal.tobytes(), [], [], md)
        area = area_of(self._number)
        block = area + geometry.journal_map_blocks
        self._write(area, journal.tobytes(), f"journal map of generation {self._number}")
        self._write(block + 1, md, "checksums of the CRC pages")
        self._plan.flush(0)
        self._write(block, key, f"key of generation {self._number}")
        self._plan.flush(0)
        self._number += 1
        return block

    def _clear_stale_keys(self, keys: list[int]) -> None:
        rows = self._state.volume.read_rows(0, layout.WP_BLOCK)
        width = self._geometry.journal_map_blocks
        written: set[int] = set()
        for key in keys:
            written.update(range(key - width, key + 3))
        unread = [b for b in self._state.volume.unread if layout.IDENTITY_BLOCK < b < layout.WP_BLOCK]
        stale = [b for b in {*looks_like_key(rows).tolist(), *unread} if b not in written]
        self._write_pages(dict.fromkeys(stale, bytes(BLOCK_BYTES)), "stale key")
        if stale:
            self._plan.flush(0)


def _pointer_blocks(state: State, result: Survey) -> list[bytes]:
    """Write pointer and free estimate block of each group, alternating: the drive's word, and what is live."""
    zones, groups, count = state.zones, state.geometry.groups, state.geometry.data_zones
    recorded = np.minimum((state.wp & layout.WP_MASK).astype(np.int64), ZONE_BLOCKS)
    for group in state.wp_unread:
        recorded[group * GROUP_ZONES : (group + 1) * GROUP_ZONES] = 0
    known = zones.sequential & ~zones.dead & (zones.wp_blocks >= 0)
    wp = np.where(known, zones.wp_blocks, np.maximum(recorded, result.highest))
    flags = np.where(zones.sequential, 0, layout.WP_NON_SEQ)
    flags |= np.where(wp >= zones.capacity_blocks, layout.WP_GC_READY, 0)
    zf = (ZONE_BLOCKS - result.live) | (state.zf & ~np.uint32(layout.ZF_MASK)).astype(np.int64)
    padded = np.full((2, groups * GROUP_ZONES), 0xFFFFFFFF, np.int64)
    padded[1] = 0
    padded[0, :count], padded[1, :count] = wp | flags, zf
    rows = padded.astype("<u4").reshape(2, groups, GROUP_ZONES)
    return [rows[kind, group].tobytes() for group in range(groups) for kind in (0, 1)]
