"""Repair by rebuilding: consistent tables at home and three equal, closed generations.

Every area then holds the same state, so that nothing old can be picked up. Changed pages
go into journal slots that the old generation does not use and count only with the first
new generation; they are copied home under its protection. So a power cut leaves the old
state or the repaired one, whole.
"""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass, replace

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError
from zoned_tools.findings import CheckReport, Severity
from zoned_tools.formats.registry import RepairOptions, Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.check import Checked, check_state
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.generations import Candidate, Generations, looks_like_key
from zoned_tools.formats.zdm.identity import Identity
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, GROUP_ZONES, ZONE_BLOCKS, CreateLayout, Dialect
from zoned_tools.formats.zdm.rebuild import Rebuilder, Rebuilt
from zoned_tools.formats.zdm.state import State, assemble, load
from zoned_tools.formats.zdm.survey import Survey, Surveyor
from zoned_tools.formats.zdm.tables import Direction, Tables
from zoned_tools.formats.zdm.volume import Volume, partition_sectors
from zoned_tools.formats.zdm.writer import KeyFields, area_of, build_key, md_blocks

_WRONG_PLACE = ("key.zdstart", "key.nr_zones", "ident.geometry")
_LISTED = 20


def plan_repair(target: Target, report: CheckReport, options: RepairOptions) -> Plan:
    """What to write so that a check finds nothing but notes.

    The plan is empty when there is nothing to repair, or nothing that repair may touch; its
    messages then say why. ``options.allow`` with ``fwd.beyond_wp`` drops mappings of data
    that the drive has lost.
    """
    plan = Plan("repair ZDM metadata")
    state = load(target)
    checked = check_state(state)
    if not _may_repair(checked, plan):
        return plan
    _plan_identity(checked, plan)
    codes = {f.code for f in checked.report.findings if f.severity is not Severity.INFO}
    if not codes - {"ident.magic", "ident.crc", "zone.cond"}:
        return plan
    if state.fresh and "key.none" not in codes:
        _plan_fresh(state, plan)
        return plan
    if state.current is None:
        checked = _salvage(state, plan)
        state = checked.state
    survey = checked.survey
    if survey is None:
        return plan
    if not _lost_data_allowed(checked, survey, options, plan):
        return Plan(plan.title, [], plan.messages)
    rebuilt = Rebuilder(state, survey).run()
    _describe(rebuilt, plan)
    _Writing(state, rebuilt, plan).run()
    return plan


def _may_repair(checked: Checked, plan: Plan) -> bool:
    """Whether anything may be written at all."""
    state = checked.state
    findings = [f for f in checked.report.findings if f.severity is not Severity.INFO]
    if not findings:
        return False
    if state.dialect is not Dialect.D3:
        plan.messages.append(f"metadata of releases {state.dialect} are only read; copy the content to a new ZDM")
        return False
    wrong = [code for code in _WRONG_PLACE if code in checked.counts]
    if wrong:
        plan.messages.append(
            f"{', '.join(wrong)}: the partition or its start sector is probably wrong, nothing is changed"
        )
        return False
    if "zone.cond" in checked.counts:
        plan.messages.append("live data lie in zones that are read-only or offline; copy the content elsewhere")
    return True


def _lost_data_allowed(checked: Checked, survey: Survey, options: RepairOptions, plan: Plan) -> bool:
    """Mappings of data above a fallen write pointer are dropped only when the user agreed."""
    state = checked.state
    zones = state.zones
    recorded = np.minimum((state.wp & layout.WP_MASK).astype(np.int64), ZONE_BLOCKS)
    intact = np.ones(state.geometry.groups, np.bool_)
    intact[state.wp_bad] = False
    trusted = np.repeat(intact, GROUP_ZONES)[: len(recorded)]
    fell = zones.sequential & ~zones.dead & trusted & (recorded > zones.wp_blocks) & (survey.beyond > 0)
    if not fell.any():
        return True
    lost = int(survey.beyond[fell].sum())
    allowed = {"fwd.beyond_wp", "wp.ahead"} & options.allow
    zone = int(np.argmax(fell))
    what = f"{lost} mapped blocks lie above the write pointers of their zones (data zone {zone} first)"
    if allowed:
        plan.messages.append(f"{what}; their mappings are dropped")
        return True
    plan.messages.append(f"{what}: the drive has lost these data; --allow fwd.beyond_wp drops their mappings")
    return False


