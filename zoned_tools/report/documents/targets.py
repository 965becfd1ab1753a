"""Documents of the commands over any layout; ``zoned.check`` is streamed by :mod:`zoned_tools.report.check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

from zoned_tools.engine.raw_copies import ZoneSource, zone_table_of
from zoned_tools.report.documents import is_a_file, layout_adds_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.formats.contract import Rule, TableLine, Target, Verdict
    from zoned_tools.formats.shared.findings import Finding, Severity
    from zoned_tools.formats.shared.rules import Consent
    from zoned_tools.report.documents.envelope import ErrorRow

CHECK: Final = "zoned.check/1"


class FindingRow(TypedDict):
    """One finding of ``zoned.check/1``; ``where`` has the rule's own columns."""

    id: str
    severity: Severity
    where: dict[str, object]
    message: str
    repair: str


def finding_row(finding: Finding) -> FindingRow:
    """A finding as programs read it."""
    return {
        "id": finding.id,
        "severity": finding.severity,
        "where": dict(finding.where),
        "message": finding.message,
        "repair": finding.repair,
    }


class ActionRow(TypedDict):
    """One action of a repair; it ``waits`` until its ``consent`` is given with ``--allow``."""

    id: str
    consent: Consent
    waits: bool
    where: dict[str, object]
    message: str


class RangeRow(TypedDict):
    """A range of the logical device that a repair changes."""

    logical_block: int
    blocks: int
    what: str


class _RehearsalRow(TypedDict):
    verdict: Verdict
    errors: int
    codes: list[str]
    rounds: int


class RehearsalRow(_RehearsalRow, total=False):
    """What a plan came to on a copy-on-write view; how lookups differ where the layout has a mapper."""

    blocks_changed: int
    blocks_readable: int
    blocks_lost: int
    ranges: list[RangeRow]


class _CheckedRow(TypedDict):
    devices: list[str]
    zone_table: ZoneSource | None
    layout: str | None
    verdict: Verdict
    findings: list[FindingRow]


class SetDifferenceRow(TypedDict):
    """A run of logical blocks and the zone that has them by each metadata set, null where they read as zeroes."""

    chunk: int
    first_block: int
    blocks: int
    zones: list[int | None]


class CheckedRow(_CheckedRow, total=False):
    """One target of ``zoned.check/1``.

    ``error`` instead of ``facts`` where it could not be checked; the others of a repair: ``actions``, ``plan`` until
    it is carried out, what its ``rehearsal`` came to, the ``undo`` file, the findings that were ``repaired``.
    ``diff_sets`` when that was asked for.
    """

    error: str
    facts: dict[str, object]
    actions: list[ActionRow]
    plan: list[str]
    rehearsal: RehearsalRow
    undo: str | None
    repaired: list[FindingRow]
    diff_sets: list[SetDifferenceRow]


CHECK_LINE: Final = "zoned.check.line/1"


@is_a_file
class CheckLine(CheckedRow):
    """``zoned.check.line/1``: a line of ``zoned check --jsonl``; ``device`` is the first of ``devices``.

    ``exit_status`` is that of this target alone; ``errors`` say why it could not be checked.
    """

    schema: Literal["zoned.check.line/1"]
    device: str
    exit_status: int
    errors: list[ErrorRow]


class CheckDocument(TypedDict):
    """``zoned.check/1``: targets in the order given."""

    schema: Literal["zoned.check/1"]
    changed: bool
    devices: list[CheckedRow]


class RuleRow(TypedDict):
    """One rule of ``zoned.explain/1``; ``allow``: what a consent agrees to; ``consent`` is null without a repair."""

    id: str
    severity: Severity
    meaning: str
    causes: str
    kernel: str
    repair: str
    allow: str
    consent: Consent | None


class ExplainDocument(TypedDict):
    """``zoned.explain/1``."""

    schema: Literal["zoned.explain/1"]
    codes: list[RuleRow]


def explain_document(rules: Mapping[str, Rule]) -> ExplainDocument:
    """Everything that is known about rules, by id."""
    rows: list[RuleRow] = [
        {
            "id": name,
            "severity": rule.severity,
            "meaning": rule.meaning,
            "causes": rule.causes,
            "kernel": rule.kernel,
            "repair": rule.repair,
            "allow": rule.allow,
            "consent": rule.consent,
        }
        for name, rule in rules.items()
    ]
    return {"schema": "zoned.explain/1", "codes": rows}


class _TargetFacts(TypedDict):
    devices: list[str]
    zone_table: ZoneSource | None


class TargetFacts(_TargetFacts):
    """What every document about one target begins with; ``zone_table``: where its zones come from, null without."""

    layout: str


def target_facts(target: Target) -> TargetFacts:
    """The facts of one target."""
    return {"devices": list(target.paths), "zone_table": zone_table_of(target), "layout": target.layout}


@layout_adds_keys
class InspectDocument(TargetFacts):
    """``zoned.inspect/1``: the layout's own tree beside the facts."""

    schema: Literal["zoned.inspect/1"]


def inspect_document(target: Target, tree: Mapping[str, object]) -> dict[str, object]:
    """:class:`InspectDocument` with what the layout adds."""
    facts: InspectDocument = {"schema": "zoned.inspect/1", **target_facts(target)}
    return {**facts, **tree}


@is_a_file
@layout_adds_keys
class DumpFile(TypedDict):
    """``zoned.dump/1``, what ``zoned restore`` reads."""

    schema: Literal["zoned.dump/1"]
    layout: str
    devices: list[str]
    zone_table: ZoneSource | None


def dump_document(target: Target, content: Mapping[str, object]) -> dict[str, object]:
    """:class:`DumpFile` with what the layout adds."""
    facts: DumpFile = {
        "schema": "zoned.dump/1",
        "layout": target.layout,
        "devices": list(target.paths),
        "zone_table": zone_table_of(target),
    }
    return {**facts, **content}


class TableDocument(TargetFacts):
    """``zoned.table/1``."""

    schema: Literal["zoned.table/1"]
    table: str
    warning: str


def table_document(target: Target, line: TableLine) -> TableDocument:
    """A table line and what to tell with it."""
    return {"schema": "zoned.table/1", **target_facts(target), "table": line.line, "warning": line.warning}
