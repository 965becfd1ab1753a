"""btrfs on zoned devices: the super block log rings, how to see, verify and rescue them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.constants import NAME, ROLES
from zoned_tools.formats.btrfs.settings import SETTINGS
from zoned_tools.formats.contract import (
    CheckOptions,
    Consents,
    DerivedZones,
    Figure,
    Identity,
    Layout,
    Probed,
    RepairPlan,
    Rules,
    Settings,
    Target,
    ZoneWishes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.btrfs.check import BtrfsEvidence
    from zoned_tools.formats.shared.scanning import Scanner
    from zoned_tools.formats.shared.views import CopyExtent, DeviceView


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from zoned_tools.formats.btrfs.probe import probe

    return probe(device, start_bytes)


def _rules() -> Rules:
    from zoned_tools.formats.btrfs.rules import RULES

    return RULES


def _check(target: Target, options: CheckOptions) -> BtrfsEvidence:
    from zoned_tools.formats.btrfs.check import check

    return check(target, options)


def _plan_repair(evidence: BtrfsEvidence, consents: Consents) -> RepairPlan:
    from zoned_tools.formats.btrfs.repair_plan import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from zoned_tools.formats.btrfs.inspect import inspect

    return inspect(target)


def _open_views(target: Target, settings: Settings) -> Sequence[DeviceView]:
    from zoned_tools.formats.btrfs.export import open_views

    return open_views(target, settings)


def _map_copies(target: Target, settings: Settings, ranges: Sequence[tuple[int, int]] | None) -> Iterator[CopyExtent]:
    from zoned_tools.formats.btrfs.locate import map_copies

    return map_copies(target, settings, ranges)


def _map_zone(target: Target, settings: Settings, zone: int) -> Sequence[Mapping[str, object]]:
    from zoned_tools.formats.btrfs.locate import map_zone

    return map_zone(target, settings, zone)


def _zone_roles(target: Target) -> Mapping[str, IntArray]:
    from zoned_tools.formats.btrfs.roles import zone_roles

    return zone_roles(target)


def _figures(target: Target) -> Iterator[Figure]:
    from zoned_tools.formats.btrfs.figures import figures

    return figures(target)


def _claims(probed: Sequence[Probed]) -> bool:
    from zoned_tools.formats.btrfs.members import claims

    return claims(probed)


def _metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    from zoned_tools.formats.btrfs.metadata import metadata

    return metadata(target)


def _scanner(device: Device) -> Scanner:
    from zoned_tools.formats.btrfs.scan import BtrfsScanner

    return BtrfsScanner(device)


def _derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    from zoned_tools.formats.btrfs.derive import derive_zones

    return derive_zones(target, wishes)


LAYOUT: Layout[BtrfsEvidence] = Layout(
    name=NAME,
    summary="btrfs in zoned mode: super block rings, block groups and zones, files",
    probe=_probe,
    rules=_rules,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    metadata=_metadata,
    scanner=_scanner,
    open_views=_open_views,
    map_copies=_map_copies,
    map_zone=_map_zone,
    settings=SETTINGS,
    zone_roles=_zone_roles,
    figures=_figures,
    claims=_claims,
    roles=ROLES,
    derive_zones=_derive_zones,
    measured=frozenset(
        {
            "wp-unaligned",
            "wp-ahead",
            "wp-behind",
            "bg-wp-differs",
            "bg-extents-beyond-wp",
            "bg-striping",
            "bg-wp-over-capacity",
            "active-zones-exceeded",
            "zone-orphan",
        }
    ),
    reads_raw=True,
)
