"""Raw copies of zoned drives: put on the zone tables that their layouts derive, told, and not written unasked.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from zoned_tools.errors import RefusedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import ZoneWishes

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Evidence, Target

NO_WISHES = ZoneWishes()
CODE = "zones-derived"


def with_derived(target: Target, wishes: ZoneWishes = NO_WISHES) -> Target:
    """A target with what is derived about its raw copies, said once; their write pointers are not measured yet.

    Raises:
        ZonedError: there is a raw copy, and its zones cannot be told.
    """
    layout = registry.of(target)
    if layout.derive_zones is None or all(device.geometry.is_zoned for device in target.devices):
        return target
    derived = tuple(layout.derive_zones(target, wishes))
    if not any(derived):
        return target
    from zoned_tools.device.mapfile import warn_device

    for device, row in zip(target.devices, derived, strict=True):
        if row is not None:
            warn_device(
                f"{device.path}: raw copy of a zoned drive without its zone table: {row.geometry.nr_zones} zones of "
                f"{row.geometry.zone_bytes} bytes, derived from the {target.layout} metadata"
            )
    return replace(target, derived=derived)


def on_derived_zones(target: Target) -> Target:
    """A target with its raw copies as zoned drives."""
    if not target.derived:
        return target
    from zoned_tools.device.derived import DerivedDrive

    devices = tuple(
        device if row is None else DerivedDrive(device, row.geometry, row.table.copy())
        for device, row in zip(target.devices, target.derived, strict=True)
    )
    return replace(target, devices=devices)


def ready_to_read(target: Target, wishes: ZoneWishes = NO_WISHES) -> Target:
    """A target as its layout's rooms read it.

    Raises:
        ZonedError: there is a raw copy, and its zones cannot be told.
    """
    found = with_derived(target, wishes)
    return found if registry.of(target).reads_raw else on_derived_zones(found)


ZoneSource: TypeAlias = Literal["drive", "sidecar", "derived"]


def source_of_zones(device: Device, *, derived: bool = False) -> ZoneSource | None:
    """Where a device's zones come from; None for one without zones."""
    if derived:
        return "derived"
    if not device.geometry.is_zoned:
        return None
    return "sidecar" if device.emulated and not os.path.isdir(device.path) else "drive"


def zone_table_of(target: Target) -> ZoneSource | None:
    """Where the zones of a target come from: derived where any are; None without zones."""
    if target.derived:
        return "derived"
    return next((source for device in target.devices if (source := source_of_zones(device))), None)


def refuse_derived(target: Target) -> None:
    """Refuse to write to a raw copy, whose zone states nobody would keep.

    Raises:
        RefusedError: the target has one.
    """
    raw = next((device for device, row in zip(target.devices, target.derived, strict=False) if row is not None), None)
    if raw is not None:
        raise RefusedError(
            "a raw copy of a zoned drive without its zone table cannot be written",
            device=raw.path,
            hint="zoned image adopt writes the derived zone table beside it",
        )


def judge_derived(evidence: Evidence) -> None:
    """Say that zones are derived, and take back what compares with them."""
    target = evidence.target
    rows = [row for row in target.derived if row is not None]
    if not rows:
        return
    layout = registry.of(target)
    evidence.findings.groups = [group for group in evidence.findings.groups if group.code not in layout.measured]
    zones, zone_bytes = sum(row.geometry.nr_zones for row in rows), rows[0].geometry.zone_bytes
    evidence.findings.add(
        layout.rules().finding(
            CODE,
            f"{zones} zones of {zone_bytes} bytes are derived from the metadata: there is no zone table",
            repairable=False,
            zone_size_bytes=zone_bytes,
            zones=zones,
        )
    )
