"""A regular (cache) device joins a single-device target; the content stays where it is.

The new metadata go to the cache device while the drive alone is the target, unchanged. Then the drive's secondary super
block is zeroed, and its primary one replaced by the super block of a member: that is the commit. Cut off before it, the
drive alone is the target still, and the same command begins anew; nothing valid of its single life is left after it.

Source: section 11.1 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.plan import Plan, Produce
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import CheckOptions, Target
from zoned_tools.formats.dm_zoned.check import check
from zoned_tools.formats.dm_zoned.constants import NAME
from zoned_tools.formats.dm_zoned.format import default_label
from zoned_tools.formats.dm_zoned.geometry import ZoneKind, max_chunks
from zoned_tools.formats.dm_zoned.judge import SET_NAMES
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    MAX_VERSION,
    NR_SETS,
    UNMAPPED,
    MetadataLayout,
    SuperBlock,
    encode_label,
)
from zoned_tools.formats.dm_zoned.mapper.sets import refuse_dead_zones
from zoned_tools.formats.dm_zoned.open import SetView, open_blocks
from zoned_tools.formats.dm_zoned.payload import unpacked
from zoned_tools.formats.dm_zoned.probe import sealed_superblock
from zoned_tools.formats.dm_zoned.survey import take_beyond
from zoned_tools.formats.dm_zoned.tables import ShiftedBitmaps, plan_tables, shifted
from zoned_tools.formats.dm_zoned.workspace import MOVE_BLOCKS, refuse_unsound, valid_blocks

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.open import Words

CACHE, DRIVE = 0, 1
"""Numbers of the devices in plans of attach and detach."""

_MAX_GENERATION = (1 << 64) - (1 << 32)


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What a user can choose.

    Attributes:
        grow: raise the number of chunks to what fits.
        upgrade: make metadata version 2 of version 1.
        label, dmz_uuid: of an upgraded target; as at format where they are not given.
        device_uuid: of the cache device, None for a random one.
    """

    grow: bool = False
    upgrade: bool = False
    label: str = ""
    dmz_uuid: uuid.UUID | None = None
    device_uuid: uuid.UUID | None = None


@dataclass(slots=True)
class Regrouped:
    """A target on more or fewer devices.

    Attributes:
        plan: the changes of the devices CACHE and DRIVE; empty when nothing is left to do.
        superblock: the primary super block that the target has then.
        before: its devices before, and ``after`` it: numbers in the plan.
        zone_shift: what is added to every zone id.
        copied_bytes: payload that is copied.
        metadata_bytes: metadata that are written, super blocks included.
        steps: ``(number of the device, what)`` of the parts of the plan, each of which ends with a flush.
    """

    plan: Plan
    superblock: SuperBlock
    before: tuple[int, ...]
    after: tuple[int, ...]
    zone_shift: int
    copied_bytes: int = 0
    metadata_bytes: int = 0
    steps: list[tuple[int, str]] = field(default_factory=list)

    def end_step(self, device: int, what: str) -> None:
        """Make what was planned for a device durable."""
        self.plan.flush(device, what)
        self.steps.append((device, what))


def is_leftover(cache: Device, single: SuperBlock | None) -> bool:
    """True when an attach to the target that ``single`` is of was cut off and left super blocks on the cache device."""
    if single is None:
        return False
    old = sealed_superblock(cache)
    if old is None:
        return False
    same = old.dmz_uuid == single.dmz_uuid if single.version == MAX_VERSION else old.gen == single.gen + 1
    return same and old.sb_block == 0 and old.nr_bitmap_blocks > single.nr_bitmap_blocks


