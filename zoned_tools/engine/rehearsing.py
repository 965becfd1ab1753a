"""Rehearsal: a repair on a copy-on-write view of the devices, checked there, until nothing more is to be done.

What changes for the logical device is found by comparing lookups, not content: O(metadata) at any size.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.device.plan import Plan, Produce, Write, apply_plan
from zoned_tools.engine.checking import gather
from zoned_tools.errors import RefusedError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Journey, RepairPlan, Settings, Severity
from zoned_tools.formats.shared.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from zoned_tools.formats.contract import CheckOptions, Consents, Evidence, MapExtent, Mapper, Target

    IntArray = npt.NDArray[np.int64]

FOREIGN = "zones-foreign"
"""Finding about a wrong zone table, in place of everything that compares with one."""

MAX_ROUNDS = 4
"""Repairs in a row; a layout whose plans need more has a fault of its own."""

WINDOW_BLOCKS = 1 << 26
"""Range of one lookup: bounds what is in memory of a fragmented device's extents."""

PLACE_BITS = 48
"""A place is a physical block, the number of its device above these bits."""

HOLE = -1
UNKNOWN = -2
"""Place of blocks that cannot be looked up at all."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where logical blocks live: runs that cover the device, as arrays of one length.

    Attributes:
        starts: first logical block of each run, ascending; the first is 0.
        places: ``device * 2**PLACE_BITS + physical block`` of its first block; :data:`HOLE` or :data:`UNKNOWN`.
        size: blocks of the logical device.
    """

    starts: IntArray
    places: IntArray
    size: int

    def at(self, blocks: IntArray) -> IntArray:
        """The places of single blocks."""
        run = np.searchsorted(self.starts, blocks, side="right") - 1
        places = self.places[run]
        return np.where(places < 0, places, places + blocks - self.starts[run])


@dataclass(slots=True)
class Difference:
    """What a repair does to the logical device, in blocks of 4096 bytes.

    Attributes:
        moved: stored before and after, in different places.
        lost: stored before, not after.
        gained: readable after, not before.
        ranges: ``(first block, blocks, what)`` of the stretches that differ, ascending.
    """

    moved: int = 0
    lost: int = 0
    gained: int = 0
    ranges: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Rehearsal:
    """The outcome of a plan, before anything is written.

    Attributes:
        evidence: what a check finds after it.
        plan: the plan of every round in one: carrying it out once leaves nothing to do.
        rounds: repairs until nothing was left to do; 1 is as it should be.
        difference: what becomes of the logical device; None for layouts without one.
    """

    evidence: Evidence
    plan: RepairPlan
    rounds: int
    difference: Difference | None


def rehearse(evidence: Evidence, plan: RepairPlan, consents: Consents, options: CheckOptions) -> Rehearsal:
    """Carry ``plan`` out on overlays of the evidence's devices, to a fixed point.

    Raises:
        ZonedError: a step failed, or the repaired target cannot be checked.
    """
    target = evidence.target
    before = look_up(target, options.settings)
    overlays = [Overlay(device) for device in target.devices]
    copy = replace(target, devices=tuple(overlays))
    layout = registry.of(target)
    whole = RepairPlan(Plan(plan.plan.title))
    rounds, after = 0, evidence
    while plan.plan and rounds < MAX_ROUNDS:
        _join(whole, plan, first=not rounds)
        if rounds:
            apply_plan(overlays, plan.plan.steps)
        else:
            apply_to_overlays(overlays, plan.plan.steps)
        rounds += 1
        after, _ = gather(copy, options)
        plan = layout.plan_repair(after, consents)
    whole.actions = [action for action in whole.actions if not action.waits] + plan.waiting
    later = look_up(copy, options.settings) if rounds else before
    difference = compare(before, later) if before is not None and later is not None else None
    return Rehearsal(after, whole, rounds, difference)


