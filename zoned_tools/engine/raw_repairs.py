"""Repairs of raw copies: only with consent to their derived zones, and in terms of bytes: nothing keeps zone states.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.derived import DerivedDrive
from zoned_tools.device.plan import Fill, ManageZones, Plan, Step, ZoneFlags
from zoned_tools.device.runs import mask_runs
from zoned_tools.device.zones import is_sequential
from zoned_tools.engine.raw_copies import CODE
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Consent, RepairPlan
from zoned_tools.formats.shared.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Consents, Target


def mended(findings: Findings) -> Findings:
    """What a repair was about: derived zones stay."""
    return Findings(group for group in findings.groups if group.code != CODE)


def hold_back(target: Target, plan: RepairPlan, consents: Consents) -> RepairPlan:
    """What of a repair may be written: nothing to a raw copy before the user agrees to its derived zones."""
    if not target.derived or not plan.plan:
        return plan
    agreed = CODE in consents.allow
    action = (
        registry.of(target)
        .rules()
        .action(CODE, "the repair is made on derived zones", consent=Consent.GUESSES, agreed=agreed)
    )
    if agreed:
        plan.add(action)
        return plan
    return RepairPlan(Plan(plan.plan.title), [action])


def below_derived(target: Target, plan: Plan) -> tuple[Plan, tuple[Device, ...]]:
    """A plan in terms of the raw copies themselves: what is written, saved for an undo and read back are bytes.

    Nothing keeps zone states: a zone that is reset becomes zeroes, other zone commands change no byte.
    """
    if not target.derived:
        return plan, target.devices
    devices = tuple(device.base if isinstance(device, DerivedDrive) else device for device in target.devices)
    steps: list[Step] = []
    for step in plan.steps:
        drive = target.devices[step.device]
        if isinstance(drive, DerivedDrive) and isinstance(step, ManageZones | ZoneFlags):
            steps += _bytes_of(drive, step)
        else:
            steps.append(step)
    return Plan(plan.title, steps, plan.messages), devices


def _bytes_of(drive: DerivedDrive, step: ManageZones | ZoneFlags) -> Iterator[Step]:
    if not isinstance(step, ManageZones) or step.operation is not ZoneOperation.RESET:
        return
    for first, end in mask_runs(is_sequential(drive.zones(step.first_zone, step.count))).tolist():
        offset, length = drive.geometry.zone_range_bytes(step.first_zone + first, end - first)
        yield Fill(step.device, offset, length, 0, step.note)
