"""What a check reports: findings with stable identifiers, kept as columns, and the verdict over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned_tools.errors import FsckStatus
from zoned_tools.formats.shared.columns import Rows, json_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


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


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings of one rule that share a sentence; made by :class:`~zoned_tools.formats.shared.rules.Rules`."""

    id: str
    severity: Severity
    repair: str
    rows: Rows

    @property
    def code(self) -> str:
        return self.id.split(".", 1)[1]

    def __len__(self) -> int:
        return self.rows.length

    def __iter__(self) -> Iterator[Finding]:
        return self.first(None)

    def first(self, most: int | None) -> Iterator[Finding]:
        """The first ``most`` findings, all of them for None."""
        for message, where in self.rows.items(most):
            yield Finding(self.id, self.severity, message, where, self.repair)

    def json_blocks(self) -> Iterator[str]:
        """The findings as JSON objects, joined by commas, some thousands at a time."""
        return json_rows(self.rows, {"id": self.id, "severity": str(self.severity)}, {"repair": self.repair})

    def with_place(self, name: str, value: object) -> FindingGroup:
        """The same findings with one more value, equal for all, in their places."""
        places = {**self.rows.places, name: [value] * self.rows.length}
        rows = Rows(self.rows.sentence, places, self.rows.words, self.rows.length)
        return FindingGroup(self.id, self.severity, self.repair, rows)


class Findings:
    """Findings of one target, in the order in which the rules are documented.

    Iterating makes the single findings; ``groups`` are what they are made of.
    """

    def __init__(self, groups: Iterable[FindingGroup] = ()) -> None:
        self.groups: list[FindingGroup] = [group for group in groups if len(group)]

    def add(self, group: FindingGroup | None) -> None:
        """Add a rule's findings; an empty group is left out, and so is None."""
        if group is not None and len(group):
            self.groups.append(group)

    def extend(self, groups: Iterable[FindingGroup]) -> None:
        for group in groups:
            self.add(group)

    def __iadd__(self, groups: Iterable[FindingGroup]) -> Findings:
        self.extend(groups)
        return self

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __iter__(self) -> Iterator[Finding]:
        for group in self.groups:
            yield from group

    def __getitem__(self, index: int) -> Finding:
        return list(self)[index]

    def count(self, severity: Severity) -> int:
        return sum(len(group) for group in self.groups if group.severity is severity)

    @property
    def has_errors(self) -> bool:
        return any(group.severity is Severity.ERROR for group in self.groups)

    @property
    def codes(self) -> frozenset[str]:
        """Codes that occur, without the layout's name."""
        return frozenset(group.code for group in self.groups)

    def of(self, *codes: str) -> list[FindingGroup]:
        """The groups of these codes, in order."""
        return [group for group in self.groups if group.code in codes]

    def json_blocks(self) -> Iterator[str]:
        """All findings as JSON objects, joined by commas inside a block; between blocks the writer puts them."""
        for group in self.groups:
            yield from group.json_blocks()
