"""Change a target's label: every super block is rewritten with its own generation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError, RefusedError, UsageError
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import SuperBlock, encode_label
from zoned_tools.formats.dm_zoned.repair_writes import plan_superblock, plan_tertiary

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target


def plan_relabel(target: Target, label: str) -> tuple[str, Plan]:
    """``(old label, plan)``; the plan is empty when the label is right already.

    Everything but the label stays: version, UUIDs, generations, reserved bytes. Secondary and
    tertiary super blocks go first; until the primary one is written a power cut leaves labels
    that differ, which check reports and repair (or a second relabel) puts right.

    Raises:
        RefusedError: the target is damaged (repair first), or version 1, which has no label.
        UsageError: the label is empty or too long.
    """
    if not label:
        raise UsageError("a label is needed")
    try:
        raw = encode_label(label)
    except ValueError as error:
        raise UsageError(str(error)) from None
    state = read_state(open_target(target))
    device = target.device.path
    if state.chosen is None:
        raise MetadataError("No valid superblock found", device=device, clone_status=255)
    wanted = (*state.sets, *state.tertiary)
    damaged = [s for s in wanted if any(f.code != "sb-label-mismatch" for f in s.faults)]
    if damaged:
        fault = damaged[0].faults[0]
        raise RefusedError(f"Check and repair required: {fault.message}", device=device, clone_status=255)
    if state.superblock.version < 2:
        raise RefusedError("metadata version 1 has no label", device=device, clone_status=255)
    plan = Plan("relabel dm-zoned")
    old = state.superblock.label
    superblocks: list[SuperBlock] = [s.superblock for s in wanted if s.superblock is not None]
    if all(sb.label_raw == raw for sb in superblocks):
        return old, plan
    geometry = state.geometry
    for found, member in zip(state.tertiary, geometry.members[1:], strict=True):
        assert found.superblock is not None
        plan_tertiary(plan, geometry, member, replace(found.superblock, label_raw=raw))
    for number in (1, 0):
        sb = state.sets[number].superblock
        assert sb is not None
        plan_superblock(plan, geometry, number, replace(sb, label_raw=raw))
    return old, plan
