"""What rooms may give: every function lets a value through as the contract has it, or says what it is instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar, get_args

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Plan, Produce, Step, Write, ZoneFlags
from zoned_tools.formats.contract import (
    LOGICAL_BLOCK_BYTES,
    Consent,
    Evidence,
    Figure,
    Identity,
    MapExtent,
    Probed,
    RepairPlan,
    Rules,
    Severity,
    TableLine,
    Target,
)
from zoned_tools.formats.shared.findings import FindingGroup, Findings
from zoned_tools.formats.shared.rules import ActionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.shared.columns import Rows

T = TypeVar("T")

Wrap: TypeAlias = "Callable[[Callable[[], bytes]], Callable[[], bytes]]"
"""Puts a function that makes data under guard."""

_METRIC = re.compile("[a-z][a-z0-9_]*")

_FACTS = frozenset({"schema", "layout", "devices"})
"""Keys that documents have of their own."""


class WrongError(Exception):
    """A value that is not what it should be; its text says what it is."""


def kind_of(value: object) -> str:
    """``None``, ``a list``, ``an int``."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def require(value: object, kind: type[T]) -> T:
    """A value of a class; True is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise WrongError(f"{kind_of(value)} instead of {kind.__name__}")
    return value


def require_line(value: object) -> str:
    """Text that fits on a line as it is."""
    text = require(value, str)
    if not text.isprintable():
        raise WrongError(f"text with control characters: {text!r}")
    return text


def require_count(value: object, end: int = 1 << 64) -> int:
    """A number from 0 to below ``end``."""
    number = require(value, int)
    if not 0 <= number < end:
        raise WrongError(f"the number {number}")
    return number


def require_buffer(value: object, length_bytes: int) -> Buffer:
    """That many bytes."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise WrongError(f"{kind_of(value)} instead of bytes")
    if memoryview(value).nbytes != length_bytes:
        raise WrongError(f"{memoryview(value).nbytes} bytes instead of {length_bytes}")
    return value


# -- probe and members


def identity(value: object, layout: str) -> Identity | None:
    """What a probe found, of that layout."""
    if value is None:
        return None
    found = require(value, Identity)
    if found.layout != layout:
        raise WrongError(f"an identity of {found.layout!r}")
    for text in (found.version, found.uuid, found.label, found.group):
        require(text, str)
    for number in (found.start_bytes, found.position, found.members):
        require_count(number)
    return found


def order(value: object, members: Sequence[Probed]) -> Sequence[Probed]:
    """The same members in another order."""
    found = list(require(value, Sequence))  # type: ignore[type-abstract]
    if sorted(map(id, found)) != sorted(map(id, members)):
        raise WrongError("other members than it was given")
    return found


# -- check and repair


def evidence(value: object, rules: Rules) -> Evidence:
    """Evidence with findings that the rules have."""
    found = require(value, Evidence)
    require(found.target, Target)
    plain(require(found.facts, dict), scalars=True)
    for group in require(found.findings, Findings).groups:
        require(group, FindingGroup)
        require(group.severity, Severity)
        require(group.repair, str)
        _coded(group.id, group.rows, rules)
    return found


def repair_plan(value: object, rules: Rules, devices: int, wrap: Wrap) -> RepairPlan:
    """A repair with actions that the rules have."""
    found = require(value, RepairPlan)
    for action in require(found.actions, list):
        require(action, ActionGroup)
        require(action.consent, Consent)
        require(action.needs, str)
        _coded(action.id, action.rows, rules)
    found.plan = plan(found.plan, devices, wrap)
    return found


def _coded(code: object, rows: Rows, rules: Rules) -> None:
    layout, _, name = require(code, str).partition(".")
    if layout != rules.layout or name not in rules:
        raise WrongError(f"the code {code!r}, which its rules do not have")
    for _ in rows.batches():
        pass  # a column that computes its values does so now
    for sentence, place in rows.items(1):
        require(sentence, str)
        plain(place, scalars=True)


