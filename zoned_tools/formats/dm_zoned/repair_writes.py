"""Steps of a repair, in an order that survives a power cut.

The source of a repair first gets what the other set has better. Then the other set is made the older one, or
loses its super block where the source itself has errors; it gets the repaired tables and, as the newer one, its
super block; only then the source set is touched. So at every moment one set is complete
and is the one that check, repair and the kernel choose.

Both sets are compared with the wanted content while its bitmaps stream by, so only blocks that differ are
written. Long runs of zeroes or ones, and what the other set is to get from the source unchanged, become
fills and copies; other bitmap blocks are made again when their step runs. So a plan is small however much
it changes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Plan, Produce, Step, Write
from zoned_tools.errors import RefusedError
from zoned_tools.formats.dm_zoned.differences import Origin, Producer, Writing, as_blocks, difference_steps
from zoned_tools.formats.dm_zoned.geometry import Member, TargetGeometry, held_zones
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, TargetState
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, MapArray, MetadataLayout, SuperBlock
from zoned_tools.formats.dm_zoned.mapper.sets import dead_metadata_zone
from zoned_tools.formats.dm_zoned.open import (
    SetView,
    Words,
    bitmap_words,
    read_map,
    stream_zones,
)
from zoned_tools.formats.dm_zoned.repair_bits import NO_ZONE, BitmapEdits
from zoned_tools.formats.dm_zoned.survey import SetSurvey, keep_below, take_beyond

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.choice import Ties

_MAX_GENERATION = (1 << 64) - 1

# -- super blocks


def plan_superblock(plan: Plan, geometry: TargetGeometry, number: int, superblock: SuperBlock) -> None:
    """Write the super block of set ``number`` at the place that it names, and flush."""
    device, offset_bytes = geometry.locate(superblock.sb_block)
    plan.write(device, offset_bytes, superblock.pack(), f"{SET_NAMES[number]} super block")
    plan.flush(device)


def plan_tertiary(plan: Plan, geometry: TargetGeometry, member: Member, superblock: SuperBlock) -> None:
    """Write the super block of a zoned member; a sequential zone is reset for it."""
    zone = member.first_zone
    if geometry.sequential[zone] and geometry.not_empty[zone]:
        plan.manage(
            member.index, ZoneOperation.RESET, member.start_bytes // geometry.zone_bytes, 1, "rewrite super block"
        )
    plan.write(member.index, member.start_bytes, superblock.pack(), f"tertiary super block of {member.path}")
    plan.flush(member.index)


def set_superblocks(state: TargetState, source: int, superblock: SuperBlock, *, changed: bool) -> list[SuperBlock]:
    """Super blocks of both sets after the repair; of a newer generation when the source set has to be ``changed``."""
    layout = state.layout_of(source)
    kept = replace(superblock, sb_block=layout.set_block(source))
    changed = changed or kept.pack() != state.sets[source].raw
    gen = _newer_generation(state, superblock.gen) if changed else superblock.gen
    return [replace(superblock, sb_block=layout.set_block(n), gen=gen) for n in range(NR_SETS)]


def _newer_generation(state: TargetState, gen: int) -> int:
    """A generation above those of both sets, as long as there is one."""
    highest = max([gen, *(s.superblock.gen for s in state.sets if s.usable and s.superblock is not None)])
    return min(highest + 1, _MAX_GENERATION)


def plan_in_place(plan: Plan, source: int, healing: list[Step], tables: list[list[Step]]) -> None:
    """Both sets keep their super blocks: while they differ about something, none of them may become the newer one."""
    for number, steps in ((source, healing), (1 - source, tables[1 - source]), (source, tables[source])):
        if steps:
            plan.steps += steps
            plan.flush(0, f"{SET_NAMES[number]} tables are durable before the other set changes")


def plan_sets(
    plan: Plan, state: TargetState, source: int, wanted: list[SuperBlock], tables: list[list[Step]], *, sound: bool
) -> None:
    """Both sets, in the order that the module's docstring tells; ``sound`` when the source has no errors at all."""
    other = 1 - source
    stale, good = state.sets[other].superblock, state.sets[source].superblock
    assert good is not None
    rewrite = [wanted[n].pack() != state.sets[n].raw for n in range(NR_SETS)]
    stands_out = stale is not None and state.sets[other].usable and (stale.gen >= good.gen or not sound)
    if tables[other] and stands_out and stale is not None:
        _stand_back(plan, state, other, stale, good.gen if sound else 0)
        rewrite[other] = True
    for number in (other, source):
        if tables[number]:
            plan.steps += tables[number]
            plan.flush(0, f"{SET_NAMES[number]} tables are durable before their super block")
        if rewrite[number]:
            plan_superblock(plan, state.geometry, number, wanted[number])


