"""Repair: everything is decided first, then written in an order that survives a power cut.

The set that is not the source of the repair is made the older one, gets the repaired tables
and then, as the newer one, its super block; only then the source set is touched. So at every
moment one set is complete and is the one that check, repair and the kernel choose. Version,
UUIDs and labels stay; zones are reset and buffers with valid data are dropped only with
consent (``--allow CODE``).
"""

from __future__ import annotations

from dataclasses import replace

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Flush, Plan, Step, Write
from zoned_tools.errors import RefusedError, UsageError
from zoned_tools.findings import CheckReport
from zoned_tools.formats.dm_zoned.check import CheckResult, check_target
from zoned_tools.formats.dm_zoned.codes import CODES
from zoned_tools.formats.dm_zoned.examine import SetExamination, examine_set
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, Superblock
from zoned_tools.formats.dm_zoned.repair_map import SETTINGS, MapRepair, setting
from zoned_tools.formats.dm_zoned.repair_superblocks import (
    newer_generation,
    refuse_wrong_members,
    repaired_superblock,
    tertiary_repairs,
)
from zoned_tools.formats.dm_zoned.repair_writes import table_steps
from zoned_tools.formats.dm_zoned.superblock_plan import SET_NAMES, plan_superblock, plan_tertiary
from zoned_tools.formats.dm_zoned.superblocks import TargetState
from zoned_tools.formats.registry import RepairOptions, Target


def plan_repair(target: Target, report: CheckReport, options: RepairOptions) -> Plan:
    """Plan that leaves no error, as far as the user's choices allow; empty when there is nothing to do.

    ``report`` is what the user was shown; the target is examined again.

    Raises:
        NoValidSuperblockError: no set can be used.
        RefusedError: the wanted set cannot be used, members are in the wrong order or foreign,
            or a metadata zone cannot be written any more.
        UsageError: an unknown choice.
    """
    del report
    options = replace(options, allow=frozenset(code.removeprefix("dm-zoned.") for code in options.allow))
    _check_options(options)
    result = check_target(target, trust=options.use_set)
    state = result.state
    refuse_wrong_members(state, options)
    source = _source_set(result, options)
    _refuse_dead_zones(state)
    plan = Plan("repair dm-zoned metadata")
    examined = _examination(result, source)
    repair = MapRepair(state.geometry, examined, options)
    repair.run()
    plan.messages += _set_message(result, source)
    superblock, messages = repaired_superblock(state, source)
    plan.messages += messages
    plan.messages += repair.messages
    tables = table_steps(state.blocks, examined.layout, source, repair.table, repair.edits)
    _plan_sets(plan, state, source, superblock, tables)
    for member, tertiary, message in tertiary_repairs(state, superblock):
        plan_tertiary(plan, state.geometry, member, tertiary)
        plan.messages.append(message)
    _plan_resets(plan, state, repair, options)
    plan.messages += repair.left
    return plan


def _check_options(options: RepairOptions) -> None:
    for code in options.allow:
        if code not in CODES:
            raise UsageError(f"there is no finding '{code}'")
    for key in options.settings:
        if key not in SETTINGS:
            raise UsageError(f"'{key}' is not a choice of the repair", hint=", ".join(SETTINGS))
        setting(options.settings, key)
    if options.use_set not in (None, 0, 1):
        raise UsageError("the set is 0 or 1")


def _source_set(result: CheckResult, options: RepairOptions) -> int:
    """Set whose content is kept: the user's, the newer one, the one with fewer findings."""
    if options.use_set is None:
        return result.recommended_set
    if result.state.chosen != options.use_set:
        fault = result.state.sets[options.use_set].faults
        reason = fault[0].message if fault else "it does not fit the device"
        raise RefusedError(
            f"set {options.use_set} cannot be used: {reason}", device=result.report.devices[0], clone_status=255
        )
    return options.use_set


def _examination(result: CheckResult, source: int) -> SetExamination:
    for examined in result.examined:
        if examined.number == source:
            return examined
    return examine_set(result.state.blocks, result.state.layout_of(source), source)


def _refuse_dead_zones(state: TargetState) -> None:
    assert state.layout is not None
    for zone in state.layout.metadata_zones:
        if state.geometry.dead[zone]:
            raise RefusedError(
                f"metadata zone {zone} cannot be written any more", device=state.geometry.member_of(zone).path
            )


def _set_message(result: CheckResult, source: int) -> list[str]:
    codes = {finding.code for finding in result.report.findings}
    overruled = source != result.state.chosen
    if not overruled and not codes & {"sets-content-differ", "sets-gen-differ"}:
        return []
    return [f"the {SET_NAMES[source]} metadata set is copied to the {SET_NAMES[1 - source]} one"]


def _plan_sets(plan: Plan, state: TargetState, source: int, superblock: Superblock, tables: list[list[Step]]) -> None:
    """The order that survives a power cut; see the module's docstring."""
    geometry, other = state.geometry, 1 - source
    assert state.layout is not None
    layout = state.layout_of(source)
    found = [s.superblock for s in state.sets]
    kept = replace(superblock, sb_block=layout.set_block(source))
    source_changes = bool(tables[source]) or kept.pack() != state.sets[source].raw
    gen = newer_generation(state, superblock.gen) if source_changes else superblock.gen
    wanted = [replace(superblock, sb_block=layout.set_block(n), gen=gen) for n in range(NR_SETS)]
    stale = found[other]
    rewrite_other = wanted[other].pack() != state.sets[other].raw
    if tables[other] and state.sets[other].usable and stale is not None and stale.gen >= superblock.gen:
        _make_older(plan, state, other, stale, superblock.gen)
        rewrite_other = True
    for number, rewrite in ((other, rewrite_other), (source, source_changes)):
        if tables[number]:
            plan.steps += tables[number]
            plan.flush(0, f"{SET_NAMES[number]} tables are durable before their super block")
        if rewrite:
            plan_superblock(plan, geometry, number, wanted[number])


def _make_older(plan: Plan, state: TargetState, number: int, superblock: Superblock, gen: int) -> None:
    """Before its tables change, a set must not be mistaken for a complete one."""
    device, offset_bytes = state.geometry.locate(state.sets[number].block)
    raw = replace(superblock, gen=gen - 1).pack() if gen else bytes(BLOCK_BYTES)
    plan.steps.append(Write(device, offset_bytes, raw, f"{SET_NAMES[number]} super block made older"))
    plan.steps.append(Flush(device))


def _plan_resets(plan: Plan, state: TargetState, repair: MapRepair, options: RepairOptions) -> None:
    """Reset written zones that no chunk names, with consent and after everything else is durable."""
    if "zone-unmapped-not-empty" not in options.allow:
        return
    geometry = state.geometry
    idle = geometry.sequential & geometry.not_empty & ~geometry.dead & ~repair.held
    for zones in (repair.data, repair.buffer):
        idle[zones[zones < geometry.nr_zones]] = False
    for zone in idle.nonzero()[0].tolist():
        member = geometry.member_of(zone)
        on_device = zone - member.first_zone + member.start_bytes // geometry.zone_bytes
        plan.manage(member.index, ZoneOperation.RESET, on_device, 1, f"zone {zone} belongs to no chunk")
        plan.messages.append(f"zone {zone} is reset: what was written to it is lost, no chunk names it")
