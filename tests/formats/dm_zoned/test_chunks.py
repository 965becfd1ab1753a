"""Chunks that the super blocks have forgotten come back where the user says how many there are."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.formats.dm_zoned.crash_model import error_findings
from tests.formats.dm_zoned.images import Images, check_target, corrupted, logical_content
from tests.formats.dm_zoned.repair_support import variant_of
from tests.formats.dm_zoned.reshape_support import carried_out, cuts
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import Plan
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Consents, Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair


def forgotten(images: Images) -> Target:
    """Both super blocks say 54 chunks; there are 55, and the last one holds data."""
    return corrupted(images, "hm64x1", variant_of("chunks-minus-1"))


def repaired(number: int) -> Callable[[list[Device]], Plan]:
    settings = LAYOUT.parse_settings({"chunks": str(number)}, Journey.CHECK, Journey.REPAIR)

    def make(devices: list[Device]) -> Plan:
        evidence = check_target(Target("dm-zoned", tuple(devices)), chunks=str(number))
        planned = plan_repair(evidence, Consents(settings=settings))
        assert not planned.waiting
        return planned.plan

    return make


def test_nothing_is_lost(images: Images) -> None:
    target = forgotten(images)
    wanted = logical_content(images.target("hm64x1"))
    assert logical_content(target) != wanted
    devices, log = carried_out(target.devices, repaired(55))
    evidence = check_target(Target("dm-zoned", tuple(devices)))
    assert not len(evidence.findings)
    assert evidence.facts["chunks"] == 55
    assert logical_content(Target("dm-zoned", tuple(devices))) == wanted
    for point, cut in cuts(target.devices, log, random.Random(1), most=20):
        again, _ = carried_out(cut, repaired(55))
        assert error_findings(again) == [], point
        assert logical_content(Target("dm-zoned", tuple(again))) == wanted, point


def test_the_plan_says_so(images: Images) -> None:
    settings = LAYOUT.parse_settings({"chunks": "55"}, Journey.REPAIR)
    plan = plan_repair(check_target(forgotten(images), chunks="55"), Consents(settings=settings))
    (action,) = [action for action in plan.actions if action.id == "dm-zoned.map-tail"]
    assert list(action.sentences()) == ["the target gets 55 chunks instead of 54"]


@pytest.mark.parametrize("number", [1, 53, 56, 512, 100000])
def test_what_does_not_fit_is_refused(images: Images, number: int) -> None:
    with pytest.raises(UsageError, match="the target has 54 chunks, and can have up to 55"):
        check_target(forgotten(images), chunks=str(number))


def test_without_it_the_entry_waits(images: Images) -> None:
    plan = plan_repair(check_target(forgotten(images)), Consents())
    assert "dm-zoned.map-tail" in {action.id for action in plan.waiting}


def test_several_devices(images: Images) -> None:
    """Members have counts of their own, which stay."""
    target = images.target("dual")
    evidence = check_target(target)
    chunks = evidence.facts["chunks"]
    assert check_target(Target("dm-zoned", tuple(Overlay(d) for d in target.devices)), chunks=str(chunks)).equal
