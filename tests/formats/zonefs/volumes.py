"""Volumes with any super block, and short ways to check and repair them on an overlay."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.formats.zonefs.images import MIB, Edit, make_image
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.formats.contract import CheckOptions, Consents, Journey, RepairPlan, Target
from zoned_tools.formats.zonefs import LAYOUT
from zoned_tools.formats.zonefs.check import ZonefsEvidence, check
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.repair_plan import plan_repair
from zoned_tools.formats.zonefs.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zoned_tools.device.emulated import EmulatedDrive

UUID = uuid.UUID("2e5c9ba2-3b2e-4a07-a391-a24e7a5401ac")
GOOD = SuperBlock(label_bytes=b"name", uuid=UUID, features=15, uid=1000, gid=100, perm=0o600)
GIVEN = {"features": "aggr_cnv,uid=1000,gid=100,perm=600", "label": "name", "uuid": str(UUID)}
"""The settings that make GOOD."""


def image_with(
    path: Path,
    raw: bytes,
    *,
    conventional: int = 2,
    finish: bool = True,
    capacity_bytes: int | None = None,
    max_open: int = 0,
    max_active: int = 0,
    edit: Edit | None = None,
) -> Path:
    """An image of 32 MiB whose first bytes are ``raw``; a sequential zone 0 is finished if wanted."""
    image = make_image(
        path,
        size_bytes=32 * MIB,
        conventional=conventional,
        capacity_bytes=capacity_bytes,
        max_open=max_open,
        max_active=max_active,
        edit=edit,
    )
    with open_image(str(image), writable=True) as device:
        if raw:
            device.write(0, raw)
            if not conventional and finish:
                device.manage(ZoneOperation.FINISH, 0)
    return image


def evidence_of(device: EmulatedDrive) -> ZonefsEvidence:
    return check(Target("zonefs", (device,)), CheckOptions())


def found(device: EmulatedDrive) -> dict[str, str]:
    """Code to severity of what check finds."""
    findings = evidence_of(device).findings
    assert all(f.severity == RULES[f.code].severity for f in findings)
    return {f.code: str(f.severity) for f in findings}


def consents_of(settings: Mapping[str, str] | None = None, *allow: str) -> Consents:
    return Consents(frozenset(allow), LAYOUT.parse_settings(settings or {}, Journey.CHECK, Journey.REPAIR))


@dataclass(frozen=True)
class Repaired:
    """A repaired view of a drive, and the plan that it was repaired by."""

    device: Overlay
    plan: RepairPlan

    @property
    def waiting(self) -> list[str]:
        """Codes of the actions that wait."""
        return [action.id.removeprefix("zonefs.") for action in self.plan.waiting]

    @property
    def sentences(self) -> list[str]:
        return [sentence for action in self.plan.actions for sentence in action.sentences()]


def repair(device: EmulatedDrive, settings: Mapping[str, str] | None = None, *allow: str) -> Repaired:
    """Check and repair a copy-on-write view of a drive."""
    overlay = Overlay(device)
    plan = plan_repair(evidence_of(overlay), consents_of(settings, *allow))
    apply_plan([overlay], plan.plan.steps)
    return Repaired(overlay, plan)
