"""``dmzadm --check``, ``--repair`` and ``--relabel``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from zoned_tools.cli.dmzadm.common import (
    LAYOUT,
    Common,
    check_members,
    default_label,
    parse_label,
    parse_number,
)
from zoned_tools.cli.settings import parse_settings
from zoned_tools.device.opening import open_devices
from zoned_tools.findings import CheckReport, NothingToCheckError
from zoned_tools.formats.dm_zoned.check import check_target
from zoned_tools.formats.registry import CheckOptions, RepairOptions, Target

LEGACY_EXIT = "ZONED_TOOLS_LEGACY_EXIT"
"""Environment variable: ``1`` makes ``--check`` exit 0 with errors found, as the original does."""


def _exit_status(report: CheckReport) -> int:
    return int(report.has_errors and os.environ.get(LEGACY_EXIT) != "1")


def _print_json(report: CheckReport, *, changed: bool) -> None:
    from zoned_tools.cli.output import print_json

    print_json({"schema": "zoned.check/1", "changed": changed, "devices": [report.as_json()]})


def check_devices(common: Common) -> int:
    """``--check``: exit status 1 when there are errors."""
    with open_devices(common.paths) as devices:
        check_members(devices)
        return _exit_status(_check(common, Target(LAYOUT, devices)))


def _check(common: Common, target: Target) -> CheckReport:
    from zoned_tools.report import dmzadm as text

    try:
        result = check_target(target)
    except NothingToCheckError as error:
        if common.json:
            _print_json(error.report, changed=False)
        else:
            print("\n".join(text.unusable_lines(error.report)))
        raise
    if common.json:
        _print_json(result.report, changed=False)
        return result.report
    print("\n".join(text.header_lines(target, result.state.geometry)))
    if common.very_verbose:
        from zoned_tools.report.zones import zbd_lines

        for device in (d for d in target.devices if d.geometry.is_zoned):
            import numpy as np

            zones = device.zones()
            print("\n".join(zbd_lines(zones, np.arange(len(zones)))))
    for line in text.check_lines(result, verbose=common.verbose):
        print(line)
    return result.report


def repair_devices(common: Common, use_set: str | None, allow: Sequence[str], settings: Sequence[str]) -> int:
    """``--repair``: plan from the findings, apply, check again."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.formats.dm_zoned.check import check
    from zoned_tools.formats.dm_zoned.repair import plan_repair

    options = RepairOptions(
        use_set=parse_number(use_set, "the set is 0 or 1", (0, 1)),
        allow=frozenset(allow),
        settings=parse_settings(settings),
    )
    with open_devices(common.paths, writable=not common.dry_run) as devices:
        check_members(devices)
        target = Target(LAYOUT, devices)
        quiet = Common(common.paths, json=False)
        try:
            before = check(target, CheckOptions()) if common.json else _check(quiet, target)
        except NothingToCheckError as error:
            before = error.report
        plan = plan_repair(target, before, options)
        if not execute(plan, devices, dry_run=common.dry_run, undo=common.undo, identity=LAYOUT):
            if common.json:
                _print_json(before, changed=False)
            elif not plan:
                print("nothing was repaired" if before.has_errors else "nothing to repair")
            return int(before.has_errors)
        after = check(target, CheckOptions())
        after.corrected = True
        after.facts["repaired"] = [finding.as_json() for finding in before.findings]
        after.facts["messages"] = plan.messages
    if common.json:
        _print_json(after, changed=True)
    else:
        left = sum(finding.severity == "error" for finding in after.findings)
        print(f"{len(before.findings)} findings repaired" if not left else f"{left} errors are left")
    return int(after.has_errors)


def relabel_devices(common: Common, label: str | None) -> int:
    """``--relabel``: change the label in every super block."""
    from zoned_tools.cli.changes import execute
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
        execute(plan, devices, dry_run=common.dry_run, undo=common.undo, identity=LAYOUT)
    return 0