# -- identity


def _plan_identity(checked: Checked, plan: Plan) -> None:
    if checked.state.identity.usable:
        return
    fixed = rebuilt_identity(checked.state)
    plan.write(0, checked.state.volume.offset_bytes, fixed.build(), "identity super block")
    plan.flush(0)
    plan.messages.append("the identity super block is rebuilt; check label and options with zdmadm --probe")


def rebuilt_identity(state: State) -> Identity:
    """An identity from geometry and key, with those old fields that can be right."""
    old, geometry = state.identity, state.geometry
    size = state.volume.size_blocks * layout.BLOCK_SECTORS
    rest = partition_sectors(state.volume.device, state.volume.offset_bytes)
    reserved = _plausible_reserve(old, geometry.start_sector, size)
    created = CreateLayout.compute(geometry.start_sector, size, reserved)
    label = old.label if old.label.isprintable() and len(old.label.encode()) < 64 else ""
    readable = old.magic_ok or old.version == layout.IDENTITY_VERSION
    base = old if readable else Identity(NIL_UUID, 0, 0, 0, 0)
    uuid = old.uuid if old.uuid != NIL_UUID else uuids.uuid4()
    return replace(
        base.as_current(),
        uuid=uuid,
        version=layout.IDENTITY_VERSION,
        sect_start=geometry.start_sector,
        sect_size=old.sect_size if size <= old.sect_size <= rest else rest,
        mz_metadata_zones=3,
        mz_over_provision=reserved - 3,
        zdm_blocks=created.logical_sectors,
        label=label,
        data_start=geometry.zdstart,
        zone_size=layout.ZONE_SECTORS,
        discard=old.discard & (layout.DISCARD_TRIM | layout.DISCARD_RAID) if readable else layout.DISCARD_TRIM,
        disk_type=old.disk_type & (layout.DISK_HOST_AWARE | layout.DISK_HOST_MANAGED),
        zac_zbc=old.zac_zbc & 3,
    )


def _plausible_reserve(old: Identity, start_sector: int, size_sectors: int) -> int:
    """Reserve that the old identity names directly, or through its logical size."""
    by_size = [
        reserved
        for reserved in range(8, 1024)
        if CreateLayout.compute(start_sector, size_sectors, reserved).logical_sectors == old.zdm_blocks
    ]
    if old.mz_metadata_zones == 3 and 8 <= old.reserved < 1024 and (not by_size or old.reserved in by_size):
        return old.reserved
    return by_size[0] if by_size else 8


# -- no generation


def _plan_fresh(state: State, plan: Plan) -> None:
    """A format that was never started, with damaged CRC pages."""
    geometry, offset = state.geometry, state.volume.offset_bytes
    pages = state.created.crc_pages
    plan.fill(
        0, offset + geometry.crc_start * BLOCK_BYTES, pages * BLOCK_BYTES, layout.EMPTY_PAGE_CRC, "empty CRC pages"
    )
    plan.flush(0)


def _salvage(state: State, plan: Plan) -> Checked:
    """Go on from the best key with a wrong checksum, or from the tables at their home place alone."""
    found = state.generations
    best = max(found.salvageable, key=lambda c: _likelihood(state, c), default=None)
    if best is not None:
        plan.messages.append(
            f"every key is damaged; the generation of block {best.block} is complete but for the key's checksum"
        )
        renumbered = Generations(found.candidates, best)
        return check_state(assemble(state.volume, state.identity, renumbered))
    plan.messages.append("no generation can be salvaged: only what the tables hold at their home place is left")
    survey = Surveyor(state).run()
    return Checked(state, CheckReport("zdm", (state.path,)), survey)


