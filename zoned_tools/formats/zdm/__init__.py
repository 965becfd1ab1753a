"""ZDM: Seagate's host-aware device mapper (identity of zdmadm 0.125, metadata of releases 112 to 114).

The rooms are imported when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Layout
from zoned_tools.formats.zdm.constants import NAME, ROLES
from zoned_tools.formats.zdm.settings import SETTINGS

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
        Importer,
        ImportOptions,
        Mapper,
        RepairPlan,
        Rules,
        Settings,
        TableLine,
        Target,
        ZoneWishes,
    )
    from zoned_tools.formats.zdm.check import ZdmEvidence


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from zoned_tools.formats.zdm.probe import probe

    return probe(device, start_bytes)


def _rules() -> Rules:
    from zoned_tools.formats.zdm.rules import RULES

    return RULES


def _check(target: Target, options: CheckOptions) -> ZdmEvidence:
    from zoned_tools.formats.zdm.check import check

    return check(target, options)


def _plan_repair(evidence: ZdmEvidence, consents: Consents) -> RepairPlan:
    from zoned_tools.formats.zdm.repair_plan import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from zoned_tools.formats.zdm.inspect import inspect

    return inspect(target)


def _open_mapper(target: Target, *, writable: bool, settings: Settings) -> Mapper:
    from zoned_tools.formats.zdm.mapper.open import open_mapper

    return open_mapper(target, writable=writable, settings=settings)


def _open_importer(target: Target, options: ImportOptions) -> Importer:
    from zoned_tools.formats.zdm.importing import open_importer

    return open_importer(target, options)


def _table_line(target: Target, settings: Settings) -> TableLine:
    from zoned_tools.formats.zdm.table import table_line

    return table_line(target, settings)


def _dump(target: Target) -> dict[str, object]:
    from zoned_tools.formats.zdm.dump import dump

    return dump(target)


def _restore(target: Target, document: Mapping[str, object]) -> Plan:
    from zoned_tools.formats.zdm.dump import restore

    return restore(target, document)


def _zone_roles(target: Target) -> Mapping[str, IntArray]:
    from zoned_tools.formats.zdm.roles import zone_roles

    return zone_roles(target)


def _plan_format(target: Target, settings: Settings) -> Plan:
    from zoned_tools.formats.zdm.format import plan_format

    return plan_format(target, settings)


def _find_starts(device: Device) -> Sequence[int]:
    from zoned_tools.formats.zdm.probe import find_starts

    return find_starts(device)


def _metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    from zoned_tools.formats.zdm.metadata import metadata

    return metadata(target)


def _derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    from zoned_tools.formats.zdm.derive import derive_zones

    return derive_zones(target, wishes)


LAYOUT: Layout[ZdmEvidence] = Layout(
    name=NAME,
    summary="Seagate's mapper for host-aware drives (out of tree)",
    settings=SETTINGS,
    rules=_rules,
    probe=_probe,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    metadata=_metadata,
    open_mapper=_open_mapper,
    open_importer=_open_importer,
    table_line=_table_line,
    dump=_dump,
    restore=_restore,
    zone_roles=_zone_roles,
    roles=ROLES,
    plan_format=_plan_format,
    private_keys=frozenset({"label"}),
    find_starts=_find_starts,
    whole_drive=True,
    derive_zones=_derive_zones,
    measured=frozenset({"fwd.beyond_wp", "wp.behind", "wp.ahead", "zone.cond"}),
)
