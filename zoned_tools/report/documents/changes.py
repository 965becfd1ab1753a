"""Documents of commands that carry out one plan: ``zoned.zone``, ``zoned.restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from zoned_tools.formats.contract import Severity, Verdict
from zoned_tools.report.plans import step_lines

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.contract import Evidence, Target


class ChangeFacts(TypedDict):
    """What was planned and done; ``plan``: its steps, ``undo``: the file that takes them back, null without one."""

    changed: bool
    plan: list[str]
    undo: str | None


def _facts(plan: Plan, paths: tuple[str, ...], carried: Carried) -> ChangeFacts:
    return {"changed": carried.changed, "plan": list(step_lines(plan, paths)), "undo": carried.undo_path or None}


class ZoneDocument(ChangeFacts):
    """``zoned.zone/1``: an operation on ``zones`` zones from ``first_zone`` on."""

    schema: Literal["zoned.zone/1"]
    device: str
    operation: str
    first_zone: int
    zones: int


def zone_document(path: str, operation: str, zones: tuple[int, int], plan: Plan, carried: Carried) -> ZoneDocument:
    """What an operation on ``(first, count)`` zones did."""
    return {
        "schema": "zoned.zone/1",
        "device": path,
        "operation": operation,
        "first_zone": zones[0],
        "zones": zones[1],
        **_facts(plan, (path,), carried),
    }


class RestoreDocument(ChangeFacts):
    """``zoned.restore/1``: ``verdict`` and ``errors_left`` are of a check of what is restored."""

    schema: Literal["zoned.restore/1"]
    devices: list[str]
    layout: str
    verdict: Verdict
    errors_left: int


def restore_document(target: Target, plan: Plan, after: Evidence, carried: Carried) -> RestoreDocument:
    """What a restore wrote, and what a check finds in it."""
    return {
        "schema": "zoned.restore/1",
        "devices": list(target.paths),
        "layout": target.layout,
        "verdict": after.verdict,
        "errors_left": after.findings.count(Severity.ERROR),
        **_facts(plan, target.paths, carried),
    }
