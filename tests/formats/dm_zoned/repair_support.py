"""What the tests of repair share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import (
    BLOCK,
    check_target,
    corruptions,
    drive,
    facts,
    patch,
)
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import Plan, apply_plan, verify_plan
from zoned_tools.engine.rehearsing import MAX_ROUNDS
from zoned_tools.formats.contract import CheckOptions, Consent, Consents, Journey, RepairPlan, Settings, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.check import check
from zoned_tools.formats.dm_zoned.format import FormatOptions, format_target
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair
from zoned_tools.formats.dm_zoned.rules import RULES

CORRUPTIONS = corruptions()
UNUSABLE = {"both-bad", "version-3"}
NAMES_OF_CORRUPTIONS = [f"{base}-{variant['id']}" for base, variant in CORRUPTIONS]
CONSENT = frozenset(code for code, rule in RULES.items() if rule.can_wait) - {"zone-unmapped-not-empty"}
"""Everything but giving written zones up."""


def variant_of(identifier: str, base: str = "hm64x1") -> dict[str, Any]:
    return next(v for b, v in CORRUPTIONS if b == base and v["id"] == identifier)


def decision_of(variant: dict[str, Any]) -> dict[str, Any]:
    """What a user has to decide, and no --allow does."""
    decisions = {"log-uncommitted": {"use_set": "0"}, "zone-buffered-reset": {"reclaim": "clear"}}
    return decisions.get(variant["id"], {})


def settings_of(given: dict[str, str]) -> Settings:
    return LAYOUT.parse_settings(given, Journey.CHECK, Journey.REPAIR)


def plan_of(target: Target, allow: frozenset[str] = frozenset(), **given: str) -> RepairPlan:
    chosen = settings_of({name.replace("_", "-"): value for name, value in given.items()})
    return plan_repair(check(target, CheckOptions(settings=chosen)), Consents(allow, chosen))


def repair(target: Target, allow: frozenset[str] = frozenset(), **given: str) -> RepairPlan:
    plan = plan_of(target, allow, **given)
    apply_plan(target.devices, plan.plan.steps)
    verify_plan(target.devices, plan.plan)
    return plan


def repair_all(target: Target, allow: frozenset[str] = frozenset(), **given: str) -> RepairPlan:
    """Repair until nothing more is to be done, as the engine rehearses it; what was done in all, and what waits."""
    whole = repair(target, allow, **given)
    for _ in range(MAX_ROUNDS):
        plan = repair(target, allow, **given)
        whole.actions = [action for action in whole.actions if not action.waits] + plan.actions
        if not plan.plan:
            return whole
    raise AssertionError("no end of repairs")


def sentences(plan: RepairPlan) -> list[str]:
    return [sentence for action in plan.actions for sentence in action.sentences()]


def done(plan: RepairPlan) -> list[str]:
    """Sentences about what is carried out."""
    return [sentence for action in plan.actions if not action.waits for sentence in action.sentences()]


def waiting(plan: RepairPlan) -> dict[str, Consent]:
    """Codes that wait, and what they ask."""
    return {action.id.split(".", 1)[1]: action.consent for action in plan.waiting}


def errors_of(target: Target) -> list[str]:
    return [f.code for f in check_target(target).findings if f.severity == "error"]


def tables(target: Target) -> list[bytes]:
    """Mapping table and bitmaps of both sets: with the unchanged data zones, the whole content."""
    state = check_target(target).state
    assert state.layout is not None
    count = state.layout.nr_meta_blocks - 1
    return [state.blocks.read(state.layout.map_block(number), count) for number in (0, 1)]


def clean_sha256(base: str) -> str:
    return str(facts(base)["images"]["clean"]["logical_sha256"])


def superblocks(target: Target) -> list[SuperBlock]:
    state = check_target(target).state
    return [s.superblock for s in (*state.sets, *state.tertiary) if s.superblock is not None]


def cuts(old: Target, plan: Plan, choose: random.Random) -> Any:
    """Targets as a power cut during ``plan`` may leave them."""
    log: list[Any] = []
    recorders = [Recorder(Overlay(device), log, number) for number, device in enumerate(old.devices)]
    apply_plan(recorders, plan.steps)
    for cut in range(len(log) + 1):
        for survives in (lambda i: True, lambda i: False, lambda i: choose.random() < 0.5, lambda i: i % 2 == 0):
            devices: list[Device] = [Overlay(device) for device in old.devices]
            replay_cut(devices, log, cut, survives)
            yield cut, Target("dm-zoned", tuple(devices))


def overlay_with(base: Device, table: Any) -> Device:
    view = Overlay(base)
    view.machine.table[:] = table
    return view


ZONES, CONVENTIONAL, ZONE_BLOCKS = 24, 6, 64
NR_CHUNKS = ZONES - 2 - 2
ids = st.one_of(st.just(0xFFFFFFFF), st.integers(0, ZONES - 1), st.sampled_from([ZONES, 0xFFFFFFFE]))


def damaged_target(table: list[tuple[int, int]], bits: list[set[int]], written: list[int]) -> Target:
    """A small target whose both sets have this mapping table and these bitmaps."""
    target = Target("dm-zoned", (drive(ZONES, CONVENTIONAL, ZONE_BLOCKS * BLOCK),))
    result = format_target(target, FormatOptions(2, "damage"))
    apply_plan(target.devices, result.plan.steps)
    for zone in range(CONVENTIONAL, ZONES):
        if written[zone]:
            data = b"".join(bytes([zone, block]) * (BLOCK // 2) for block in range(written[zone]))
            target.device.write(zone * ZONE_BLOCKS * BLOCK, data)
    for number in (0, 1):
        patch(target.device, result.layout.map_block(number) * BLOCK, np.array(table, "<u4").tobytes())
        raw = b"".join(sum(1 << b for b in zone).to_bytes(BLOCK, "little") for zone in bits)
        target.device.write(result.layout.bitmap_block(number) * BLOCK, raw)
    return target