def _stand_back(plan: Plan, state: TargetState, number: int, superblock: SuperBlock, gen: int) -> None:
    """Before its tables change, a set must not be mistaken for a complete one.

    It becomes older than ``gen``. Where the source has errors (``gen`` is 0) the older set, half repaired, would look
    like the better one: there it has no super block until it is complete.
    """
    device, offset_bytes = state.geometry.locate(state.sets[number].block)
    raw, what = bytes(BLOCK_BYTES), "taken away"
    if gen:
        raw, what = replace(superblock, gen=gen - 1).pack(), "made older"
    plan.steps.append(Write(device, offset_bytes, raw, f"{SET_NAMES[number]} super block {what}"))
    plan.steps.append(Flush(device))


# -- zones


def plan_resets(plan: Plan, geometry: TargetGeometry, zones: IntArray) -> None:
    """Reset written zones that no chunk names; after everything else is durable."""
    for zone in zones.tolist():
        member = geometry.member_of(zone)
        on_device = zone - member.first_zone + member.start_bytes // geometry.zone_bytes
        plan.manage(member.index, ZoneOperation.RESET, on_device, 1, f"zone {zone} belongs to no chunk")


def refuse_dead_zones(plan: Plan, geometry: TargetGeometry, layout: MetadataLayout) -> None:
    """Refuse a plan that writes to a metadata zone, or to a member's first zone, that takes no writes any more.

    Raises:
        RefusedError: names the zone.
    """
    dead = geometry.dead & held_zones(geometry, layout)
    if not dead.any():
        return
    for step in plan.steps:
        member = geometry.members[step.device]
        first, end = _zones_of(step, geometry, member)
        for zone in np.flatnonzero(dead[first:end])[:1].tolist():
            number = first + zone
            if number not in geometry.tertiary_zones:
                raise dead_metadata_zone(geometry, layout, number, member.path)
            condition = "offline" if geometry.offline[number] else "read-only"
            raise RefusedError(f"first zone {number} cannot be written any more, it is {condition}", device=member.path)


def _zones_of(step: Step, geometry: TargetGeometry, member: Member) -> tuple[int, int]:
    """First and end zone id that a step changes."""
    match step:
        case Flush():
            return 0, 0
        case ManageZones():
            first = step.first_zone - member.start_bytes // geometry.zone_bytes
            end = first + step.count
        case Write() | Produce() | Fill() | Copy():
            start = step.offset_bytes - member.start_bytes
            first, end = start // geometry.zone_bytes, -(-(start + step.length_bytes) // geometry.zone_bytes)
    return member.first_zone + first, member.first_zone + end


# -- mapping table and bitmaps


