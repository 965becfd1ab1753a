"""zonefs: every zone of a drive is a file; a 4096-byte super block is all the metadata there is.

The rooms are imported when they are called. The files of a volume have no place in the common rooms:
``zoned zonefs`` reaches them through :mod:`zoned_tools.formats.zonefs.mapper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Layout
from zoned_tools.formats.zonefs.constants import NAME, ROLES
from zoned_tools.formats.zonefs.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import (
        CheckOptions,
        Consents,
        DerivedZones,
        Identity,
        RepairPlan,
        Rules,
        Settings,
        Target,
        ZoneWishes,
    )
    from zoned_tools.formats.zonefs.check import ZonefsEvidence


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from zoned_tools.formats.zonefs.probe import probe

    return probe(device, start_bytes)


def _rules() -> Rules:
    from zoned_tools.formats.zonefs.rules import RULES

    return RULES


def _check(target: Target, options: CheckOptions) -> ZonefsEvidence:
    from zoned_tools.formats.zonefs.check import check

    return check(target, options)


def _plan_repair(evidence: ZonefsEvidence, consents: Consents) -> RepairPlan:
    from zoned_tools.formats.zonefs.repair_plan import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from zoned_tools.formats.zonefs.inspect import inspect

    return inspect(target)


def _dump(target: Target) -> dict[str, object]:
    from zoned_tools.formats.zonefs.dump import dump

    return dump(target)


def _restore(target: Target, document: Mapping[str, object]) -> Plan:
    from zoned_tools.formats.zonefs.dump import restore

    return restore(target, document)


def _zone_roles(target: Target) -> Mapping[str, IntArray]:
    from zoned_tools.formats.zonefs.roles import zone_roles

    return zone_roles(target)


def _plan_format(target: Target, settings: Settings) -> Plan:
    from zoned_tools.formats.zonefs.format import plan_format

    return plan_format(target, settings)


def _metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    from zoned_tools.formats.zonefs.metadata import metadata

    return metadata(target)


def _derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    from zoned_tools.formats.zonefs.derive import derive_zones

    return derive_zones(target, wishes)


LAYOUT: Layout[ZonefsEvidence] = Layout(
    name=NAME,
    summary="file system that shows each zone as a file",
    settings=SETTINGS,
    rules=_rules,
    probe=_probe,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    metadata=_metadata,
    dump=_dump,
    restore=_restore,
    zone_roles=_zone_roles,
    roles=ROLES,
    plan_format=_plan_format,
    private_keys=frozenset({"label", "label_tail"}),
    derive_zones=_derive_zones,
    measured=frozenset({"zone0-not-full"}),
)
