"""``dmzadm --check``, ``--repair`` and ``--relabel``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from zoned_tools.cli.dmzadm.common import (
    LAYOUT,
    Common,
    check_members,
    parse_label,
    parse_number,
)
from zoned_tools.cli.settings import parse_settings
from zoned_tools.device.opening import open_devices
from zoned_tools.engine.checking import CheckRequest, Outcome, gather
from zoned_tools.engine.repairing import RepairRequest, consents_of, refuse_worse
from zoned_tools.formats import dm_zoned
from zoned_tools.formats.contract import CheckOptions, Consents, NothingToCheckError, Severity, Target
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, check
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair
from zoned_tools.report import dmzadm as text
from zoned_tools.report.check import check_document
from zoned_tools.report.stream import write_lines, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

LEGACY_EXIT = "ZONED_TOOLS_LEGACY_EXIT"
"""Environment variable: ``1`` makes ``--check`` exit 0 with errors found, as the original does."""


def _exit_status(*, errors: bool) -> int:
    return int(errors and os.environ.get(LEGACY_EXIT) != "1")


def check_devices(common: Common) -> int:
    """``--check``: exit status 1 when there are errors."""
    with open_devices(common.paths) as devices:
        check_members(devices)
        evidence = _check(common, Target(LAYOUT, devices), CheckOptions())
        return _exit_status(errors=evidence.has_errors)


def _check(common: Common, target: Target, options: CheckOptions) -> DmZonedEvidence:
    """Check and print what was found.

    Raises:
        NothingToCheckError: after what was found until then.
    """
    try:
        evidence = check(target, options)
    except NothingToCheckError as error:
        if common.json:
            write_text(check_document([Outcome(target.paths, target.layout, error.evidence)], changed=False))
        else:
            write_lines(text.unusable_lines(error.evidence.findings))
        raise
    if common.json:
        write_text(check_document([Outcome(target.paths, target.layout, evidence)], changed=False))
        return evidence
    write_lines(text.header_lines(target, evidence.geometry))
    if common.very_verbose:
        _print_zones(target)
    write_lines(text.check_lines(evidence, verbose=common.verbose))
    return evidence


def _print_zones(target: Target) -> None:
    import numpy as np

    from zoned_tools.report.zones import zbd_lines

    for device in (d for d in target.devices if d.geometry.is_zoned):
        zones = device.zones()
        write_lines(zbd_lines(zones, np.arange(len(zones))))


def repair_devices(common: Common, use_set: str | None, allow: Sequence[str], settings: Sequence[str]) -> int:
    """``--repair``: plan from the findings, rehearse, apply, check again."""
    given = parse_settings(settings)
    number = parse_number(use_set, "the set is 0 or 1", (0, 1))
    if number is not None:
        given["use-set"] = str(number)
    request = RepairRequest(frozenset(allow), common.dry_run, common.undo)
    options = CheckRequest(settings=given).options(dm_zoned.LAYOUT)
    consents = consents_of(dm_zoned.LAYOUT, request.allow, options)
    with open_devices(common.paths, writable=not common.dry_run) as devices:
        check_members(devices)
        outcome = _repair(common, Target(LAYOUT, devices), options, consents)
    evidence = outcome.evidence
    assert evidence is not None
    if common.json:
        write_text(check_document([outcome], changed=outcome.changed))
    elif outcome.repaired is not None:
        left = evidence.findings.count(Severity.ERROR)
        print(f"{len(outcome.repaired)} findings repaired" if not left else f"{left} errors are left")
    elif not common.dry_run or not (outcome.plan and outcome.plan.plan):
        print("nothing was repaired" if evidence.has_errors else "nothing to repair")
    return int(evidence.has_errors)


def _repair(common: Common, target: Target, options: CheckOptions, consents: Consents) -> Outcome:
    """Everything up to the second check."""
    from zoned_tools.engine.changing import carry_out
    from zoned_tools.engine.rehearsing import rehearse

    before = check(target, options) if common.json else _check(Common(common.paths), target, options)
    plan = plan_repair(before, consents)
    outcome = Outcome(target.paths, target.layout, before, plan=plan)
    if plan.plan:
        outcome.rehearsal = rehearse(before, plan, consents, options)
        outcome.plan = plan = outcome.rehearsal.plan
        refuse_worse(before, outcome.rehearsal)
    if common.dry_run:
        if not common.json:
            write_lines(text.plan_lines(plan, target.paths))
        return outcome
    write_lines((f"note: {note}" for note in text.notes(plan)), sys.stderr)
    if carry_out(plan.plan, target.devices, undo=common.undo):
        outcome.repaired = before.findings
        outcome.evidence, _ = gather(target, options)
    return outcome


def relabel_devices(common: Common, label: str | None) -> int:
    """``--relabel``: change the label in every super block."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.formats.dm_zoned.format import default_label
    from zoned_tools.formats.dm_zoned.relabel import plan_relabel

    with open_devices(common.paths, writable=not common.dry_run) as devices:
        check_members(devices)
        target = Target(LAYOUT, devices)
        wanted = parse_label(label) or default_label(devices[0])
        old, plan = plan_relabel(target, wanted)
        if not plan:
            print(f"Device label already set to {wanted}")
            return 0
        print(f"Relabeling from {old} to {wanted}")
        execute(plan, devices, dry_run=common.dry_run, undo=common.undo)
    return 0
