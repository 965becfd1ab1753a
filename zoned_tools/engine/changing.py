"""Carry a plan out: journal, apply, verify. Whoever calls it has shown the plan already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan, Step, apply_plan, verify_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.device.base import Device


def carry_out(
    plan: Plan,
    devices: Sequence[Device],
    *,
    undo: str | None = None,
    identity: str = "",
    progress: Callable[[Step], None] | None = None,
) -> bool:
    """Apply ``plan``; returns whether there was anything to write.

    With ``undo`` everything that will be overwritten is saved and synced first.

    Args:
        identity: layout name, stored in the undo file.
        progress: told each step before it runs.

    Raises:
        DeviceError: a write failed, or does not read back.
    """
    if not plan:
        return False
    if undo is not None:
        from zoned_tools.device.undo import save_undo

        save_undo(undo, devices, plan, identity)
    apply_plan(devices, plan.steps, progress)
    verify_plan(devices, plan)
    return True
