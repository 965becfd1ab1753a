"""Repair: everything is decided from what check measured, before anything is written.

Version, UUIDs and labels stay. What guesses or loses something waits for consent; a device that may not be
a member at all, and two sets that are equally good, hold up everything that depends on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Consent, Consents, RepairPlan
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.judge import SET_NAMES
from zoned_tools.formats.dm_zoned.repair_bits import BitmapRepair
from zoned_tools.formats.dm_zoned.repair_map import MapRepair
from zoned_tools.formats.dm_zoned.repair_superblocks import (
    doubtful_members,
    repaired_superblock,
    rewritten,
    tertiary_repairs,
)
from zoned_tools.formats.dm_zoned.repair_writes import (
    plan_resets,
    plan_sets,
    plan_tertiary,
    refuse_dead_zones,
    set_superblocks,
    table_steps,
)
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import USE_SET
from zoned_tools.formats.dm_zoned.survey import narrow

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.dm_zoned.layout import SuperBlock
    from zoned_tools.formats.shared.rules import ActionGroup


def plan_repair(evidence: DmZonedEvidence, consents: Consents) -> RepairPlan:
    """Plan that leaves no error, as far as the user's consent goes; empty when there is nothing to do.

    Raises:
        NoValidSuperBlockError: no set can be used.
        RefusedError: members are in the wrong order, too many zones died, or a zone that has to be written
            cannot be written any more.
        UsageError: the evidence was gathered with another ``use-set``.
    """
    if not evidence.surveys:
        raise NoValidSuperBlockError(evidence)
    trusted = consents.settings.number(USE_SET)
    if trusted is not None and trusted != evidence.trusted:
        raise UsageError(f"{USE_SET}={trusted} is for the check, whose findings are repaired")
    repair = RepairPlan(Plan("repair dm-zoned metadata"))
    doubts = doubtful_members(evidence.state)
    taken = [doubt.action(agreed=doubt.code in consents.allow) for doubt in doubts]
    if any(action.waits for action in taken):  # everything else was measured on a device that may be another's
        for action in taken:
            repair.add(action)
        return repair
    if evidence.source is None:
        _leave_tie(repair, evidence)
    else:
        _repair_sets(repair, evidence, evidence.source, consents, taken)
    refuse_dead_zones(repair.plan, evidence.geometry, evidence.chosen.layout)
    return repair


def _leave_tie(repair: RepairPlan, evidence: DmZonedEvidence) -> None:
    """Nothing says which set is the better one: only what both agree about is repaired."""
    state = evidence.state
    if state.layout_of(0) == state.layout_of(1):
        _repair_members(repair, evidence, repaired_superblock(state, evidence.chosen.number)[0])
    repair.add(
        RULES.action(
            "sets-content-differ",
            f"the metadata sets are equally good and {evidence.chosen.differing_blocks} blocks differ: one of them is "
            "copied to the other, and repaired, when --use-set N decides which",
            consent=Consent.GUESSES,
            needs="--use-set N",
        )
    )


def _repair_sets(
    repair: RepairPlan, evidence: DmZonedEvidence, source: int, consents: Consents, taken: list[ActionGroup]
) -> None:
    """Repair the source set and copy it to the other one."""
    state, survey = evidence.state, evidence.survey_of(source)
    mapping = MapRepair(state.geometry, survey, consents)
    mapping.run()
    bitmaps = BitmapRepair(mapping, consents.settings)
    superblock, actions = repaired_superblock(state, source)
    equal = evidence.compared and len(evidence.surveys) == 1
    tables = table_steps(state.blocks, survey, mapping.table, bitmaps.edits, equal=equal)
    wanted = set_superblocks(state, source, superblock, changed=bool(tables[source]))
    plan_sets(repair.plan, state, source, wanted, tables)
    done = [*_copied(evidence, source), *actions, *rewritten(state, wanted), *mapping.actions, *bitmaps.actions]
    for action in (*(a for a in done if not a.waits), *taken):
        repair.add(action)
    _repair_members(repair, evidence, superblock)
    for action in (a for a in done if a.waits):
        repair.add(action)
    _repair_zones(repair, mapping, agreed="zone-unmapped-not-empty" in consents.allow)


def _copied(evidence: DmZonedEvidence, source: int) -> list[ActionGroup]:
    """That one set replaces the other, where they differ."""
    codes = evidence.findings.codes & {"sets-content-differ", "sets-gen-differ"}
    if not codes and source == evidence.state.chosen:
        return []
    code = next(iter(codes), "sets-content-differ")
    text = f"the {SET_NAMES[source]} metadata set is copied to the {SET_NAMES[1 - source]} one"
    guessed = code == "sets-content-differ" and evidence.trusted is not None
    consent = Consent.GUESSES if guessed else Consent.CERTAIN
    return [RULES.action(code, text, consent=consent, agreed=True, needs="--use-set N" if guessed else "")]


def _repair_members(repair: RepairPlan, evidence: DmZonedEvidence, superblock: SuperBlock) -> None:
    for member, tertiary, action in tertiary_repairs(evidence.state, superblock):
        plan_tertiary(repair.plan, evidence.geometry, member, tertiary)
        repair.add(action)


def _repair_zones(repair: RepairPlan, mapping: MapRepair, *, agreed: bool) -> None:
    """Written zones that no chunk names: with consent they are reset."""
    geometry = mapping.geometry
    idle = geometry.sequential & geometry.not_empty & ~geometry.dead & ~mapping.held & ~mapping.named
    zones: IntArray = np.flatnonzero(idle)
    repair.add(
        RULES.actions(
            "zone-unmapped-not-empty",
            "zone {zone} is reset: what was written to it ({wp} blocks) is lost, no chunk names it",
            zone=narrow(zones),
            words={"wp": narrow(geometry.wp_blocks[zones])},
            consent=Consent.LOSES,
            agreed=agreed,
        )
    )
    if agreed:
        plan_resets(repair.plan, geometry, zones)
