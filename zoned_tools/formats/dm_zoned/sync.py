"""Metadata sets of different generations, as a power cut leaves them: the newer one is copied to the older one.

A kernel that starts without that goes on writing into the older set without completing it, and a commit may be lost at
the next start.

Source: sections 6.3 and 8.5 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.device.planned import PlannedDevice
from zoned_tools.formats.contract import Settings, Severity
from zoned_tools.formats.dm_zoned.mapper.sets import open_for_writing
from zoned_tools.formats.dm_zoned.settings import SETTINGS

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence


def only_needs_sync(evidence: DmZonedEvidence) -> bool:
    """True when bringing the sets together is all that a start waits for: nothing can be lost by it."""
    groups = evidence.findings.groups
    return (
        any(group.code == "sets-gen-differ" for group in groups)
        and evidence.state.both_valid
        and not any(group.severity is Severity.ERROR for group in groups)
        and not evidence.newer_is_worse
    )


def plan_sync(target: Target) -> Plan:
    """The differing blocks of the older set, then its super block with the newer generation; each with a flush.

    Raises:
        RefusedError: the newer set is damaged, or a metadata zone cannot be written.
        ZonedError: the target cannot be read.
    """
    plan = Plan("bring the metadata sets together")
    views = tuple(PlannedDevice(device, plan, number) for number, device in enumerate(target.devices))
    open_for_writing(replace(target, devices=views), Settings({}, SETTINGS))
    return plan
