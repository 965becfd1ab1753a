"""The journey check, over any layout: evidence, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import known_bad_areas, missing_bytes
from zoned_tools.device.identity import describe_use
from zoned_tools.formats import registry
from zoned_tools.formats.contract import (
    AnyLayout,
    CheckOptions,
    Evidence,
    Journey,
    NothingToCheckError,
    RepairPlan,
    Target,
    Verdict,
    need,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.engine.changing import Carried
    from zoned_tools.engine.rehearsing import Rehearsal
    from zoned_tools.errors import FsckStatus, ZonedError
    from zoned_tools.formats.shared.copies import CopyDifference
    from zoned_tools.formats.shared.findings import Findings


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """How to check, as a user says it, before it is known which layouts there are.

    Attributes:
        deep: verify payload data too.
        settings: ``KEY=VALUE`` words; each layout checks them against its declarations.
        diff_sets: tell where two copies of the metadata give different data.
    """

    deep: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    diff_sets: bool = False

    def options(self, layout: AnyLayout) -> CheckOptions:
        """The options for one layout.

        Raises:
            UsageError: a setting that it does not have, or an impossible value.
        """
        return CheckOptions(self.deep, layout.parse_settings(self.settings, Journey.CHECK, Journey.REPAIR))


@dataclass(slots=True)
class Outcome:
    """What came of one target.

    Attributes:
        devices: paths, in the target's order.
        layout: None where none was recognised.
        evidence: what the last check found; None when it failed.
        error: why it failed.
        repaired: what the check before the repair found; None when nothing was changed.
        plan: the repair's plan, when one was asked for.
        rehearsal: what the plan came to on a copy-on-write view; None when there was nothing to do.
        carried: what was done; None before.
        differences: where two copies of the metadata give different data; None when nobody asked.
    """

    devices: tuple[str, ...]
    layout: str | None = None
    evidence: Evidence | None = None
    error: ZonedError | None = None
    repaired: Findings | None = None
    plan: RepairPlan | None = None
    rehearsal: Rehearsal | None = None
    carried: Carried | None = None
    differences: list[CopyDifference] | None = None

    @property
    def changed(self) -> bool:
        return self.repaired is not None

    @property
    def verdict(self) -> Verdict:
        if self.evidence is None:
            return Verdict.FAILED
        if self.evidence.has_errors:
            return Verdict.ERRORS
        return Verdict.CORRECTED if self.changed else Verdict.CLEAN

    @property
    def fsck_status(self) -> FsckStatus:
        return self.error.fsck_status if self.error is not None else self.verdict.fsck_status


def gather(target: Target, options: CheckOptions) -> tuple[Evidence, NothingToCheckError | None]:
    """Check a target; where nothing is sound enough, what was found until then, and that error."""
    try:
        evidence = registry.of(target).check(target, options)
    except NothingToCheckError as error:
        return error.evidence, error
    complete(evidence, options)
    return evidence, None


def complete(evidence: Evidence, options: CheckOptions) -> None:
    """Add what is known of the devices alone to what a layout's check found."""
    target = evidence.target
    uses = {path: use for path in target.paths if (use := describe_use(path))}
    if uses:
        evidence.facts["live"] = uses
    if target.derived:
        from zoned_tools.engine.raw_copies import judge_derived

        judge_derived(evidence)
    if any(missing_bytes(device) or len(known_bad_areas(device)) for device in target.devices):
        from zoned_tools.engine.losses import add_media_findings

        add_media_findings(evidence, options.settings)


def check_target(target: Target, request: CheckRequest) -> Outcome:
    """Check a target.

    Raises:
        ZonedError: it cannot be checked at all.
    """
    evidence, stop = gather(target, request.options(registry.of(target)))
    if stop is not None and not evidence.findings:
        raise stop
    outcome = Outcome(target.paths, target.layout, evidence)
    if request.diff_sets:
        outcome.differences = need(registry.of(target).diff_copies, target, "compare as two sets of metadata")(target)
    return outcome
