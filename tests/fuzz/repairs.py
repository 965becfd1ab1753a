"""Repairs: of what is certain, with consent to everything or to one code, and ended by a power cut."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tests.fuzz.session import use
from zoned_tools.device.overlay import LogEntry, Recorder
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.undo import UndoFile
from zoned_tools.engine.checking import gather
from zoned_tools.engine.crash import Cut, Loss, cut_positions, explore, split_writes
from zoned_tools.engine.repairing import RepairRequest, repair_target
from zoned_tools.engine.undoing import Playback
from zoned_tools.errors import RefusedError, ZonedError
from zoned_tools.formats.contract import Severity

if TYPE_CHECKING:
    from tests.fuzz.engine import Result, Run
    from zoned_tools.device.base import Device
    from zoned_tools.engine.checking import Outcome
    from zoned_tools.engine.rehearsing import Difference
    from zoned_tools.formats.contract import Evidence, RepairPlan, Target

CUTS = 3
"""Power cuts of one repair."""


def repair(run: Run, result: Result) -> None:
    """What is certain."""
    _repair(run, "repair", frozenset(), result)


def consent(run: Run, result: Result) -> None:
    """With every code allowed."""
    _repair(run, "consent", _everything(run), result)


def one(run: Run, result: Result) -> None:
    """With one of the codes that wait allowed."""
    codes = sorted({action.id.split(".", 1)[1] for action in run.plan.waiting}) if run.plan is not None else []
    if codes:
        _repair(run, "one", frozenset({random.Random(run.given.seed).choice(codes)}), result)


def _everything(run: Run) -> frozenset[str]:
    return frozenset(code for code, rule in run.layout.rules().items() if rule.can_wait)


def _repair(run: Run, journey: str, allow: frozenset[str], result: Result) -> None:
    if run.plan is None or not (run.plan.plan or (allow and run.plan.waiting)):
        return
    target = run.view()
    request = RepairRequest(allow=allow, no_undo=True)
    outcome = run.watch.call(journey, lambda: repair_target(target, run.request, request))
    if outcome is None:
        if run.watch.error is not None:
            _stopped(run, journey, run.watch.error, result)
    elif outcome.changed:
        _repaired(run, journey, allow, target, outcome)


def _stopped(run: Run, journey: str, error: ZonedError, result: Result) -> None:
    """A repair that ends with an error; refusing before the first write is right where a zone is dead."""
    if not isinstance(error, RefusedError):
        run.watch.fail(journey, "repair fails", codes_of(result.codes), error.message)
    elif "rehearsed" in error.message:
        run.watch.fail(journey, "worse", codes_of(result.codes), error.message)


def _repaired(run: Run, journey: str, allow: frozenset[str], target: Target, outcome: Outcome) -> None:
    fail, rehearsal = run.watch.fail, outcome.rehearsal
    assert rehearsal is not None
    second = run.watch.call(f"second {journey}", lambda: _second(run, target, allow))
    if second is None:
        fail(journey, "unchecked afterwards", _actions_of(rehearsal.plan), str(run.watch.error or ""))
        return
    evidence, plan = second
    if plan.plan:
        fail(journey, "second repair", _actions_of(plan))
    if evidence.findings.codes != rehearsal.evidence.findings.codes:
        fail(journey, "rehearsal differs", codes_of(evidence.findings.codes ^ rehearsal.evidence.findings.codes))
    assert run.plan is not None
    waited = {action.id for action in run.plan.waiting}
    gone = waited - {action.id for action in plan.waiting}
    if gone and not allow:  # what is allowed can take the object of another action away
        fail(journey, "waits no more", codes_of(gone))
    left = {action.id for action in plan.waiting if action.id.split(".", 1)[1] in allow and not action.needs}
    if left:
        fail(journey, "waits although allowed", codes_of(left))
    _compare(run, journey, target, rehearsal.difference, rehearsal.plan, certain=not allow)
    if allow and not evidence.has_errors and run.given.seed % 4 == 0:
        use(run, f"session after {journey}", target, clean=True)


def _second(run: Run, target: Target, allow: frozenset[str]) -> tuple[Evidence, RepairPlan]:
    evidence, _ = gather(target, run.options)
    return evidence, run.layout.plan_repair(evidence, run.consents(allow))


def _compare(
    run: Run, journey: str, target: Target, difference: Difference | None, plan: RepairPlan, *, certain: bool
) -> None:
    """Content differs only where the rehearsal or an action said so."""
    if not certain and difference is None:
        return
    differing = run.differing(f"content after {journey}", target)
    said = [(start, count) for start, count, _ in difference.ranges] if difference is not None else []
    named = said + _named(plan)
    unsaid = [p for p in differing if not any(isinstance(p, int) and s <= p < s + n for s, n in named)]
    whole = any(action.id.split(".", 1)[1] in run.subject.everywhere for action in plan.actions if not action.waits)
    if unsaid and not whole:
        run.watch.fail(journey, "content", _actions_of(plan), f"at {unsaid[:4]} of {len(unsaid)}")


def _named(plan: RepairPlan) -> list[tuple[int, int]]:
    """``(first block, blocks)`` of what the actions name; some layouts change what a block means at its place."""
    found = []
    for action in plan.actions:
        places = action.rows.places
        if not action.waits and "block" in places and "blocks" in places:
            found += [(int(b), int(n)) for b, n in zip(_ints(places["block"]), _ints(places["blocks"]), strict=True)]
    return found


def _ints(column: Iterable[object]) -> list[int]:
    return [int(str(value)) for value in column]


# -- undo


def undo(run: Run, result: Result) -> None:
    """What a repair overwrote comes back: the same findings, the same content."""
    if run.plan is None or not (run.plan.plan or run.plan.waiting):
        return
    target = run.view()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "undo")
        request = RepairRequest(allow=_everything(run), undo=path)
        outcome = run.watch.call("repair with undo", lambda: repair_target(target, run.request, request))
        if outcome is None or not outcome.changed:
            return
        run.watch.call("undo", lambda: _play_back(path, target))
    if run.watch.error is not None:
        run.watch.fail("undo", "fails", codes_of(result.codes), run.watch.error.message)
        return
    checked = run.watch.call("check after undo", lambda: gather(target, run.options))
    codes = frozenset(checked[0].findings.codes) if checked is not None else frozenset[str]()
    if codes != result.codes:
        run.watch.fail("undo", "other findings", codes_of(codes ^ result.codes))
    differing = run.differing("content after undo", target)
    if differing:
        run.watch.fail("undo", "content", codes_of(result.codes), f"at {differing[:4]}")


def _play_back(path: str, target: Target) -> None:
    drives = [device._device if isinstance(device, PartitionView) else device for device in target.devices]
    with UndoFile(path) as saved:
        Playback(saved, saved.views(drives)).run()


# -- power cuts


def cut(run: Run, result: Result) -> None:
    """A repair that a power cut ends anywhere can be finished, to what it would have come to."""
    if run.plan is None or not (run.plan.plan or run.plan.waiting):
        return
    choose = random.Random(run.given.seed)
    allow = choose.choice((frozenset[str](), _everything(run)))
    whole = run.view()
    done = run.watch.call("cut", lambda: repair_target(whole, run.request, RepairRequest(allow=allow, no_undo=True)))
    if done is None or not done.changed or done.rehearsal is None or done.evidence is None:
        return
    log: list[tuple[int, LogEntry]] = []
    base = run.view()
    recorders = tuple(Recorder(device, log, number) for number, device in enumerate(run.view().devices))
    steps = done.rehearsal.plan.plan.steps
    run.watch.call("cut", lambda: apply_plan(recorders, steps))
    pieces = split_writes(log)
    cuts = [
        Cut(position, choose.choice((Loss.NONE, Loss.ALL, Loss.SOME, Loss.SOME)), choose.getrandbits(20))
        for position in cut_positions(pieces, sample=CUTS, seed=run.given.seed)
    ]

    def finish(devices: list[Device], at: Cut) -> None:
        _finish(run, replace(base, devices=tuple(devices)), at, allow, done)

    explore(base.devices, pieces, cuts, finish)


def _finish(run: Run, target: Target, at: Cut, allow: frozenset[str], done: Outcome) -> None:
    """Repair what a power cut left."""
    place = f"cut at {at.position}, {at.loss} of the rest lost"
    request = RepairRequest(allow=allow, no_undo=True)
    outcome = run.watch.call("repair after cut", partial(repair_target, target, run.request, request))
    assert done.evidence is not None
    assert done.rehearsal is not None
    actions = _actions_of(done.rehearsal.plan)
    if outcome is None or outcome.evidence is None:
        run.watch.fail("cut", "cannot be finished", actions, f"{place}: {run.watch.error}")
        return
    errors = outcome.evidence.findings.count(Severity.ERROR), done.evidence.findings.count(Severity.ERROR)
    if errors[0] > errors[1]:
        new = outcome.evidence.findings.codes - done.evidence.findings.codes
        run.watch.fail("cut", "more errors", codes_of(new), f"{errors[0]} instead of {errors[1]}, {place}")
    elif not allow:  # what cannot be finished cannot be read either
        _compare(run, "cut", target, done.rehearsal.difference, done.rehearsal.plan, certain=True)


# -- words


def codes_of(codes: Iterable[str]) -> str:
    """Codes in one order."""
    return " ".join(sorted(codes)) or "nothing"


def _actions_of(plan: RepairPlan) -> str:
    return codes_of({action.id for action in plan.actions if not action.waits})
