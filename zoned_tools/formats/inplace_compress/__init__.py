"""dm-inplace-compress: every block compressed at its own place, offline.

The rooms are imported when they are called, so that a command loads only what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Layout
from zoned_tools.formats.inplace_compress.layout import NAME
from zoned_tools.formats.inplace_compress.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.contract import (
        CheckOptions,
        Consents,
        Identity,
        Mapper,
        RepairPlan,
        Rules,
        Settings,
        TableLine,
        Target,
    )
    from zoned_tools.formats.inplace_compress.check import InplaceEvidence


def _probe(device: Device, start_bytes: int) -> Identity | None:
    from zoned_tools.formats.inplace_compress.probe import probe

    return probe(device, start_bytes)


def _rules() -> Rules:
    from zoned_tools.formats.inplace_compress.rules import RULES

    return RULES


def _check(target: Target, options: CheckOptions) -> InplaceEvidence:
    from zoned_tools.formats.inplace_compress.check import check

    return check(target, options)


def _plan_repair(evidence: InplaceEvidence, consents: Consents) -> RepairPlan:
    from zoned_tools.formats.inplace_compress.repair_plan import plan_repair

    return plan_repair(evidence, consents)


def _inspect(target: Target) -> dict[str, object]:
    from zoned_tools.formats.inplace_compress.inspect import inspect

    return inspect(target)


def _open_mapper(target: Target, *, writable: bool, settings: Settings) -> Mapper:
    from zoned_tools.formats.inplace_compress.mapper.open import open_mapper

    return open_mapper(target, writable=writable, settings=settings)


def _table_line(target: Target, settings: Settings) -> TableLine:
    from zoned_tools.formats.inplace_compress.table import table_line

    return table_line(target, settings)


def _dump(target: Target) -> dict[str, object]:
    from zoned_tools.formats.inplace_compress.dump import dump

    return dump(target)


def _restore(target: Target, document: Mapping[str, object]) -> Plan:
    from zoned_tools.formats.inplace_compress.dump import restore

    return restore(target, document)


def _plan_format(target: Target, settings: Settings) -> Plan:
    from zoned_tools.formats.inplace_compress.format import plan_format

    return plan_format(target, settings)


def _metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    from zoned_tools.formats.inplace_compress.metadata import metadata

    return metadata(target)


LAYOUT: Layout[InplaceEvidence] = Layout(
    name=NAME,
    summary="every block compressed at its own place by a device-mapper target",
    probe=_probe,
    rules=_rules,
    check=_check,
    plan_repair=_plan_repair,
    inspect=_inspect,
    metadata=_metadata,
    settings=SETTINGS,
    open_mapper=_open_mapper,
    table_line=_table_line,
    dump=_dump,
    restore=_restore,
    plan_format=_plan_format,
)
