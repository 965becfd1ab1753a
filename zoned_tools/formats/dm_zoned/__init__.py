"""dm-zoned: a block device on a zoned drive, or on a regular one and zoned ones, by the kernel's ``zoned`` target.

The rooms are imported when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Layout
from zoned_tools.formats.dm_zoned.constants import MEASURED, NAME, ROLES
from zoned_tools.formats.dm_zoned.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import (
        CheckOptions,
        Consents,
        DerivedZones,
        Figure,
        Identity,
        Importer,
        ImportOptions,
        Mapper,
        Probed,
        RepairPlan,
        Rules,
        Settings,
        TableLine,
        Target,
        ZoneWishes,
    )
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence
    from zoned_tools.formats.shared.copies import CopyDifference
    from zoned_tools.formats.shared.orphans import Orphan
    from zoned_tools.formats.shared.scanning import Scanner


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from zoned_tools.formats.dm_zoned.probe import probe

    return probe(device, start_bytes)


def _rules() -> Rules:
    from zoned_tools.formats.dm_zoned.rules import RULES

    return RULES


def _check(target: Target, options: CheckOptions) -> DmZonedEvidence:
    from zoned_tools.formats.dm_zoned.check import check

    return check(target, options)


def _plan_repair(evidence: DmZonedEvidence, consents: Consents) -> RepairPlan:
    from zoned_tools.formats.dm_zoned.repair_plan import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from zoned_tools.formats.dm_zoned.inspect import inspect

    return inspect(target)


def _open_mapper(target: Target, *, writable: bool, settings: Settings) -> Mapper:
    from zoned_tools.formats.dm_zoned.mapper.open import open_mapper

    return open_mapper(target, writable=writable, settings=settings)


def _open_importer(target: Target, options: ImportOptions) -> Importer:
    from zoned_tools.formats.dm_zoned.importing import open_importer

    return open_importer(target, options)


def _table_line(target: Target, settings: Settings) -> TableLine:
    from zoned_tools.formats.dm_zoned.table import table_line

    return table_line(target, settings)


def _dump(target: Target) -> dict[str, object]:
    from zoned_tools.formats.dm_zoned.dump import dump

    return dump(target)


def _restore(target: Target, document: Mapping[str, object]) -> Plan:
    from zoned_tools.formats.dm_zoned.dump import restore

    return restore(target, document)


def _zone_roles(target: Target) -> Mapping[str, IntArray]:
    from zoned_tools.formats.dm_zoned.roles import zone_roles

    return zone_roles(target)


def _figures(target: Target) -> Iterator[Figure]:
    from zoned_tools.formats.dm_zoned.figures import figures

    return figures(target)


def _plan_format(target: Target, settings: Settings) -> Plan:
    from zoned_tools.formats.dm_zoned.format import plan_format

    return plan_format(target, settings)


def _order_members(members: Sequence[Probed]) -> Sequence[Probed]:
    from zoned_tools.formats.dm_zoned.members import order_members

    return order_members(members)


def _derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    from zoned_tools.formats.dm_zoned.derive import derive_zones

    return derive_zones(target, wishes)


def _claims(probed: Sequence[Probed]) -> bool:
    from zoned_tools.formats.dm_zoned.members import claims

    return claims(probed)


def _metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    from zoned_tools.formats.dm_zoned.metadata import metadata

    return metadata(target)


def _scanner(device: Device) -> Scanner:
    from zoned_tools.formats.dm_zoned.scan import DmZonedScanner

    return DmZonedScanner(device)


def _diff_copies(target: Target) -> list[CopyDifference]:
    from zoned_tools.formats.dm_zoned.diff_sets import diff_sets

    return diff_sets(target)


def _orphans(target: Target, settings: Settings) -> Iterator[Orphan]:
    from zoned_tools.formats.dm_zoned.orphans import orphans

    return orphans(target, settings)


LAYOUT: Layout[DmZonedEvidence] = Layout(
    name=NAME,
    summary="block device on zoned drives, by the kernel's zoned target",
    settings=SETTINGS,
    rules=_rules,
    probe=_probe,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    metadata=_metadata,
    scanner=_scanner,
    orphans=_orphans,
    diff_copies=_diff_copies,
    open_mapper=_open_mapper,
    open_importer=_open_importer,
    table_line=_table_line,
    dump=_dump,
    restore=_restore,
    zone_roles=_zone_roles,
    figures=_figures,
    plan_format=_plan_format,
    order_members=_order_members,
    claims=_claims,
    derive_zones=_derive_zones,
    measured=MEASURED,
    roles=ROLES,
    private_keys=frozenset({"label", "label_tail"}),
)
