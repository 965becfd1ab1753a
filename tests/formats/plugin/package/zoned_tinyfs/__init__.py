"""tinyfs: one super block, and the blocks that it says are in use. The example of a layout by somebody else.

The super block is the first 4096-byte block of a drive; the blocks in use follow it without gaps. The rooms are
imported when they are called, so that naming the layout costs no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Consent, Journey, Layout, Rule, Rules, Severity, ZoneRole
from zoned_tools.formats.shared.settings import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import CheckOptions, Consents, Identity, RepairPlan, Target

    from .rooms import TinyEvidence

NAME = "tinyfs"

RULES = Rules(
    NAME,
    {
        "sb-crc": Rule(Severity.ERROR, "The super block's checksum is wrong.", "The super block was damaged."),
        "label-rest": Rule(
            Severity.WARNING,
            "There are bytes after the end of the label.",
            "A longer label was replaced.",
            "clears them",
        ),
        "used-beyond-end": Rule(
            Severity.ERROR,
            "More blocks are in use than the drive has.",
            "The drive is smaller than the one that it was copied from.",
            "cuts the number of used blocks to the drive's size, or to the one given by --set used=N; what is beyond it"
            " is lost",
            kernel="Refuses the mount.",
            asks=Consent.LOSES,
        ),
    },
)

SETTINGS = (
    number(
        "used", "how many blocks are in use, where the user knows better", Journey.REPAIR, minimum=1, maximum=1 << 40
    ),
)

ROLES = (ZoneRole("tiny super block", "T", "#bc4b51"), ZoneRole("tiny data", "t", "#3d6fb6"))


def _rules() -> Rules:
    return RULES


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from .rooms import probe

    return probe(device, start_bytes)


def _check(target: Target, options: CheckOptions) -> TinyEvidence:
    from .rooms import check

    return check(target, options)


def _plan_repair(evidence: TinyEvidence, consents: Consents) -> RepairPlan:
    from .rooms import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from .rooms import inspect

    return inspect(target)


def _dump(target: Target) -> dict[str, object]:
    from .rooms import dump

    return dump(target)


def _restore(target: Target, document: Mapping[str, object]) -> Plan:
    from .rooms import restore

    return restore(target, document)


def _zone_roles(target: Target) -> Mapping[str, IntArray]:
    from .rooms import zone_roles

    return zone_roles(target)


LAYOUT: Layout[TinyEvidence] = Layout(
    name=NAME,
    summary="one super block and the blocks after it",
    settings=SETTINGS,
    rules=_rules,
    probe=_probe,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    dump=_dump,
    restore=_restore,
    zone_roles=_zone_roles,
    roles=ROLES,
    private_keys=frozenset({"label", "label_hex"}),
)
