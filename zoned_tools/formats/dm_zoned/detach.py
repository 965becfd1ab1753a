"""The regular (cache) device leaves a target, which becomes one of its single zoned member again.

First, in the running layout and by ordinary commits, everything leaves the cache zones and the zones that the metadata
need; freed zones are reset after the commit. Then the sets are written to the drive, and the primary super block goes
over the member's: that is the commit. Last the super blocks on the cache device are zeroed. Cut off before the commit
it begins anew, after it the same command brings it to its end.

Source: section 11.1 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.contract import CheckOptions, Consents, Target
from zoned_tools.formats.dm_zoned.attach import CACHE, DRIVE, Regrouped
from zoned_tools.formats.dm_zoned.check import check
from zoned_tools.formats.dm_zoned.constants import NAME
from zoned_tools.formats.dm_zoned.geometry import ZoneKind, max_chunks
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    MAX_VERSION,
    NR_SETS,
    UNMAPPED,
    MetadataLayout,
    SuperBlock,
    bitmap_blocks_of,
)
from zoned_tools.formats.dm_zoned.open import open_blocks
from zoned_tools.formats.dm_zoned.probe import sealed_superblock
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair
from zoned_tools.formats.dm_zoned.tables import ShiftedBitmaps, plan_tables, shifted
from zoned_tools.formats.dm_zoned.workspace import Workspace, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry


@dataclass(frozen=True, slots=True)
class _Single:
    """The drive as a target of its own: its zones, and the metadata to come."""

    geometry: TargetGeometry
    layout: MetadataLayout


def plan_detach(cache: Device, drive: Device, *, shrink: bool = False) -> Regrouped:
    """Plan for the target on ``cache`` and ``drive`` to become one on ``drive`` alone.

    Args:
        shrink: the number of chunks may go down to what fits, as far as the last ones are not mapped.

    Raises:
        RefusedError: the drive cannot hold the target, or the target is not sound.
        ZonedError: a device cannot be read.
    """
    unfinished = _unfinished(cache, drive)
    if unfinished is not None:
        return _finish(cache, drive, unfinished)
    target = Target(NAME, (cache, drive))
    evidence = checked(target, frozenset({"regular-size-changed"}))  # of which this is a way out
    single = _plan_single(drive, evidence, shrink=shrink)
    leaving = _leaving(evidence, single.layout)
    work = Workspace(target, evidence, f"detach {cache.path} from dm-zoned {evidence.state.superblock.label}")
    _refuse_full(work, evidence, leaving)
    changed = _empty(work, evidence, leaving)
    shift = evidence.geometry.members[DRIVE].first_zone
    tertiary = evidence.state.tertiary[0].superblock
    assert tertiary is not None  # a check without errors
    good = evidence.state.superblock
    new = replace(
        single.layout.superblock(0, work.generation + 1),
        label_raw=good.label_raw,
        dmz_uuid=good.dmz_uuid,
        dev_uuid=tertiary.dev_uuid,
    )
    result = Regrouped(work.plan, new, (CACHE, DRIVE), (DRIVE,), -shift, copied_bytes=work.moved_blocks * BLOCK_BYTES)
    if work.plan:
        result.steps.append((DRIVE, "chunks leave the cache device and the zones of the metadata"))
    _plan_drive(result, work, evidence, single, changed)
    _plan_end(result, [evidence.chosen.layout.set_block(number) * BLOCK_BYTES for number in range(NR_SETS)])
    return result


# -- what is possible


def _plan_single(drive: Device, evidence: DmZonedEvidence, *, shrink: bool) -> _Single:
    """Sizes on the drive alone.

    Raises:
        RefusedError: its conventional zones cannot hold the metadata, or its zones the chunks.
    """
    geometry = open_blocks(Target(NAME, (drive,))).geometry
    old = evidence.state.superblock
    layout = MetadataLayout.of(geometry, 0, old.nr_chunks, old.nr_reserved_seq)
    room = max_chunks(geometry, layout.set_zones, old.nr_reserved_seq)
    if old.nr_chunks > room:
        data = evidence.chosen.map.data
        mapped = np.flatnonzero(data != UNMAPPED)
        used = int(mapped[-1]) + 1 if len(mapped) else 0
        text = (
            f"{old.nr_chunks} chunks and a reserve of {old.nr_reserved_seq} do not fit on {drive.path} alone: room for "
            f"{max(room, 0)}"
        )
        if room < max(used, 1):
            raise RefusedError(f"{text}, and chunk {used - 1} is mapped", device=drive.path)
        if not shrink:
            raise RefusedError(
                text,
                device=drive.path,
                hint=f"the last mapped chunk is {used - 1}: --shrink makes the target smaller",
            )
        layout = replace(layout, nr_chunks=room)
    _refuse_zones(drive, geometry, layout)
    return _Single(geometry, layout)


def _refuse_zones(drive: Device, geometry: TargetGeometry, layout: MetadataLayout) -> None:
    zones, path = layout.metadata_zones, drive.path
    random = (geometry.kinds == ZoneKind.RANDOM) & ~geometry.runt
    conventional = int(np.argmin(random)) if not random.all() else len(random)
    if conventional < len(zones):
        raise RefusedError(
            f"its first {len(zones)} zones would hold the metadata, and {conventional} of them are conventional",
            device=path,
        )
    dead = np.flatnonzero(geometry.dead[: len(zones)])
    if len(dead):
        state = "offline" if geometry.offline[dead[0]] else "read-only"
        raise RefusedError(
            f"zone {int(dead[0])} would hold metadata and is {state}: the target cannot be written", device=path
        )
    if layout.nr_reserved_seq > geometry.nr_cache:
        raise RefusedError(
            f"the target reserves {layout.nr_reserved_seq} zones, which needs as many conventional zones; it has "
            f"{geometry.nr_cache}",
            device=path,
        )
    if int(np.count_nonzero(random & ~geometry.dead)) <= len(zones):
        raise RefusedError(
            f"none of its {conventional} conventional zones is left beside {len(zones)} for the metadata: every write "
            "would wait for ever",
            device=path,
        )


def _leaving(evidence: DmZonedEvidence, layout: MetadataLayout) -> BoolArray:
    """Zones of the target that no chunk may use any more."""
    geometry = evidence.geometry
    leaving: BoolArray = geometry.kinds == ZoneKind.CACHE
    first = geometry.members[DRIVE].first_zone
    leaving[first : first + len(layout.metadata_zones)] = True
    return leaving


def _refuse_full(work: Workspace, evidence: DmZonedEvidence, leaving: BoolArray) -> None:
    """One sequential zone for each chunk that moves for good, and one for merging, which gives one back.

    Raises:
        RefusedError: there are fewer, or a zone to be left cannot be written any more.
    """
    mapping, path = evidence.chosen.map, evidence.target.device.path
    data, buffer = _chunks_to_move(evidence, leaving)
    for chunk in [*data.tolist(), *buffer.tolist()]:
        dead = [zone for zone in work.zones_of(chunk) if zone != UNMAPPED and work.is_dead([zone])]
        if dead:
            raise RefusedError(f"zone {dead[0]} of chunk {chunk} is read-only or offline", device=path)
    moving = int(np.count_nonzero(evidence.chosen.bits.weight[mapping.data[data]] > 0))
    merging = any(not work.can_append(chunk) for chunk in buffer.tolist())
    needed = max(moving, int(merging))
    free = work.free_sequential(with_reserve=True)
    if free < needed:
        raise RefusedError(
            f"{moving} chunks leave the cache device and {len(buffer)} buffers are merged, which needs {needed} free "
            f"sequential zones: {free} are",
            device=path,
            hint="zoned dm-zoned free may give some back",
        )


def _chunks_to_move(evidence: DmZonedEvidence, leaving: BoolArray) -> tuple[IntArray, IntArray]:
    """Chunks whose data zone is to be left, and chunks with a buffer zone."""
    mapping = evidence.chosen.map
    mapped = mapping.data != UNMAPPED
    data = np.flatnonzero(mapped & leaving[np.where(mapped, mapping.data, 0)])
    return data, np.flatnonzero(mapping.buffer != UNMAPPED)


# -- emptying


def _empty(work: Workspace, evidence: DmZonedEvidence, leaving: BoolArray) -> set[int]:
    """Merge the buffers, then move the chunks; the zones whose bits change."""
    data, buffer = _chunks_to_move(evidence, leaving)
    before = work.table.copy()
    for chunk in buffer.tolist():
        if work.can_append(chunk):
            work.append(chunk)
        elif not work.move(chunk):
            raise _no_zone(evidence)
    for chunk in data.tolist():
        if not work.move(chunk):
            raise _no_zone(evidence)
    work.commit()
    chunks = [*buffer.tolist(), *data.tolist()]
    zones = np.unique(np.concatenate((before[chunks].ravel(), work.table[chunks].ravel())))
    return set(zones[zones != UNMAPPED].tolist())


def _no_zone(evidence: DmZonedEvidence) -> RefusedError:
    return RefusedError("no sequential zone is free to move a chunk to", device=evidence.target.device.path)


# -- the drive alone


def _plan_drive(
    result: Regrouped, work: Workspace, evidence: DmZonedEvidence, single: _Single, changed: set[int]
) -> None:
    """Both sets; the super blocks over those that are there."""
    plan, layout = result.plan, single.layout
    table = shifted(work.table[: layout.nr_chunks], result.zone_shift)
    first = evidence.geometry.members[DRIVE].first_zone
    replaced = {zone - first: work.words(zone) for zone in changed if zone >= first}
    # On the devices the set has the new bits when this runs, and the old ones before: what changes is kept.
    bitmaps = ShiftedBitmaps(evidence.chosen.view, result.zone_shift, single.geometry.nr_zones, replaced)
    result.metadata_bytes += plan_tables(plan, single.geometry, layout, table, bitmaps, DRIVE)
    secondary = layout.set_block(1) * BLOCK_BYTES
    plan.write(DRIVE, secondary, bytes(BLOCK_BYTES), "nothing may be taken for a secondary super block yet")
    result.end_step(DRIVE, "mapping tables and bitmaps")
    plan.write(DRIVE, 0, result.superblock.pack(), "primary super block over the tertiary one")
    result.end_step(DRIVE, "the primary super block over that of a member: the commit")
    plan.write(
        DRIVE, secondary, replace(result.superblock, sb_block=layout.set_block(1)).pack(), "secondary super block"
    )
    result.end_step(DRIVE, "secondary super block")
    result.metadata_bytes += (NR_SETS + 1) * BLOCK_BYTES


def _plan_end(result: Regrouped, places: Sequence[int]) -> None:
    """No super block is left on the cache device; the primary one goes last, by which an unfinished end is known."""
    for place in sorted(places, reverse=True):
        result.plan.write(CACHE, place, bytes(BLOCK_BYTES), "super block is no more")
        result.plan.flush(CACHE)
        result.metadata_bytes += BLOCK_BYTES
    result.steps.append((CACHE, "super blocks are zeroed"))


# -- what was cut off


def _unfinished(cache: Device, drive: Device) -> SuperBlock | None:
    """The drive's primary super block, where a detach was cut off behind its commit."""
    if cache.geometry.is_zoned or not drive.geometry.is_zoned:
        return None
    head, single = sealed_superblock(cache), sealed_superblock(drive)
    if single is None or single.version != MAX_VERSION or single.sb_block or single.dmz_uuid == NIL_UUID:
        return None
    zone_blocks = drive.geometry.zone_bytes // BLOCK_BYTES
    own = drive.geometry.nr_zones * bitmap_blocks_of(zone_blocks)
    if single.nr_bitmap_blocks != own:
        return None
    if head is None:
        raise MetadataError("no dm-zoned super block is on it", device=cache.path)
    if head.dmz_uuid != single.dmz_uuid:
        raise RefusedError(
            f"it is of another target than {drive.path}, which is the single-device target {single.label!r}",
            device=cache.path,
        )
    if head.gen > single.gen:
        raise RefusedError(
            f"attaching it to {drive.path} was cut off",
            device=cache.path,
            hint="zoned dm-zoned attach brings that to its end",
        )
    return single


def _finish(cache: Device, drive: Device, single: SuperBlock) -> Regrouped:
    """The secondary super block of the drive, and the end of those on the cache device."""
    target = Target(NAME, (drive,))
    evidence = check(target, CheckOptions())
    result = Regrouped(Plan(f"detach {cache.path} from dm-zoned {single.label}"), single, (DRIVE,), (DRIVE,), 0)
    if evidence.has_errors:
        repair = plan_repair(evidence, Consents())
        result.plan.steps += [replace(step, device=DRIVE) for step in repair.plan.steps]
        result.steps.append((DRIVE, "secondary super block"))
    head = sealed_superblock(cache)
    assert head is not None  # or it was not unfinished
    zone_blocks = drive.geometry.zone_bytes // BLOCK_BYTES
    set_zones = -(-head.nr_meta_blocks // zone_blocks)
    _plan_end(result, [0, set_zones * zone_blocks * BLOCK_BYTES])
    return result