def healing_steps(view: SetView) -> list[Step]:
    """Steps for a set to get the blocks that the other one has better; before anything is copied from it.

    Done in place and with both sets of one generation, so that a power cut leaves what decides the same way again.
    """
    if not view.is_mixed:
        return []
    blocks, layout, number = view.blocks, view.layout, view.number
    own = SetView(blocks, layout, number)
    writing = Writing(view, (number,))
    note = f"{SET_NAMES[number]} mapping table, from the other set"
    steps = list(
        difference_steps(
            blocks,
            layout.map_block(number),
            as_blocks(view.read_map()),
            as_blocks(own.read_map()),
            note,
            **writing.map_blocks(number),
        )
    )
    note = f"{SET_NAMES[number]} bitmap blocks, from the other set"
    step, per_zone = stream_zones(layout), layout.bitmap_blocks_per_zone
    masks = [mask for mask in (view.taken, view.joined, view.made_blocks) if mask is not None]
    for zone in range(0, layout.nr_zones, step):
        rows = slice(zone * per_zone, (zone + step) * per_zone)
        if not any(mask[rows].any() for mask in masks):
            continue
        wanted, actual, other = (bitmap_words(layout, min(step, layout.nr_zones - zone)) for _ in range(3))
        view.bitmaps_into(zone, wanted)
        own.bitmaps_into(zone, actual)
        SetView(blocks, layout, 1 - number).bitmaps_into(zone, other)
        origin = Origin(layout.bitmap_block(1 - number, zone), as_blocks(other))
        steps += difference_steps(
            blocks,
            layout.bitmap_block(number, zone),
            as_blocks(wanted),
            as_blocks(actual),
            note,
            origin,
            **writing.bitmap_blocks(number, zone, len(wanted)),
        )
    return steps


def _untouched(view: SetView) -> BoolArray:
    """Map and bitmap blocks that :func:`healing_steps` leave as they are, counted from the map."""
    nr_map = view.layout.nr_map_blocks
    changed = view.blocks.unreadable(view.layout, view.number).copy()
    for mask in (view.taken, view.joined, view.made_blocks):
        if mask is not None:
            changed[nr_map:] |= mask
    if view.table is not None:
        own = read_map(view.blocks, view.layout, view.number)
        changed[:nr_map] |= (as_blocks(view.table) != as_blocks(own)).any(axis=1)
    return ~changed


def table_steps(
    survey: SetSurvey, healed: SetView, table: MapArray, edits: BitmapEdits, *, equal: bool, ties: Ties | None
) -> list[list[Step]]:
    """Steps for set 0 and set 1 to get mapping table ``table`` and the edited bitmaps of the surveyed content.

    Those of the other set copy from the source, so they have to run before the source's, and after
    :func:`healing_steps`.

    Args:
        healed: what the source set has after :func:`healing_steps`.
        equal: the other set's tables are known to be the same.
        ties: what each set keeps as it has it.
    """
    blocks, layout, source = survey.view.blocks, survey.layout, survey.number
    steps: list[list[Step]] = [[], []]
    writing = Writing(healed, (1 - source,))
    kept, stays = healed.read_map(), _untouched(healed)
    nr_map, per_zone = layout.nr_map_blocks, layout.bitmap_blocks_per_zone
    for number in range(NR_SETS):
        actual = kept if equal or number == source else read_map(blocks, layout, number)
        wanted = table
        if ties is not None:
            wanted = table.copy()
            wanted[: len(ties.chunks)][ties.chunks] = actual[: len(ties.chunks)][ties.chunks]
        origin = Origin(layout.map_block(source), as_blocks(kept), stays[:nr_map]) if number != source else None
        note = f"{SET_NAMES[number]} mapping table"
        marks = writing.map_blocks(number)
        steps[number] += difference_steps(
            blocks, layout.map_block(number), as_blocks(wanted), as_blocks(actual), note, origin, **marks
        )
    if equal and not edits and not survey.bits.beyond.any():
        return steps
    bitmaps = WantedBitmaps.of(survey.view, edits)
    other = bitmap_words(layout, min(stream_zones(layout), layout.nr_zones))
    original = other.copy()
    for zone, words in survey.view.stream():
        before = original[: len(words)]
        before[...] = words
        bitmaps.edit(zone, words)
        for number in range(NR_SETS):
            actual_words = before
            if number != source and not equal:
                actual_words = other[: len(words)]
                blocks.read_around(layout.bitmap_block(number, zone), actual_words.data.cast("B"))
            wanted_words = words
            producer: Producer | None = partial(bitmaps.producer, zone)
            tied = ties.zones[zone : zone + len(words)] if ties is not None else None
            if tied is not None and tied.any():
                wanted_words, producer = np.where(tied[:, None], actual_words, words), None
            block = layout.bitmap_block(number, zone)
            note = f"{SET_NAMES[number]} bitmap blocks"
            rows = stays[nr_map + zone * per_zone :][: len(words) * per_zone]
            origin = Origin(layout.bitmap_block(source, zone), as_blocks(before), rows) if number != source else None
            marks = writing.bitmap_blocks(number, zone, len(words))
            steps[number] += difference_steps(
                blocks,
                block,
                as_blocks(wanted_words),
                as_blocks(actual_words),
                note,
                origin,
                producer,
                **marks,
            )
    return steps


