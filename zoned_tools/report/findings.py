"""Check reports as text."""

from __future__ import annotations

from collections.abc import Iterator

from zoned_tools.findings import CheckReport, Finding, Severity, Verdict

MAX_LINES = 200
"""Findings shown as text; JSON has them all."""

_VERDICTS = {
    Verdict.CLEAN: "clean",
    Verdict.CORRECTED: "errors were corrected",
    Verdict.ERRORS: "errors found",
    Verdict.FAILED: "could not be checked",
}


def finding_line(finding: Finding) -> str:
    """``error dm-zoned.sb-bad-crc: message [repair: ...]``."""
    repair = f" [repair: {finding.repair}]" if finding.repair else ""
    return f"{finding.severity} {finding.id}: {finding.message}{repair}"


def repaired_lines(report: CheckReport) -> Iterator[str]:
    """What was found before a repair."""
    repaired = report.facts.get("repaired")
    if not isinstance(repaired, list):
        return
    for row in repaired[:MAX_LINES]:
        yield f"  repaired {row['severity']} {row['id']}: {row['message']}"
    if len(repaired) > MAX_LINES:
        yield f"  ... and {len(repaired) - MAX_LINES} more findings were repaired"


def report_lines(report: CheckReport) -> Iterator[str]:
    """The findings, then the verdict with counts."""
    for finding in report.findings[:MAX_LINES]:
        yield f"  {finding_line(finding)}"
    if len(report.findings) > MAX_LINES:
        yield f"  ... and {len(report.findings) - MAX_LINES} more findings (--json lists them all)"
    counts = [(severity, sum(f.severity is severity for f in report.findings)) for severity in Severity]
    text = ", ".join(
        f"{n} {severity}{'s' if n > 1 and severity is not Severity.INFO else ''}" for severity, n in counts if n
    )
    yield f"{', '.join(report.devices)}: {report.layout}: {_VERDICTS[report.verdict]}{f' ({text})' if text else ''}"