def plan_attach(cache: Device, drive: Device, options: AttachOptions) -> Regrouped:
    """Plan for the target on ``drive`` to become one on ``cache`` and ``drive``.

    Raises:
        RefusedError: the target is not sound, or the cache device does not suit it.
        ZonedError: a device cannot be read.
    """
    single = Target(NAME, (drive,))
    evidence = check(single, CheckOptions())
    old = evidence.state.superblock
    refuse_dead_zones(evidence.geometry, evidence.chosen.layout, drive.path)
    # A cut between the last two steps leaves the drive without its secondary super block.
    refuse_unsound(evidence, frozenset({"sb-bad-magic"}) if _lacks_secondary(evidence, cache) else frozenset())
    _refuse_drive(evidence, options)
    geometry = open_blocks(Target(NAME, (cache, drive))).geometry
    shift = geometry.members[DRIVE].first_zone
    layout = _layout(geometry, old, options)
    targets = _refuse_cache(geometry, layout, evidence)
    new = _superblock(layout, old, drive, options)
    plan = Plan(f"attach {cache.path} to dm-zoned {new.label}")
    result = Regrouped(plan, new, (DRIVE,), (CACHE, DRIVE), shift)
    _plan_cache(result, evidence, geometry, layout, targets)
    for number in range(NR_SETS):
        sb = replace(new, sb_block=layout.set_block(number))
        plan.write(CACHE, sb.sb_block * BLOCK_BYTES, sb.pack(), f"{SET_NAMES[number]} super block")
        plan.flush(CACHE)  # the primary one first: by it the same command knows its own leftovers
    result.steps.append((CACHE, "super blocks"))
    _, secondary = evidence.geometry.locate(evidence.chosen.layout.set_block(1))
    plan.write(DRIVE, secondary, bytes(BLOCK_BYTES), "the secondary super block of the single device is no more")
    result.end_step(DRIVE, "the old secondary super block is zeroed")
    device_uuid = old.dev_uuid if old.dev_uuid != NIL_UUID else uuid.uuid4()
    tertiary = replace(new, gen=0, sb_block=geometry.members[DRIVE].block_offset, dev_uuid=device_uuid)
    plan.write(DRIVE, 0, tertiary.pack(), "tertiary super block over the old primary one")
    result.end_step(DRIVE, "the super block of a member over the old primary one: the commit")
    result.metadata_bytes += (NR_SETS + 2) * BLOCK_BYTES
    return result


def _lacks_secondary(evidence: DmZonedEvidence, cache: Device) -> bool:
    """True when the one thing wrong with the super blocks is a secondary one of zeroes, and an attach was cut off."""
    primary, secondary = evidence.state.sets
    return primary.valid and not any(secondary.raw) and is_leftover(cache, evidence.state.superblock)


def _refuse_drive(evidence: DmZonedEvidence, options: AttachOptions) -> None:
    path, layout, old = evidence.target.device.path, evidence.chosen.layout, evidence.state.superblock
    if old.version < MAX_VERSION and not options.upgrade:
        raise RefusedError(
            f"metadata version {old.version} is for single devices", device=path, hint="--upgrade makes version 2 of it"
        )
    if old.version == MAX_VERSION and (options.label or options.dmz_uuid):
        raise RefusedError("label and UUID of the target stay", device=path, hint="dmzadm --relabel changes the label")
    if layout.first_zone != 0:
        raise RefusedError(
            f"its metadata begin in zone {layout.first_zone}: zone 0 cannot become a member's first zone", device=path
        )
    if old.gen > _MAX_GENERATION:
        raise RefusedError("the generation counter is at its end", device=path)


def _layout(geometry: TargetGeometry, old: SuperBlock, options: AttachOptions) -> MetadataLayout:
    """Sizes on both devices; the number of chunks stays, or grows to what fits."""
    layout = MetadataLayout.of(geometry, 0, old.nr_chunks, old.nr_reserved_seq)
    if not options.grow:
        return layout
    member = len(geometry.tertiary_zones) + int(np.count_nonzero(geometry.runt & geometry.cache))
    while True:  # more chunks may need another zone for each set
        fitting = max_chunks(geometry, layout.set_zones, old.nr_reserved_seq) - member
        grown = MetadataLayout.of(geometry, 0, max(fitting, old.nr_chunks), old.nr_reserved_seq)
        if grown.set_zones <= layout.set_zones:
            return grown
        layout = replace(layout, nr_chunks=grown.nr_chunks)


