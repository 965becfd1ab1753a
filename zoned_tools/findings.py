"""What a check reports: findings with stable identifiers, and the verdict over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from zoned_tools.errors import FsckStatus, MetadataError


class Severity(StrEnum):
    """``error`` makes the verdict; ``warning`` and ``info`` (a note) do not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Verdict(StrEnum):
    """Outcome of a check of one target."""

    CLEAN = "clean"
    CORRECTED = "corrected"
    ERRORS = "errors"
    FAILED = "failed"

    @property
    def fsck_status(self) -> FsckStatus:
        return {
            Verdict.CLEAN: FsckStatus.CLEAN,
            Verdict.CORRECTED: FsckStatus.CORRECTED,
            Verdict.ERRORS: FsckStatus.UNCORRECTED,
            Verdict.FAILED: FsckStatus.OPERATIONAL,
        }[self]


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation from a layout's rules.

    Attributes:
        id: layout name, a dot, and the specification's code (``dm-zoned.sb-bad-crc``).
        severity: the specification's severity.
        message: one sentence for a human.
        where: place and size: small JSON values (``{"zone": 12, "count": 3}``).
        repair: what repair would do; empty when it leaves the finding alone.
    """

    id: str
    severity: Severity
    message: str
    where: Mapping[str, object] = field(default_factory=dict)
    repair: str = ""

    @property
    def code(self) -> str:
        """The specification's code, without the layout's name."""
        return self.id.split(".", 1)[1]

    def as_json(self) -> dict[str, object]:
        """The finding as in the ``zoned.check/1`` schema."""
        return {
            "id": self.id,
            "severity": str(self.severity),
            "where": dict(self.where),
            "message": self.message,
            "repair": self.repair,
        }


@dataclass(slots=True)
class CheckReport:
    """Everything that a check of one target found.

    Attributes:
        layout: layout name (``dm-zoned``).
        devices: paths of the target's devices, in order.
        findings: in the order in which the check's rules are documented.
        facts: figures worth printing beside the findings (chosen set, mapped chunks...).
        corrected: set by repair when no error is left.
    """

    layout: str
    devices: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    corrected: bool = False

    @property
    def has_errors(self) -> bool:
        return any(f.severity is Severity.ERROR for f in self.findings)

    @property
    def verdict(self) -> Verdict:
        if self.has_errors:
            return Verdict.ERRORS
        return Verdict.CORRECTED if self.corrected else Verdict.CLEAN

    def as_json(self) -> dict[str, object]:
        """One element of ``devices`` in the ``zoned.check/1`` schema."""
        return {
            "devices": list(self.devices),
            "layout": self.layout,
            "verdict": str(self.verdict),
            "facts": self.facts,
            "findings": [f.as_json() for f in self.findings],
        }


class NothingToCheckError(MetadataError):
    """No metadata is sound enough for a check to go on; ``report`` has what was found until then."""

    def __init__(self, message: str, report: CheckReport, *, hint: str = "") -> None:
        super().__init__(message, device=report.devices[0], hint=hint)
        self.report = report
