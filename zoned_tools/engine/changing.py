"""Carry a plan out: undo file, execution, read-back. Whoever calls it has shown the plan already."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.device.plan import (
    Copy,
    Fill,
    Flush,
    ManageZones,
    Plan,
    Step,
    Stream,
    Write,
    ZoneFlags,
    apply_plan,
    verify_plan,
)
from zoned_tools.device.zones import SECTOR_BYTES, written_sectors
from zoned_tools.engine.opening import probe_device
from zoned_tools.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.device.base import Device

REHEARSED_LIMIT_BYTES = 256 << 20
"""Plans that write more are not tried out only to learn what they put on the devices."""

DEFAULT_LIMIT_BYTES = 4 << 30
"""An undo file that nobody named is written up to this size, and to half of the space that is free for it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What was done; true when there was anything to write.

    Attributes:
        undo_path: the undo file, empty when there is none.
        note: why there is none although nobody refused it.
    """

    changed: bool
    undo_path: str = ""
    note: str = ""

    def __bool__(self) -> bool:
        return self.changed


def carry_out(
    plan: Plan,
    devices: Sequence[Device],
    *,
    undo: str | None = None,
    no_undo: bool = False,
    undo_if_it_fits: bool = False,
    identity_after: str = "",
    saved: Callable[[Carried], None] = lambda _: None,
    progress: Callable[[Step], None] | None = None,
) -> Carried:
    """Apply ``plan`` and read it back. What it overwrites is saved first, see :func:`save_overwritten`.

    Args:
        saved: told where the undo file is before the first write: it is needed most when that fails.
        progress: told each step before it runs.

    Raises:
        DeviceError: a write failed, or does not read back; or the undo file cannot be written.
        RefusedError: the undo file would be too large.
    """
    if not plan:
        return Carried(changed=False)
    carried = save_overwritten(
        plan,
        devices,
        undo=undo,
        no_undo=no_undo,
        undo_if_it_fits=undo_if_it_fits,
        identity_after=identity_after,
    )
    saved(carried)
    apply_plan(devices, plan.steps, progress)
    verify_plan(devices, plan)
    return carried


def save_overwritten(
    plan: Plan,
    devices: Sequence[Device],
    *,
    undo: str | None = None,
    no_undo: bool = False,
    undo_if_it_fits: bool = False,
    identity_after: str = "",
) -> Carried:
    """Save what ``plan`` will overwrite; the result is what there will be to say when it is carried out.

    Args:
        undo: file for what is overwritten; by default one in the state directory, as far as it is not too large.
        no_undo: save nothing.
        undo_if_it_fits: go on without a file that would be too large, as programs must that are called by the scripts
            of another program: its users agreed to lose what is there.
        identity_after: layout and uuid that the plan puts on the devices, where it makes new ones.

    Raises:
        DeviceError: the undo file cannot be written.
        RefusedError: it would be too large.
        UsageError: a file is named and none is wanted.
    """
    if no_undo and undo is not None:
        raise UsageError("--undo and --no-undo exclude each other")
    if no_undo:
        return Carried(changed=True)
    from zoned_tools.device.undo import save_undo
    from zoned_tools.device.undo_files import default_undo_path

    if undo is None:
        too_large = _too_large(plan, devices)
        if too_large and undo_if_it_fits:
            return Carried(changed=True, note=f"no undo file: {too_large}")
        if too_large:
            raise RefusedError(
                too_large,
                device=devices[0].path,
                hint="--undo FILE saves it in a place with more room, --no-undo goes on without",
            )
        undo = default_undo_path(devices, plan.title)
    after = identity_after or identity_behind(plan, devices)
    save_undo(undo, devices, plan, identity_of(devices), identity_after=after)
    return Carried(changed=True, undo_path=undo)


def identity_of(devices: Sequence[Device]) -> str:
    """Layout and uuid of the first of the devices on which something is recognised; empty when there is none."""
    found = (probe_device(device).identity for device in devices)
    return next((f"{identity.layout} {identity.uuid}".strip() for identity in found if identity is not None), "")


def identity_behind(plan: Plan, devices: Sequence[Device]) -> str:
    """What will be on the devices; empty where finding out costs too much, or nobody knows yet."""
    if any(isinstance(step, Stream) for step in plan.steps):
        return ""
    if sum(len(step.data) for step in plan.steps if isinstance(step, Write)) > REHEARSED_LIMIT_BYTES:
        return ""
    if any(isinstance(step, Copy | Fill) and step.length_bytes > REHEARSED_LIMIT_BYTES for step in plan.steps):
        return ""
    overlays = [Overlay(device) for device in devices]
    apply_to_overlays(overlays, plan.steps)
    return identity_of(overlays)


def _too_large(plan: Plan, devices: Sequence[Device]) -> str:
    """Why what a plan overwrites is not saved without having been asked for; empty when it is."""
    from zoned_tools.device.undo_files import undo_directory
    from zoned_tools.units import format_size

    needed = bytes_to_save(plan, devices)
    limit = min(DEFAULT_LIMIT_BYTES, _free_bytes(str(undo_directory())) // 2)
    if needed <= limit:
        return ""
    return f"{format_size(needed)} would have to be saved for zoned undo"


def _free_bytes(directory: str) -> int:
    """Space for a file in a directory that may not exist yet."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "/"
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def bytes_to_save(plan: Plan, devices: Sequence[Device]) -> int:
    """How much an undo file of ``plan`` would have to hold at most, holes left out."""
    total = 0
    for step in plan.steps:
        device = devices[step.device]
        match step:
            case ManageZones(operation=ZoneOperation.RESET):
                written = written_sectors(device.zones(step.first_zone, step.count))
                total += int(written[written > 0].sum()) * SECTOR_BYTES
            case ManageZones() | ZoneFlags() | Flush():
                pass
            case _:
                total += sum(length for _, length in device.data_extents(step.offset_bytes, step.length_bytes))
    return total