def plan(value: object, devices: int, wrap: Wrap) -> Plan:
    """A plan for so many devices; data that are made when they are needed are made under guard."""
    found = require(value, Plan)
    require(found.title, str)
    for message in require(found.messages, list):
        require(message, str)
    found.steps = [_step(step, devices, wrap) for step in require(found.steps, list)]
    return found


def _step(step: Step, devices: int, wrap: Wrap) -> Step:
    if not isinstance(step, get_args(Step)):
        raise WrongError(f"{kind_of(step)} as a step of a plan")
    require_count(step.device, devices)
    require(step.note, str)
    match step:
        case ManageZones():
            require(step.operation, ZoneOperation)
            numbers = [step.first_zone, step.count]
        case ZoneFlags():
            require(step.non_seq, bool), require(step.reset, bool)
            numbers = [step.zone]
        case Flush():
            numbers = []
        case Write():
            require(step.data, bytes)
            numbers = [step.offset_bytes]
        case Copy():
            numbers = [step.source_bytes, step.offset_bytes, step.length_bytes]
        case Fill():
            require_count(step.pattern, 1 << 16)
            numbers = [step.offset_bytes, step.length_bytes]
        case Produce():
            numbers = [step.offset_bytes, step.length_bytes]
            step = replace(step, produce=wrap(step.produce))
    for number in numbers:
        require_count(number)
    return step


# -- documents


def tree(value: object) -> dict[str, object]:
    """A document of values that JSON has, without the keys that every document has."""
    found: dict[str, object] = require(value, dict)
    plain(found)
    if clash := sorted(_FACTS & found.keys()):
        raise WrongError(f"the key {clash[0]!r}, which is the document's own")
    return found


def plain(value: object, at: str = "", *, scalars: bool = False) -> None:
    """Refuse what JSON does not have; ``scalars`` lets numpy's numbers through, which print as numbers."""
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, dict):
        for name, part in value.items():
            plain(part, require(name, str), scalars=scalars)
    elif isinstance(value, list | tuple):
        for part in value:
            plain(part, at, scalars=scalars)
    elif not (scalars and hasattr(value, "dtype")):
        raise WrongError(f"{kind_of(value)}{f' as {at!r}' if at else ''}, which JSON does not have")


def table_line(value: object) -> TableLine:
    """A line that is one."""
    found = require(value, TableLine)
    require_line(found.line)
    require_line(found.warning)
    return found


def roles(value: object, declared: Iterable[str]) -> Mapping[str, IntArray]:
    """Zone numbers of declared roles."""
    import numpy as np

    found: Mapping[str, IntArray] = require(value, Mapping)  # type: ignore[type-abstract]
    for name, zones in found.items():
        if name not in set(declared):
            raise WrongError(f"zones of {name!r}, which is no role of it")
        if not isinstance(zones, np.ndarray) or zones.ndim != 1 or zones.dtype.kind not in "iu":
            raise WrongError(f"{kind_of(zones)} instead of an array of zone numbers")
    return found


def figure(value: object) -> Figure:
    """A figure whose name and labels can be a metric's."""
    found = require(value, Figure)
    names = [require(found.name, str), *(require(name, str) for name, _ in found.labels)]
    if not all(_METRIC.fullmatch(name) for name in names):
        raise WrongError(f"{names!r} as names of a metric")
    require_line(found.help)
    for _, text in found.labels:
        require(text, str)
    if isinstance(found.value, bool) or not isinstance(found.value, int | float) or not math.isfinite(found.value):
        raise WrongError(f"{found.value!r} as a value")
    return found


# -- the logical device


def extent(value: object, devices: int) -> MapExtent:
    """A run of blocks on one of the devices."""
    found = require(value, MapExtent)
    require_count(found.logical_block)
    if not require_count(found.blocks):
        raise WrongError("an extent of no blocks")
    require_count(found.device_index, devices)
    if found.physical_block is not None:
        require_count(found.physical_block)
    require(found.why, str)
    return found


def blocks(value: object, count: int) -> Buffer:
    """The content of so many blocks."""
    return require_buffer(value, count * LOGICAL_BLOCK_BYTES)
