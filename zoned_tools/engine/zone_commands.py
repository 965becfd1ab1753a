"""Zone management by hand: planned, and refused where it would destroy what a recognised layout keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import DEAD_CONDITIONS, ZoneCondition, has_condition, is_sequential
from zoned_tools.engine.opening import probe_device
from zoned_tools.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from zoned_tools.device.base import Device


def plan_zone_command(device: Device, operation: ZoneOperation, first_zone: int, count: int) -> Plan:
    """A command over ``count`` zones.

    Raises:
        UsageError: not all of them are on the drive.
    """
    nr_zones = device.geometry.nr_zones
    if first_zone >= nr_zones or first_zone + count > nr_zones:
        last = first_zone + count - 1
        what = f"zone {first_zone} is" if count == 1 else f"zones {first_zone} to {last} are"
        raise UsageError(f"{what} not on the drive, it has {nr_zones}", device=device.path)
    plan = Plan(f"{operation} zones")
    plan.manage(0, operation, first_zone, count)
    return plan


def plan_whole_drive(device: Device, operation: ZoneOperation) -> Plan:
    """A command over every zone that can take it; the others are left out, as drives do that know it."""
    plan = Plan(f"{operation} zones")
    plan.manage_all(0, operation, device.zones())
    return plan


def refuse_loss(device: Device, operation: ZoneOperation, first_zone: int, count: int) -> None:
    """Refuse to reset written zones, or to finish unfinished ones, of a drive that carries a recognised layout.

    Raises:
        RefusedError: it does; the message says what lies there.
    """
    table = device.zones(first_zone, count)
    usable = is_sequential(table) & ~has_condition(table, *DEAD_CONDITIONS)
    match operation:
        case ZoneOperation.RESET:
            concerned = usable & ~has_condition(table, ZoneCondition.EMPTY)
        case ZoneOperation.FINISH:
            concerned = usable & ~has_condition(table, ZoneCondition.FULL)
        case _:
            return
    zones = np.flatnonzero(concerned)
    identity = probe_device(device).identity if len(zones) else None
    if identity is None:
        return
    first = int(zones[0]) + first_zone
    which = f"zone {first}" if len(zones) == 1 else f"{len(zones)} zones from zone {first} on"
    name = f" {identity.label!r}" if identity.label else ""
    lost = "written" if operation is ZoneOperation.RESET else "still to be written"
    raise RefusedError(
        f"the drive carries {identity.layout}{name}, and {which} {'is' if len(zones) == 1 else 'are'} {lost}",
        device=device.path,
        hint=f"--force: {operation} all the same; --undo FILE saves what is there",
    )
