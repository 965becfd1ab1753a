"""Sets of different generations are brought together before a start, and nothing else is touched."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.formats.dm_zoned.crash_model import TARGETS, CutSeries, aged, error_findings, run_workload, split_writes
from tests.formats.dm_zoned.images import BLOCK, Images, check_target, logical_sha256, patch
from tests.formats.dm_zoned.reshape_support import carried_out, content, cuts
from tests.formats.dm_zoned.test_crash_cuts import losing
from zoned_tools.device.base import Device
from zoned_tools.device.plan import Plan
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.sync import only_needs_sync, plan_sync


def sync(devices: list[Device]) -> Plan:
    return plan_sync(Target("dm-zoned", tuple(devices)))


@pytest.mark.parametrize("name", TARGETS)
def test_after_power_cuts_of_our_mapper(name: str) -> None:
    chance = random.Random(f"sync {name}")
    base = aged(TARGETS[name](), chance, 20)
    log, _ = run_workload(base, chance, 25)
    pieces, _ = split_writes(log)
    series, found = CutSeries(base, pieces), 0
    for point in range(len(pieces) + 1):
        if point % 5 and found > 10:
            continue
        devices = series.cut(point, losing(chance))
        evidence = check_target(Target("dm-zoned", tuple(devices)))
        if not only_needs_sync(evidence):
            assert "sets-gen-differ" not in evidence.findings.codes, point
            continue
        found += 1
        before = content(*devices)
        synced, sync_log = carried_out(devices, sync)
        after = check_target(Target("dm-zoned", tuple(synced)))
        assert after.equal
        assert after.state.superblock.gen == evidence.state.superblock.gen
        assert content(*synced) == before, point
        if found % 4 == 1:
            for second, cut in cuts(devices, sync_log, chance, most=8):
                assert error_findings(cut) == [], (point, second)
                assert content(*cut) == before, (point, second)
        if found > 20:
            break
    assert found > 3


def test_only_that_is_done(images: Images) -> None:
    target = images.target("hm64x1")
    older = SuperBlock.parse(target.device.read(256 * BLOCK, BLOCK))
    patch(target.device, 256 * BLOCK, replace(older, gen=22).pack())
    assert only_needs_sync(check_target(target))
    before = logical_sha256(target)
    plan = plan_sync(target)
    assert [step.describe() for step in plan.steps] == ["flush", "write 4096 bytes at 1048576", "flush"]
    patch(target.device, BLOCK, b"\x7f\xff\xff\xff" * 2)
    assert not only_needs_sync(check_target(target))
    assert logical_sha256(images.target("hm64x1")) == before


def test_sets_of_one_generation_need_none(images: Images) -> None:
    assert not only_needs_sync(check_target(images.target("hm64x1")))
    assert not plan_sync(images.target("dual")).steps
