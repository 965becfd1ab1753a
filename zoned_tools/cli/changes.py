"""Carry a plan out as every command does: show it, then journal, apply and verify it."""

from __future__ import annotations

import os
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
    silent: bool = False,
    undo: str | None = None,
    no_undo: bool = False,
    undo_if_it_fits: bool = False,
    identity_after: str = "",
    progress: Callable[[Step], None] | None = None,
) -> Carried:
    """Show and apply ``plan``, or only show it (``dry_run``); true when anything was written.

    What will be overwritten is saved and synced first, see :func:`zoned_tools.engine.changing.carry_out`, and where it
    is said on standard error before anything is changed.

    Args:
        silent: the plan of a dry run is not shown: it stands in a document.

    Raises:
        DeviceError: a write failed, or does not read back.
        RefusedError: the undo file would be too large.
    """
    from zoned_tools.engine.changing import Carried, carry_out

    if dry_run:
        if not silent:
            print_plan(plan, devices)
        return Carried(changed=False)
    print_notes(plan)
    return carry_out(
        plan,
        devices,
        undo=undo,
        no_undo=no_undo,
        undo_if_it_fits=undo_if_it_fits,
        identity_after=identity_after,
        saved=print_undo_as_clone if undo_if_it_fits else print_undo,
        progress=progress,
    )


def print_undo(carried: Carried) -> None:
    """Where the undo file is, or why there is none, on standard error."""
    write_lines((f"note: {line}" for line in undo_lines(carried)), sys.stderr)


def print_undo_as_clone(carried: Carried) -> None:
    """The same for people at a terminal: the output that scripts read is the original's.

    That there is no undo file is always said.
    """
    if carried.note or os.isatty(2):
        print_undo(carried)