def _refuse_cache(geometry: TargetGeometry, layout: MetadataLayout, evidence: DmZonedEvidence) -> IntArray:
    """The cache zones that take over the buffers, as many as there are.

    Raises:
        RefusedError: the kernel would not start the result, or every write would wait for ever.
    """
    path = geometry.members[CACHE].path
    full = np.flatnonzero((geometry.kinds == ZoneKind.CACHE) & ~geometry.runt)
    buffered = evidence.chosen.map.nr_buffered
    needed = NR_SETS * layout.set_zones + buffered + 1
    if len(full) < needed:
        raise RefusedError(
            f"it has {len(full)} zones of {geometry.zone_bytes} bytes, {needed} are needed: "
            f"{NR_SETS * layout.set_zones} for metadata, {buffered} for buffers, 1 for writes",
            device=path,
        )
    reserve, usable = layout.nr_reserved_seq, geometry.nr_usable
    if reserve > geometry.nr_cache:
        raise RefusedError(
            f"the target reserves {reserve} zones, which needs as many cache zones; it has {geometry.nr_cache}",
            device=path,
        )
    if geometry.nr_zones >= UNMAPPED:
        raise RefusedError("too many zones in all", device=path)
    room = usable - NR_SETS * layout.set_zones - reserve
    if layout.nr_chunks > room:
        raise RefusedError(
            f"{layout.nr_chunks} chunks and a reserve of {reserve} zones do not fit: room for {room}", device=path
        )
    free = full[full >= NR_SETS * layout.set_zones]
    taken: IntArray = free[:buffered]
    return taken


def _superblock(layout: MetadataLayout, old: SuperBlock, drive: Device, options: AttachOptions) -> SuperBlock:
    """The new primary super block."""
    if old.version == MAX_VERSION:
        label, dmz_uuid = old.label_raw, old.dmz_uuid
    else:
        label = encode_label(options.label or default_label(drive))
        dmz_uuid = options.dmz_uuid or uuid.uuid4()
    return replace(
        layout.superblock(0, old.gen + 1),
        label_raw=label,
        dmz_uuid=dmz_uuid,
        dev_uuid=options.device_uuid or uuid.uuid4(),
    )


# -- what goes to the cache device


def _plan_cache(
    result: Regrouped,
    evidence: DmZonedEvidence,
    geometry: TargetGeometry,
    layout: MetadataLayout,
    targets: IntArray,
) -> None:
    """Buffers, map and bitmaps of both sets."""
    view = SetView(evidence.state.blocks, evidence.chosen.layout, evidence.chosen.number)
    table = view.read_map()[: view.layout.nr_chunks]
    moved = shifted(table, result.zone_shift)
    chunks = np.flatnonzero(table[:, 1] != UNMAPPED)
    replaced: dict[int, Words] = {}
    for chunk, target in zip(chunks.tolist(), targets.tolist(), strict=True):
        zone = int(table[chunk, 1])
        words = view.rows(np.array([zone]))
        take_beyond(words, layout.zone_blocks)
        replaced[target], replaced[zone + result.zone_shift] = words[0], np.zeros_like(words[0])
        moved[chunk, 1] = target
        bits = unpacked(words, layout.zone_blocks)[0]
        result.copied_bytes += int(np.count_nonzero(bits)) * BLOCK_BYTES
        _plan_buffer(result.plan, view, zone, target, bits)
    bitmaps = ShiftedBitmaps(view, result.zone_shift, geometry.nr_zones, replaced)
    result.metadata_bytes += plan_tables(result.plan, geometry, layout, moved, bitmaps, CACHE)
    what = "mapping tables and bitmaps"
    result.end_step(CACHE, f"buffers, {what}" if len(chunks) else what)


def _plan_buffer(plan: Plan, view: SetView, zone: int, target: int, bits: BoolArray) -> None:
    """Copy the valid blocks of a buffer zone of the drive to a zone of the cache device."""
    valid = np.flatnonzero(bits)
    if not len(valid):
        return
    note = f"cache zone {target}, from buffer zone {zone}"
    for first in range(int(valid[0]), int(valid[-1]) + 1, MOVE_BLOCKS):
        end = min(first + MOVE_BLOCKS, int(valid[-1]) + 1)
        if bits[first:end].any():
            pieces = ((zone, np.packbits(bits[first:end])),)
            offset = (target * view.layout.zone_blocks + first) * BLOCK_BYTES
            produce = partial(valid_blocks, view.blocks, pieces, first, end - first)
            plan.steps.append(Produce(CACHE, offset, (end - first) * BLOCK_BYTES, produce, note))
