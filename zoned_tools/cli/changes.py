"""Carry a plan out as every command does: show it, then journal, apply and verify it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from zoned_tools.report.plans import note_lines, plan_lines, undo_lines
from zoned_tools.report.stream import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan, Step
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.contract import RepairPlan


def print_plan(plan: Plan, devices: Sequence[Device], repair: RepairPlan | None = None) -> None:
    """What ``--dry-run`` shows on standard output."""
    write_lines(plan_lines(plan, [device.path for device in devices], repair))


def print_notes(plan: Plan, repair: RepairPlan | None = None) -> None:
    """What a human should know, on standard error."""
    write_lines((f"note: {line}" for line in note_lines(plan, repair)), sys.stderr)


def execute(
    plan: Plan,
    devices: Sequence[Device],
    *,
    dry_run: bool = False,
    undo: str | None = None,
    no_undo: bool = False,
    identity_after: str = "",
    progress: Callable[[Step], None] | None = None,
) -> Carried:
    """Show and apply ``plan``, or only show it (``dry_run``); true when anything was written.

    What will be overwritten is saved and synced first, see :func:`zoned_tools.engine.changing.carry_out`.

    Raises:
        DeviceError: a write failed, or does not read back.
    """
    from zoned_tools.engine.changing import Carried, carry_out

    if dry_run:
        print_plan(plan, devices)
        return Carried(changed=False)
    print_notes(plan)
    return carry_out(plan, devices, undo=undo, no_undo=no_undo, identity_after=identity_after, progress=progress)


def print_undo(carried: Carried | None) -> None:
    """Where the undo file is, or why there is none, on standard error."""
    if carried is not None:
        write_lines((f"note: {line}" for line in undo_lines(carried)), sys.stderr)
