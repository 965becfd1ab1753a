"""The journeys check and repair, over any layout.

Evidence, plan, execution, verification: what a check measured is what the plan is made of, and after the plan was
carried out the target is checked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.engine.changing import carry_out
from zoned_tools.engine.opening import opened_targets
from zoned_tools.errors import FsckStatus, MetadataError, UsageError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import (
    AnyLayout,
    CheckOptions,
    Consents,
    Evidence,
    Journey,
    NothingToCheckError,
    RepairPlan,
    Target,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.formats.shared.findings import Findings


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """How to check, as a user says it, before it is known which layouts there are.

    Attributes:
        deep: verify payload data too.
        settings: ``KEY=VALUE`` words; each layout checks them against its declarations.
    """

    deep: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def options(self, layout: AnyLayout) -> CheckOptions:
        """The options for one layout.

        Raises:
            UsageError: a setting that it does not have, or an impossible value.
        """
        return CheckOptions(self.deep, layout.parse_settings(self.settings, Journey.CHECK, Journey.REPAIR))


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """How to repair.

    Attributes:
        allow: codes that the user agreed to, with or without a layout's name.
        dry_run: stop when the plan is made.
        undo: file for what is overwritten.
    """

    allow: frozenset[str] = frozenset()
    dry_run: bool = False
    undo: str | None = None


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
    """

    devices: tuple[str, ...]
    layout: str | None = None
    evidence: Evidence | None = None
    error: ZonedError | None = None
    repaired: Findings | None = None
    plan: RepairPlan | None = None

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
        return registry.of(target).check(target, options), None
    except NothingToCheckError as error:
        return error.evidence, error


def plan_repair(evidence: Evidence, consents: Consents) -> RepairPlan:
    """The plan of the evidence's own layout."""
    return registry.of(evidence.target).plan_repair(evidence, consents)


def consents_of(layout: AnyLayout, allow: frozenset[str], options: CheckOptions) -> Consents:
    """A user's agreement in terms of one layout.

    Raises:
        UsageError: a code that the layout does not have.
    """
    return Consents(layout.rules().agreed(allow, frozenset(registry.OURS)), options.settings)


def check_target(target: Target, request: CheckRequest) -> Outcome:
    """Check a target.

    Raises:
        ZonedError: it cannot be checked at all.
    """
    evidence, stop = gather(target, request.options(registry.of(target)))
    if stop is not None and not evidence.findings:
        raise stop
    return Outcome(target.paths, target.layout, evidence)


def repair_target(
    target: Target,
    request: CheckRequest,
    repair: RepairRequest,
    *,
    announce: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Check a target, plan what mends it, and carry that out unless it is a dry run.

    Args:
        announce: shown the outcome with its plan before the first write.

    Raises:
        ZonedError: it cannot be checked or repaired, or a write failed.
    """
    layout = registry.of(target)
    options = request.options(layout)
    consents = consents_of(layout, repair.allow, options)
    before, _ = gather(target, options)
    outcome = Outcome(target.paths, target.layout, before, plan=layout.plan_repair(before, consents))
    announce(outcome)
    assert outcome.plan is not None
    if repair.dry_run:
        return outcome
    if carry_out(outcome.plan.plan, target.devices, undo=repair.undo, identity=target.layout):
        outcome.repaired = before.findings
        outcome.evidence = layout.check(target, options)
    return outcome


def check_paths(
    paths: Sequence[str],
    request: CheckRequest,
    repair: RepairRequest | None = None,
    *,
    start_sector: int | None = None,
    layout: str | None = None,
    announce: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[Outcome]:
    """Check, or repair, every target on the named devices; a bad one does not hide the others.

    A single device that cannot be opened raises; of several it is one of the outcomes.

    Raises:
        UsageError: an impossible request, found before anything is written.
    """
    writable = repair is not None and not repair.dry_run
    with opened_targets(paths, start_sector, layout, writable=writable) as opened:
        if opened.failed and len(paths) == 1:
            raise opened.failed[0][1]
        if repair is not None and repair.undo is not None and len(opened.targets) > 1:
            raise UsageError("--undo saves one target at a time", hint="repair each target on its own")
        _refuse_early(opened.targets, request, repair)
        for path, error in opened.failed:
            yield Outcome((path,), error=error)
        for device in opened.unknown:
            yield Outcome((device.path,), error=MetadataError("no layout is recognised", device=device.path))
        for target in opened.targets:
            try:
                if repair is None:
                    yield check_target(target, request)
                else:
                    yield repair_target(target, request, repair, announce=announce)
            except ZonedError as error:
                yield Outcome(target.paths, target.layout, error=error)


def _refuse_early(targets: Sequence[Target], request: CheckRequest, repair: RepairRequest | None) -> None:
    """Unknown settings and codes are refused before the first target is touched."""
    for target in targets:
        layout = registry.of(target)
        options = request.options(layout)
        if repair is not None:
            consents_of(layout, repair.allow, options)
