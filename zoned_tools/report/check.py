"""What check and repair tell: text grouped by code, and the ``zoned.check/1`` document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.engine.raw_copies import zone_table_of
from zoned_tools.formats.contract import Severity, Verdict
from zoned_tools.formats.shared.columns import json_rows
from zoned_tools.report.documents.envelope import error_row
from zoned_tools.report.documents.targets import CHECK, CHECK_LINE
from zoned_tools.report.plans import step_lines
from zoned_tools.report.stream import elements, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.engine.checking import Outcome
    from zoned_tools.engine.rehearsing import Rehearsal
    from zoned_tools.formats.contract import RepairPlan
    from zoned_tools.formats.shared.copies import CopyDifference
    from zoned_tools.formats.shared.findings import Finding, FindingGroup, Findings
    from zoned_tools.report.documents.targets import RehearsalRow

_FIRST_RUNS = 20
FIRST_PLACES = 3
"""Findings of one code that are shown; ``--all`` shows every one."""

_VERDICTS = {
    Verdict.CLEAN: "clean",
    Verdict.CORRECTED: "errors were corrected",
    Verdict.ERRORS: "errors found",
    Verdict.FAILED: "could not be checked",
}


# -- text


def finding_line(finding: Finding) -> str:
    """``error dm-zoned.sb-bad-crc: message [repair: ...]``."""
    return f"{finding.severity} {finding.id}: {finding.message}{_repair_text(finding.repair)}"


def _repair_text(repair: str) -> str:
    return f" [repair: {repair}]" if repair else ""


def finding_lines(findings: Findings, *, everything: bool = False, before: str = "") -> Iterator[str]:
    """The findings, grouped by code: how many, and the first places.

    Args:
        everything: every finding on a line of its own.
        before: words in front of each (``repaired ``).
    """
    by_code: dict[tuple[str, Severity, str], list[FindingGroup]] = {}
    for group in findings.groups:
        by_code.setdefault((group.id, group.severity, group.repair), []).append(group)
    for (code, severity, repair), groups in by_code.items():
        count = sum(map(len, groups))
        if everything or count == 1:
            yield from (f"  {before}{finding_line(finding)}" for group in groups for finding in group)
            continue
        yield f"  {before}{severity} {code}: {count} findings{_repair_text(repair)}"
        yield from (f"    {message}" for message in _first_messages(groups))
        if count > FIRST_PLACES:
            yield f"    ... and {count - FIRST_PLACES} more (--all prints every one)"


def _first_messages(groups: Sequence[FindingGroup]) -> Iterator[str]:
    left = FIRST_PLACES
    for group in groups:
        yield from (finding.message for finding in group.first(left))
        left = max(left - len(group), 0)


def outcome_lines(outcome: Outcome, *, everything: bool = False) -> Iterator[str]:
    """What was repaired, what is left, and the verdict with counts."""
    if outcome.evidence is None:
        return
    if outcome.repaired is not None:
        yield from finding_lines(outcome.repaired, everything=everything, before="repaired ")
    findings = outcome.evidence.findings
    yield from finding_lines(findings, everything=everything)
    if outcome.differences is not None:
        yield from _difference_lines(outcome.differences, everything=everything)
    yield verdict_line(outcome.devices, outcome.layout, outcome.verdict, findings)


def _difference_lines(differences: Sequence[CopyDifference], *, everything: bool) -> Iterator[str]:
    """What each of two copies of the metadata gives, where that is not the same."""
    if not differences:
        yield "  both metadata sets give the same data"
        return
    blocks = sum(row.blocks for row in differences)
    chunks = len({row.chunk for row in differences})
    yield f"  the metadata sets give different data for {blocks} blocks of {chunks} chunks"
    shown = differences if everything else differences[:_FIRST_RUNS]
    for row in shown:
        places = (f"set {n} {'zeroes' if zone is None else f'zone {zone}'}" for n, zone in enumerate(row.zones))
        last = row.first_block + row.blocks - 1
        yield f"    chunk {row.chunk}, logical blocks {row.first_block} to {last}: {', '.join(places)}"
    if len(shown) < len(differences):
        yield f"    ... and {len(differences) - len(shown)} more (--all prints every one)"


def verdict_line(devices: Iterable[str], layout: str | None, verdict: Verdict, findings: Findings) -> str:
    """``disk.img: dm-zoned: errors found (2 errors, 1 info)``."""
    counts = ((severity, findings.count(severity)) for severity in Severity)
    text = ", ".join(
        f"{n} {severity}{'s' if n > 1 and severity is not Severity.INFO else ''}" for severity, n in counts if n
    )
    return f"{', '.join(devices)}: {layout}: {_VERDICTS[verdict]}{f' ({text})' if text else ''}"


# -- JSON


def check_document(outcomes: Iterable[Outcome], *, changed: bool) -> dict[str, object]:
    """The fields of a ``zoned.check/1`` document, the targets as pieces of JSON text."""
    rows = ("".join(_short(outcome)) if outcome.evidence is None else _row(outcome) for outcome in outcomes)
    return {"schema": CHECK, "changed": changed, "devices": elements(rows)}


def check_line(outcome: Outcome) -> str:
    """A line of ``zoned check --jsonl``: one target, as soon as it is done."""
    row = "".join(_short(outcome) if outcome.evidence is None else _row(outcome)).replace("\n", "")
    error = outcome.error
    facts = {
        "schema": CHECK_LINE,
        "device": outcome.devices[0],
        "exit_status": int(outcome.fsck_status),
        "errors": [] if error is None else [error_row(error)],
    }
    return f"{encode(facts)[:-1]}, {row[1:]}"


def _short(outcome: Outcome) -> Iterator[str]:
    yield encode(
        {
            "devices": list(outcome.devices),
            "zone_table": None,
            "layout": outcome.layout,
            "verdict": str(outcome.verdict),
            "error": str(outcome.error),
            "findings": [],
        }
    )


def _row(outcome: Outcome) -> Iterator[str]:
    """One element of ``devices``."""
    evidence = outcome.evidence
    assert evidence is not None
    head = {
        "devices": list(outcome.devices),
        "zone_table": zone_table_of(evidence.target),
        "layout": outcome.layout,
        "verdict": str(outcome.verdict),
        "facts": evidence.facts,
    }
    yield encode(head)[:-1]
    if outcome.plan is not None:
        yield ', "actions": '
        yield from elements(_action_blocks(outcome.plan))
        if not outcome.changed:
            yield ', "plan": ' + encode(list(step_lines(outcome.plan.plan, outcome.devices)))
    if outcome.rehearsal is not None:
        yield ', "rehearsal": ' + encode(_rehearsal(outcome.rehearsal))
    if outcome.carried is not None:
        yield ', "undo": ' + encode(outcome.carried.undo_path or None)
    if outcome.repaired is not None:
        yield ', "repaired": '
        yield from elements(outcome.repaired.json_blocks())
    if outcome.differences is not None:
        yield ', "diff_sets": ' + encode([row._asdict() for row in outcome.differences])
    yield ', "findings": '
    yield from elements(evidence.findings.json_blocks())
    yield "}"


def _rehearsal(rehearsal: Rehearsal) -> RehearsalRow:
    """What the plan came to on a copy-on-write view."""
    row: RehearsalRow = {
        "verdict": rehearsal.evidence.verdict,
        "errors": rehearsal.evidence.findings.count(Severity.ERROR),
        "codes": sorted(rehearsal.evidence.findings.codes),
        "rounds": rehearsal.rounds,
    }
    difference = rehearsal.difference
    if difference is not None:
        row |= {
            "blocks_changed": difference.moved,
            "blocks_readable": difference.gained,
            "blocks_lost": difference.lost,
            "ranges": [
                {"logical_block": first, "blocks": blocks, "what": what} for first, blocks, what in difference.ranges
            ],
        }
    return row


def _action_blocks(plan: RepairPlan) -> Iterator[str]:
    for action in plan.actions:
        before = {"id": action.id, "consent": str(action.consent), "waits": action.waits}
        yield from json_rows(action.rows, before, {})
