"""The journey repair, over any layout: evidence, plan, rehearsal, undo, execution, verification.

What a check measured is what the plan is made of. The plan is carried out on a copy-on-write view first; what that
comes to is shown, and a plan that makes things worse is refused. After the execution the target is checked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.engine.changing import carry_out, identity_of
from zoned_tools.engine.checking import CheckRequest, Outcome, check_target, complete, gather
from zoned_tools.engine.opening import Failure, opened_targets
from zoned_tools.engine.raw_repairs import below_derived, hold_back, mended
from zoned_tools.engine.rehearsing import refuse_worse, rehearse
from zoned_tools.errors import UsageError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import (
    AnyLayout,
    CheckOptions,
    Consents,
    Evidence,
    NothingToCheckError,
    RepairPlan,
    Target,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned_tools.engine.changing import Carried


def _ignore(*_: object) -> None:
    """Nobody wants to be told."""


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """How to repair.

    Attributes:
        allow: codes that the user agreed to, with or without a layout's name.
        allow_every: the user agreed to all of them.
        dry_run: stop when the plan is made.
        undo: file for what is overwritten, by default one in the state directory.
        no_undo: save nothing.
        copies: the devices are copies made for the repair: unreadable blocks of theirs may be written.
    """

    allow: frozenset[str] = frozenset()
    dry_run: bool = False
    undo: str | None = None
    no_undo: bool = False
    copies: bool = False
    allow_every: bool = False


def plan_repair(evidence: Evidence, consents: Consents) -> RepairPlan:
    """The plan of the evidence's own layout."""
    return registry.of(evidence.target).plan_repair(evidence, consents)


def consents_of(layout: AnyLayout, allow: frozenset[str], options: CheckOptions) -> Consents:
    """A user's agreement in terms of one layout; codes of other layouts are not its business.

    Raises:
        UsageError: a code that the layout, or the one that it names, does not have.
    """
    own = frozenset(word for word in allow if not _is_of_another(layout, word))
    return Consents(layout.rules().agreed(own), options.settings)


def _is_of_another(layout: AnyLayout, word: str) -> bool:
    if word in layout.rules():  # a code may have dots, too
        return False
    other = registry.named_in(word)
    if other is None or other.name == layout.name:
        return False
    other.rules().agreed(frozenset({word}))
    return True


def repair_target(
    target: Target,
    request: CheckRequest,
    repair: RepairRequest,
    *,
    checked: Callable[[Evidence, NothingToCheckError | None], None] = _ignore,
    announce: Callable[[Outcome], None] = _ignore,
    saved: Callable[[Carried], None] = _ignore,
) -> Outcome:
    """Check a target, plan what mends it, and carry that out unless it is a dry run.

    Args:
        checked: shown what the check found, and why it could not go on; what it raises ends the repair.
        announce: shown the outcome with its plan before the first write.
        saved: told where the undo file is, before the first write.

    Raises:
        ZonedError: it cannot be checked or repaired, or a write failed.
    """
    layout = registry.of(target)
    options = request.options(layout)
    consents = consents_of(layout, repair.allow, options)
    if repair.allow_every:
        consents = Consents(frozenset(layout.rules()), options.settings)
    before, stop = gather(target, options)
    checked(before, stop)
    plan = hold_back(target, layout.plan_repair(before, consents), consents)
    outcome = Outcome(target.paths, target.layout, before, plan=plan)
    if plan.plan:
        outcome.rehearsal = rehearse(before, plan, consents, options)
        outcome.plan = plan = outcome.rehearsal.plan
        refuse_worse(
            before,
            outcome.rehearsal.evidence,
            "repair",
            hint="nothing was written; zoned dump --binary makes a report of the metadata",
        )
    announce(outcome)
    if repair.dry_run:
        return outcome
    steps, devices = below_derived(target, plan.plan)
    outcome.carried = carry_out(
        steps,
        devices,
        undo=repair.undo,
        no_undo=repair.no_undo,
        identity_after=identity_of(outcome.rehearsal.evidence.target.devices) if outcome.rehearsal else "",
        saved=saved,
    )
    if outcome.carried:
        outcome.repaired = mended(before.findings)
        outcome.evidence = layout.check(target, options)
        complete(outcome.evidence, options)
    return outcome


def check_paths(
    paths: Sequence[str],
    request: CheckRequest,
    repair: RepairRequest | None = None,
    *,
    start_sector: int | None = None,
    layout: str | None = None,
    only_own: bool = False,
    mapfiles: Sequence[str] = (),
    by_content: bool = False,
    announce: Callable[[Outcome], None] = _ignore,
    saved: Callable[[Carried], None] = _ignore,
) -> Iterator[Outcome]:
    """Check, or repair, every target on the named devices; a bad one does not hide the others; in the order given.

    A single device that cannot be opened raises; of several it is one of the outcomes.

    Args:
        only_own: refuse devices on which another layout than ``layout`` is recognised; repairs always do.

    Raises:
        UsageError: an impossible request, found before anything is written.
    """
    writable = repair is not None and not repair.dry_run
    with opened_targets(
        paths,
        start_sector,
        layout,
        writable=writable,
        only_own=only_own or repair is not None,
        mapfiles=mapfiles,
        mends=repair is not None and repair.copies,
        by_content=by_content,
    ) as opened:
        if opened.failed and len(paths) == 1:
            raise opened.failed[0].error
        if repair is not None and repair.undo is not None and len(opened.targets) > 1:
            raise UsageError("--undo saves one target at a time", hint="repair each target on its own")
        for target in opened.targets:
            refuse_unknown(registry.of(target), request, repair)
        for found in opened.in_order(paths):
            if isinstance(found, Failure):
                yield Outcome(found.paths, found.layout, error=found.error)
                continue
            try:
                if repair is None:
                    yield check_target(found, request)
                else:
                    yield repair_target(found, request, repair, announce=announce, saved=saved)
            except ZonedError as error:
                yield Outcome(found.paths, found.layout, error=error)


def refuse_unknown(layout: AnyLayout, request: CheckRequest, repair: RepairRequest | None) -> None:
    """Refuse what a layout does not know, before a target is touched.

    Raises:
        UsageError: an unknown setting or code, or an impossible value.
    """
    options = request.options(layout)
    if repair is not None:
        consents_of(layout, repair.allow, options)
