"""What holds for the plan of any damage: the fuzzer's corpus, and some fresh inputs of it.

``ZONED_FUZZ_INPUTS`` and ``ZONED_FUZZ_SEED`` ask for others.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.fuzz.corpus import files
from tests.fuzz.engine import Run
from tests.fuzz.inputs import Input, generate
from zoned_tools.engine.checking import gather
from zoned_tools.engine.rehearsing import rehearse
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Consent, Evidence, RepairPlan
from zoned_tools.formats.inplace_compress.rules import RULES
from zoned_tools.formats.shared.rules import ActionGroup

LAYOUT = "inplace-compress"
FRESH = int(os.environ.get("ZONED_FUZZ_INPUTS", "120"))
SEED = int(os.environ.get("ZONED_FUZZ_SEED", "1"))
PARTS = 8
ASKING = frozenset(code for code, rule in RULES.items() if rule.can_wait)


def inputs() -> list[Input]:
    return [Input.of_file(path) for path in files(LAYOUT)] + [generate(LAYOUT, SEED, n) for n in range(FRESH)]


def prepared(given: Input) -> tuple[Run, Evidence] | None:
    """An input and what a check finds; None where its settings contradict each other."""
    run = Run(given)
    run._find()
    try:
        evidence, _ = gather(run.view(), run.options)
    except UsageError:
        return None
    return run, evidence


def rows_of(plan: RepairPlan, *, waits: bool) -> Counter[tuple[object, ...]]:
    """Code, consent, first block and blocks of each action."""
    found: Counter[tuple[object, ...]] = Counter()
    for action in plan.actions:
        if action.waits == waits:
            found.update((action.id.split(".")[1], action.consent, *place) for place in places_of(action))
    return found


def places_of(action: ActionGroup) -> list[tuple[int, int]]:
    places = action.rows.places
    if "block" not in places or "blocks" not in places:
        return [(-1, -1)] * len(action)
    return [(int(str(b)), int(str(n))) for b, n in zip(places["block"], places["blocks"], strict=True)]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_code_agrees_to_what_waits_for_it_and_to_nothing_else(part: int) -> None:
    seen: set[object] = set()
    for given in inputs()[part::PARTS]:
        found = prepared(given)
        if found is None:
            continue
        run, evidence = found
        without = run.layout.plan_repair(evidence, run.consents(frozenset()))
        waiting, certain = rows_of(without, waits=True), rows_of(without, waits=False)
        assert all(action.option == f"--allow {action.id}" for action in without.waiting)
        for code in ASKING:
            plan = run.layout.plan_repair(evidence, run.consents(frozenset({code})))
            listed = Counter({row: number for row, number in waiting.items() if row[0] == code})
            done = rows_of(plan, waits=False)
            assert not (certain + listed) - done, (code, given.dumps())
            more = done - (certain + listed)
            # room that an extent leaves lets others be repaired without asking, or as relink=yes agrees to
            unasked = {row for row in more if row[0] == code or row[1] is not Consent.CERTAIN}
            assert not unasked or (code not in {row[0] for row in more} and "relink" in given.settings), given.dumps()
            if listed:
                seen.add(code)
            else:
                assert plan.plan.steps == without.plan.steps, (code, given.dumps())
    assert seen


@pytest.mark.parametrize("part", range(PARTS))
def test_a_plan_leaves_nothing_for_a_second_one(part: int) -> None:
    rounds: Counter[int] = Counter()
    for given in inputs()[part::PARTS]:
        found = prepared(given)
        if found is None:
            continue
        run, evidence = found
        for allow in (frozenset[str](), ASKING):
            consents = run.consents(allow)
            plan = run.layout.plan_repair(evidence, consents)
            if not plan.plan:
                continue
            rehearsal = rehearse(evidence, plan, consents, run.options)
            assert rehearsal.rounds == 1, given.dumps()
            assert rows_of(rehearsal.plan, waits=True) == rows_of(plan, waits=True), given.dumps()
            rounds[rehearsal.rounds] += 1
    assert rounds[1] > 0
