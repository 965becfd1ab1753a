"""Emptied chunks lose their zones, buffers are merged; the content stays, whenever the power fails."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import TARGETS
from tests.formats.dm_zoned.images import NAMES, Images, check_target, logical_sha256
from tests.formats.dm_zoned.mapper_support import fill, opened
from tests.formats.dm_zoned.reshape_support import carried_out, content, cuts, is_sound, random_single, used
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import Consents, Target
from zoned_tools.formats.dm_zoned.figures import usage_of
from zoned_tools.formats.dm_zoned.free import plan_free
from zoned_tools.formats.dm_zoned.geometry import ZoneKind
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair

POPULATED = tuple(name for name in NAMES if name != "hm6x256")
"""Reading all of the other one takes too long."""

Planner = Callable[[list[Device]], Plan]


def target_of(devices: list[Device]) -> Target:
    return Target("dm-zoned", tuple(devices))


def plan(compact: bool) -> Planner:
    return lambda devices: plan_free(target_of(devices), compact=compact).plan


def plan_again(compact: bool) -> Planner:
    """A cut in a commit leaves sets of different generations, which are brought together first."""

    def make(devices: list[Device]) -> Plan:
        apply_plan(devices, plan_repair(check_target(target_of(devices)), Consents()).plan.steps)
        return plan_free(target_of(devices), compact=compact).plan

    return make


def test_the_public_target(images: Images) -> None:
    target = images.target("hm64x1")
    before = logical_sha256(target)
    freed = plan_free(target)
    assert (freed.chunks, freed.zones_reset) == ([2, 19], [17, 34])
    views = [Overlay(device) for device in target.devices]
    apply_to_overlays(views, freed.plan.steps)
    after = check_target(target_of(list(views)))
    assert not len(after.findings)
    assert usage_of(after.chosen).kinds[ZoneKind.SEQUENTIAL].free == 31
    assert logical_sha256(target_of(list(views))) == before


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("name", POPULATED)
def test_content_stays(images: Images, name: str, compact: bool) -> None:
    target = images.target(name)
    before = logical_sha256(target)
    devices, _ = carried_out(target.devices, plan(compact))
    assert is_sound(devices)
    assert logical_sha256(target_of(devices)) == before
    usage = usage_of(check_target(target_of(devices)).chosen)
    assert not len(usage.empty)
    if compact:
        assert usage.buffered == 0
        assert usage.kinds[ZoneKind.RANDOM].chunks == usage.kinds[ZoneKind.CACHE].chunks == 0
    assert not plan_free(target_of(devices), compact=compact).plan, "nothing is left to do"


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_power_cuts(name: str, compact: bool) -> None:
    chance = random.Random(f"free {name} {compact}")
    done = 0
    for _ in range(2):
        base = used(TARGETS[name](), chance, 40)
        before = content(*base)
        _, log = carried_out(base, plan(compact))
        for point, devices in cuts(base, log, chance, most=60):
            assert is_sound(devices), point
            assert content(*devices) == before, point
            again, _ = carried_out(devices, plan_again(compact))
            assert content(*again) == before, point
            assert is_sound(again), point
            done += 1
    assert done > (60 if compact else 10)


@pytest.mark.parametrize("seed", range(12))
def test_random_targets(seed: int) -> None:
    chance = random.Random(f"free {seed}")
    base = random_single(chance)
    before = content(*base)
    devices, _ = carried_out(base, plan(compact=bool(seed % 2)))
    assert is_sound(devices)
    assert content(*devices) == before


def test_nothing_to_do_writes_nothing(images: Images) -> None:
    assert not plan_free(images.target("triple")).plan


def test_a_damaged_target_is_refused(images: Images) -> None:
    target = images.target("hm64x1")
    target.device.write(4096, np.full(1024, 0x7FFFFFFF, "<u4").tobytes())
    with pytest.raises(RefusedError):
        plan_free(target)


def test_without_a_free_zone_chunks_stay(images: Images) -> None:
    """Moving out of random zones leaves the reserve alone."""
    chance = random.Random("full")
    base = used(TARGETS["single"](), chance, 0)
    mapper = opened(base)
    fill(mapper, 5)
    mapper.close()
    before = usage_of(check_target(target_of(base)).chosen)
    assert before.kinds[ZoneKind.SEQUENTIAL].free == 0
    assert before.reserved
    freed = plan_free(target_of(base), compact=True)
    after = [Overlay(device) for device in base]
    apply_to_overlays(after, freed.plan.steps)
    usage = usage_of(check_target(target_of(list(after))).chosen)
    assert usage.reserved == before.reserved
    assert freed.left
    assert content(*after) == content(*base)