def _likelihood(state: State, candidate: Candidate) -> tuple[bool, bool, int]:
    """Order of salvageable keys: write pointer blocks match only the newest, then by the number if it fits its area."""
    groups = state.geometry.groups
    crcs = crc16_pages(state.volume.read_rows(layout.WP_BLOCK, 2 * groups))
    match = np.array_equal(crcs[0::2], candidate.wp_crcs[:groups])
    consistent = area_of(candidate.generation) == candidate.window
    return match, consistent, candidate.generation if consistent else 0


# -- writing


def _describe(rebuilt: Rebuilt, plan: Plan) -> None:
    for blocks, text in ((rebuilt.recovered, "recovered from the reverse table"), (rebuilt.dropped, "lost, unmapped")):
        if not blocks:
            continue
        shown = ", ".join(str(b) for b in blocks[:_LISTED])
        more = f" and {len(blocks) - _LISTED} more" if len(blocks) > _LISTED else ""
        plan.messages.append(f"{len(blocks)} mappings {text}: logical blocks {shown}{more}")


@dataclass(slots=True)
class _Pointers:
    """Write pointer and free estimate blocks, alternating, and the key's stream and reserve fields."""

    blocks: list[bytes]
    streams: bytes
    gc_reserve: int
    meta_reserve: int