def refuse_worse(before: Evidence, after: Evidence, doing: str, *, hint: str, unless_new: str = "") -> None:
    """Refuse what was rehearsed and leaves more errors than there are.

    Args:
        doing: what it is (``repair``).
        unless_new: said in place of the new codes where there are none.

    Raises:
        RefusedError: it does.
    """
    errors = before.findings.count(Severity.ERROR), _told(before, after).count(Severity.ERROR)
    if errors[1] > errors[0]:
        new = ", ".join(sorted(after.findings.codes - before.findings.codes)) or unless_new
        raise RefusedError(
            f"the {doing} was rehearsed and leaves {errors[1]} errors instead of {errors[0]}"
            + (f" ({new})" if new else ""),
            device=before.target.device.path,
            hint=hint,
        )


def _told(before: Evidence, after: Evidence) -> Findings:
    """What was found afterwards, without what one finding of a wrong zone table stood for before (section 5)."""
    if FOREIGN not in before.findings.codes:
        return after.findings
    measured = registry.of(after.target).measured
    return Findings(group for group in after.findings.groups if group.code not in measured)


def _join(whole: RepairPlan, plan: RepairPlan, *, first: bool) -> None:
    """Add a round; what a later one writes is made now, as long as its view of the devices is there."""
    for step in plan.plan.steps:
        whole.plan.steps.append(_made(step) if isinstance(step, Produce) and not first else step)
    whole.plan.messages += [m for m in plan.plan.messages if m not in whole.plan.messages]
    whole.actions += plan.actions


def _made(step: Produce) -> Write:
    return Write(step.device, step.offset_bytes, step.produce(), step.note)


def look_up(target: Target, given: Settings) -> Lookup | None:
    """The whole logical device of a target; None for a layout without one, or one that cannot be opened."""
    layout = registry.of(target)
    if layout.open_mapper is None:
        return None
    settings = layout.settings_of(given, Journey.LOGICAL)
    try:
        mapper = layout.open_mapper(target, writable=False, settings=settings)
    except ZonedError:
        return Lookup(np.zeros(1, np.int64), np.full(1, UNKNOWN, np.int64), 0)
    lookup = look_up_in(target, mapper)
    mapper.close()
    return lookup


def look_up_in(target: Target, mapper: Mapper) -> Lookup:
    """The whole logical device of a mapper that is open."""
    sizes = [device.geometry.size_bytes // LOGICAL_BLOCK_BYTES for device in target.devices]
    starts, places = array("q"), array("q")  # lists of Python numbers would be the largest thing of a dry run
    for first in range(0, mapper.size_blocks, WINDOW_BLOCKS):
        try:
            for extent in mapper.lookup(first, min(WINDOW_BLOCKS, mapper.size_blocks - first)):
                starts.append(extent.logical_block)
                places.append(_place(extent, sizes))
        except ZonedError:
            starts.append(first)
            places.append(UNKNOWN)
    if not starts:
        starts.append(0)
        places.append(HOLE)
    return Lookup(np.frombuffer(starts, np.int64), np.frombuffer(places, np.int64), mapper.size_blocks)


def _place(extent: MapExtent, sizes: Sequence[int]) -> int:
    """Where an extent begins; one that claims blocks past the end of its device cannot be read."""
    stored = extent.physical_block
    if stored is None:
        return HOLE
    if stored + extent.blocks > sizes[extent.device_index]:
        return UNKNOWN
    return (extent.device_index << PLACE_BITS) + stored


def compare(before: Lookup, after: Lookup) -> Difference:
    """What differs between two lookups."""
    size = max(before.size, after.size)
    edges = np.unique(np.concatenate((before.starts, after.starts, [before.size, after.size])))
    edges = edges[edges < size]
    lengths = np.diff(np.append(edges, size))
    old = np.where(edges < before.size, before.at(edges), UNKNOWN)
    new = np.where(edges < after.size, after.at(edges), UNKNOWN)
    kinds = {
        "moved": (old >= 0) & (new >= 0) & (old != new),
        "lost": (old >= 0) & (new < 0),
        "gained": (old < 0) & (new >= 0),
    }
    moved, lost, gained = (int(lengths[mask].sum()) for mask in kinds.values())
    difference = Difference(moved, lost, gained)
    for name, mask in kinds.items():
        chosen = np.flatnonzero(mask)
        difference.ranges += [(int(edges[i]), int(lengths[i]), name) for i in chosen]
    difference.ranges.sort()
    return difference