@dataclass(frozen=True, slots=True)
class WantedBitmaps:
    """The bitmaps after a repair, made from those of the source set as often as they are asked for.

    A zone's new bits follow from its old ones, and making them again from the new ones changes nothing: so
    it does not matter whether the source set was rewritten meanwhile. Zones whose new bits depend on
    another zone's are kept (``combined``, compressed).
    """

    view: SetView
    edits: BitmapEdits
    combined: dict[int, bytes]

    @classmethod
    def of(cls, view: SetView, edits: BitmapEdits) -> WantedBitmaps:
        """Read what has to be kept."""
        bitmaps = cls(view, edits, {})
        zones, step = edits.combined, stream_zones(view.layout)
        for start in range(0, len(zones), step):
            bitmaps._combine(zones[start : start + step])
        return bitmaps

    def _combine(self, zones: IntArray) -> None:
        """Keep the new bits of zones that get or lose another zone's bits."""
        words = self._read(zones)
        self._edit_own(zones, words)
        merged, subtracted = self.edits.merge[zones], self.edits.subtract[zones]
        rows = np.flatnonzero(merged != NO_ZONE)
        moved = self._read(merged[rows])
        take_beyond(moved, self.view.layout.zone_blocks)
        words[rows] |= moved
        rows = np.flatnonzero(subtracted != NO_ZONE)
        won = self._read(subtracted[rows])
        keep_below(won, self.edits.subtract_below[zones[rows]])
        words[rows] &= ~won
        for zone, row in zip(zones.tolist(), words, strict=True):
            self.combined[zone] = zlib.compress(row.tobytes(), 1)

    def _read(self, zones: IntArray) -> Words:
        return self.view.rows(zones)

    def _edit_own(self, zones: IntArray, words: Words) -> None:
        """What follows from a zone's own bits."""
        take_beyond(words, self.view.layout.zone_blocks)
        words[self.edits.clear[zones]] = 0
        rows = np.flatnonzero(self.edits.cut[zones])
        if len(rows):
            late = words[rows]
            keep_below(late, self.view.blocks.geometry.wp_blocks[zones[rows]])
            words[rows] = late

    def edit(self, first_zone: int, words: Words) -> None:
        """Turn the bitmaps of the source set from ``first_zone`` on into the wanted ones, in place."""
        zones = np.arange(first_zone, first_zone + len(words))
        self._edit_own(zones, words)
        if self.combined:
            for row in np.flatnonzero(np.isin(zones, self.edits.combined)).tolist():
                words[row] = np.frombuffer(zlib.decompress(self.combined[first_zone + row]), "<u8")

    def producer(self, first_zone: int, start: int, end: int) -> Callable[[], bytes]:
        """What makes the blocks from ``start`` to ``end`` of the bitmaps from ``first_zone`` on."""
        return partial(self.produce, first_zone * self.view.layout.bitmap_blocks_per_zone + start, end - start)

    def produce(self, first_block: int, count: int) -> bytes:
        """Some blocks of the wanted bitmaps; counted from the first bitmap block."""
        per_zone = self.view.layout.bitmap_blocks_per_zone
        first_zone, end_zone = first_block // per_zone, -(-(first_block + count) // per_zone)
        words = self._read(np.arange(first_zone, end_zone))
        self.edit(first_zone, words)
        skip = first_block - first_zone * per_zone
        return as_blocks(words)[skip : skip + count].tobytes()