class _Writing:
    """Turns rebuilt tables into the steps of a plan."""

    def __init__(self, state: State, rebuilt: Rebuilt, plan: Plan) -> None:
        self._state = state
        self._geometry = state.geometry
        self._plan = plan
        self._offset = state.volume.offset_bytes
        self._changed = {h: p.tobytes() for h, p in rebuilt.pages.dirty.items()}
        current = state.current
        self._uuid = current.key.super.uuid if current else uuids.uuid4()
        self._number = self._first_number(state.generations)
        self._kept_slots: dict[int, int] = {}

    def _first_number(self, found: Generations) -> int:
        number = max(found.highest_number, layout.FIRST_GENERATION - 1) + 1
        if number >= 1 << 63:
            raise MetadataError(f"generation number {number - 1} is impossible", device=self._state.path)
        if found.chosen is not None and area_of(number) == found.chosen.window:
            number += 1  # the generation that counts until the first new one is complete stays
        return number

    def run(self) -> None:
        home = self._home_pages()
        survey, crc_pages, md_crcs = self._result_of(home)
        pointers = self._pointers(survey)
        changed = self._changed | crc_pages
        slots = self._slots(sorted(changed)) if changed else {}
        if changed and not slots:
            self._plan.messages.append(
                f"{len(changed)} changed pages do not fit the journal and are overwritten in place; keep the undo file"
            )
        self._write_pages({layout.JOURNAL_BLOCK + s: changed[h] for h, s in slots.items()}, "changed page, journaled")
        for index, block in enumerate(pointers.blocks):
            self._write(layout.WP_BLOCK + index, block, "free estimates" if index % 2 else "write pointers")
        self._plan.flush(0)
        if slots:
            self._generation(slots, pointers, md_crcs)
        self._write_pages(home | crc_pages, "table page")
        self._plan.flush(0)
        keys = [self._generation({}, pointers, md_crcs) for _ in range(3)]
        self._clear_stale_keys(keys)

    def _home_pages(self) -> dict[int, bytes]:
        """Everything to be written home: changed pages, and pages that are in the journal now."""
        volume = self._state.volume
        journaled = {h: volume.read(copy) for h, copy in self._state.tables.journal.items()}
        tables = {h: p for h, p in journaled.items() if h < self._geometry.crc_start}
        return tables | self._changed

    def _result_of(self, home: dict[int, bytes]) -> tuple[Survey, dict[int, bytes], Words]:
        """Survey of the repaired tables, CRC pages that differ at home, and the CRC-of-CRC entries."""
        state, geometry = self._state, self._geometry
        view = Overlay(state.volume.device)
        volume = Volume(view, state.volume.offset_bytes, state.volume.start_sector, state.volume.size_blocks)
        for block, data in home.items():
            volume.write(block, data)
        tables = Tables(volume, geometry, {})
        survey = Surveyor(replace(state, volume=volume, tables=tables, generations=Generations([], None))).run()
        if survey.fwd_norev or survey.rev_nofwd or survey.doubles or survey.fwd_range or survey.rev_range:
            raise MetadataError("the tables cannot be rebuilt", device=state.path, hint="this is a bug, please report")
        pages: dict[int, bytes] = {}
        md_crcs = np.full(4096, layout.EMPTY_CRC_PAGE_CRC, np.uint16)
        for direction in Direction:
            entries = np.full(geometry.crc_count * layout.CRC_PAGE_ENTRIES, layout.EMPTY_PAGE_CRC, "<u2")
            entries[: geometry.map_count] = survey.page_crcs[direction]
            rows = entries.view(np.uint8).reshape(-1, BLOCK_BYTES)
            md_crcs[direction * 2048 :][: len(rows)] = crc16_pages(rows)
            start = tables.crc_start(direction)
            stored = state.volume.read_rows(start, len(rows))
            for number in np.flatnonzero((stored != rows).any(axis=1)).tolist():
                pages[start + number] = rows[number].tobytes()
        return survey, pages, md_crcs

    def _pointers(self, survey: Survey) -> _Pointers:
        state, geometry = self._state, self._geometry
        zones, count = state.zones, geometry.data_zones
        recorded = np.minimum((state.wp & layout.WP_MASK).astype(np.int64), ZONE_BLOCKS)
        known = zones.sequential & ~zones.dead & (zones.wp_blocks >= 0)
        wp = np.where(known, zones.wp_blocks, np.maximum(recorded, survey.highest))
        flags = np.where(zones.sequential, 0, layout.WP_NON_SEQ)
        flags |= np.where(wp >= zones.capacity_blocks, layout.WP_GC_READY, 0)
        zf = (ZONE_BLOCKS - survey.live) | (state.zf & ~np.uint32(layout.ZF_MASK)).astype(np.int64)
        padded = np.full((2, geometry.groups * GROUP_ZONES), 0xFFFFFFFF, np.int64)
        padded[1] = 0
        padded[0, :count], padded[1, :count] = wp | flags, zf
        rows = padded.astype("<u4").reshape(2, geometry.groups, GROUP_ZONES)
        blocks = [rows[kind, group].tobytes() for group in range(geometry.groups) for kind in (0, 1)]
        current = state.current
        streams = current.streams if current else np.full(256, -1, np.int64)
        streams = np.where((streams < 0) | (streams >= count), layout.NO_ZONE, streams)
        reserves = [int(current.key.gc_resv), int(current.key.meta_resv)] if current else [count - 1, count - 2]
        defaults = (count - 1, count - 2)
        reserves = [
            value if value & layout.RESERVE_ZONE_MASK < count else default
            for value, default in zip(reserves, defaults, strict=True)
        ]
        return _Pointers(blocks, streams.astype("<u4").tobytes(), *reserves)

    def _slots(self, homes: list[int]) -> dict[int, int]:
        """A journal slot for each page that the old generation does not use; empty when they do not suffice."""
        nr_slots = self._geometry.journal_map_blocks * layout.PAGE_ENTRIES
        taken = {copy - layout.JOURNAL_BLOCK for copy in self._state.tables.journal.values()}
        free = [slot for slot in range(nr_slots) if slot not in taken]
        # Table pages that are journaled and right keep their slots in the first new generation. CRC pages
        # do not: those that are not written anew are right at home, whatever the journal holds.
        changed = set(homes)
        kept = {
            home: copy - layout.JOURNAL_BLOCK
            for home, copy in self._state.tables.journal.items()
            if home not in changed and home < self._geometry.crc_start
        }
        if any(slot >= nr_slots for slot in kept.values()):
            return {}
        if len(free) < len(homes):
            return {}
        self._kept_slots = kept
        return dict(zip(homes, free, strict=False))

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
        for home, slot in (slots | self._kept_slots if slots else {}).items():
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
        key = build_key(fields, journal.tobytes(), [], [], md)
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
        stale = [b for b in looks_like_key(rows).tolist() if b not in written]
        self._write_pages(dict.fromkeys(stale, bytes(BLOCK_BYTES)), "stale key")
        if stale:
            self._plan.flush(0)
