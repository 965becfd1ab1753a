"""Carry a plan out as every command does: print it, or journal, apply and verify it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from zoned_tools.device.base import Device
from zoned_tools.device.plan import Plan, Step, apply_plan, verify_plan


def print_plan(plan: Plan, devices: Sequence[Device]) -> None:
    """What ``--dry-run`` shows on standard output."""
    paths = [device.path for device in devices]
    print(f"would {plan.title}:" if plan else f"nothing to do: {plan.title}")
    for message in plan.messages:
        print(f"  note: {message}")
    for line in plan.describe(paths):
        print(f"  {line}")


def execute(
    plan: Plan,
    devices: Sequence[Device],
    *,
    dry_run: bool = False,
    undo: str | None = None,
    identity: str = "",
    progress: Callable[[Step], None] | None = None,
) -> bool:
    """Apply ``plan`` unless ``dry_run``; returns whether anything was written.

    With ``undo`` everything that will be overwritten is saved and synced first.

    Raises:
        DeviceError: a write failed, or does not read back.
    """
    if dry_run:
        print_plan(plan, devices)
        return False
    for message in plan.messages:
        print(f"note: {message}", file=sys.stderr)
    if not plan:
        return False
    if undo is not None:
        from zoned_tools.device.undo import save_undo

        save_undo(undo, devices, plan, identity)
    apply_plan(devices, plan.steps, progress)
    verify_plan(devices, plan)
    return True
