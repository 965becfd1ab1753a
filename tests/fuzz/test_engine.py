"""The fuzzer itself: broken properties are seen, inputs are data, mutation lists become short."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import engine
from tests.fuzz.inputs import Input, generate
from tests.fuzz.mutations import Mutation, minimise
from tests.fuzz.subjects import LAYOUTS, subject
from zoned_tools.formats import registry
from zoned_tools.formats.shared.mapper import MapperBase

if TYPE_CHECKING:
    from zoned_tools.formats.contract import AnyLayout, Consents, Evidence, RepairPlan, Target

TORN_SET = Input("dm-zoned", "hm64x1-clean", [["flip", 0, 44, 0]], ("repair", "session"))
"""One damaged super block: something certain to repair."""


def kinds(given: Input) -> set[str]:
    return {failure.kind for failure in engine.run(given).failures}


def use_layout(monkeypatch: pytest.MonkeyPatch, changed: AnyLayout) -> None:
    monkeypatch.setattr(registry, "get", lambda name: changed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_undamaged_image_has_no_failure(layout: str) -> None:
    name = next(iter(subject(layout).bases))
    result = engine.run(Input(layout, name))
    assert not result.failures
    assert result.checked


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_data_and_always_the_same(layout: str) -> None:
    for number in range(20):
        given = generate(layout, 1, number)
        assert given == generate(layout, 1, number)
        assert Input.loads(given.dumps()) == given


def test_other_exceptions_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def inspect(target: Target) -> dict[str, object]:
        raise IndexError("a bug")

    use_layout(monkeypatch, replace(registry.get("dm-zoned"), inspect=inspect))
    (failure,) = engine.run(replace(TORN_SET, journeys=("rooms",))).failures
    assert failure.kind == "exception"
    assert failure.where.startswith("IndexError")


def test_a_repair_that_is_never_done_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = registry.get("dm-zoned")

    def plan_repair(evidence: Evidence, consents: Consents) -> RepairPlan:
        plan = layout.plan_repair(evidence, consents)
        plan.plan.flush(0)
        return plan

    use_layout(monkeypatch, replace(layout, plan_repair=plan_repair))
    assert "second repair" in kinds(TORN_SET)


def test_a_repair_that_destroys_content_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = registry.get("dm-zoned")

    def plan_repair(evidence: Evidence, consents: Consents) -> RepairPlan:
        plan = layout.plan_repair(evidence, consents)
        if plan.plan:
            for zone in range(3, 8):
                plan.plan.write(0, zone << 20, bytes(1 << 20))
        return plan

    use_layout(monkeypatch, replace(layout, plan_repair=plan_repair))
    assert "content" in kinds(TORN_SET)


def test_a_refused_repair_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = registry.get("dm-zoned")

    def plan_repair(evidence: Evidence, consents: Consents) -> RepairPlan:
        plan = layout.plan_repair(evidence, consents)
        plan.plan.write(0, 2 << 20, bytes(64 << 10))
        return plan

    use_layout(monkeypatch, replace(layout, plan_repair=plan_repair))
    assert {"worse", "second repair"} & kinds(TORN_SET)


def test_a_mapper_that_loses_writes_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MapperBase, "write", lambda self, block, data, stream=0: None)
    inputs = [Input("dm-zoned", "hm64x1-clean", [], ("session",), seed) for seed in range(4)]
    assert {"reads back"} == set().union(*(kinds(given) for given in inputs))


def test_mutation_lists_become_short() -> None:
    many: list[Mutation] = [["flip", 0, offset, 1] for offset in range(9)] + [["fill", 0, 0, 4096, 255]]
    wanted = many[4]

    def fails(mutations: list[Mutation]) -> bool:
        return wanted in mutations and any(m[0] == "fill" and m[3] >= 64 for m in mutations)

    assert minimise(many, fails) == [wanted, ["fill", 0, 0, 64, 255]]
