"""Repair: clean afterwards, nothing lost without a word, and every power cut can be finished."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import (
    BLOCK,
    MIB,
    Images,
    check_target,
    corrupted,
    drive,
    logical_content,
    logical_sha256,
    patch,
    regular,
)
from tests.formats.dm_zoned.repair_support import (
    CONSENT,
    CORRUPTIONS,
    NAMES_OF_CORRUPTIONS,
    NR_CHUNKS,
    UNUSABLE,
    ZONE_BLOCKS,
    ZONES,
    clean_sha256,
    cuts,
    damaged_target,
    decision_of,
    errors_of,
    ids,
    overlay_with,
    plan_of,
    repair,
    repair_all,
    sentences,
    settings_of,
    superblocks,
    tables,
    variant_of,
    waiting,
)
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan, verify_plan
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.errors import RefusedError, UsageError
from zoned_tools.formats.contract import Consent, Consents, Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.format import FormatOptions, format_target
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.relabel import plan_relabel
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair
from zoned_tools.formats.dm_zoned.rules import RULES


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=NAMES_OF_CORRUPTIONS)
def test_published_corruption(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    if variant["id"] in UNUSABLE:
        with pytest.raises(NoValidSuperBlockError):
            repair(target)
        return
    before = images.target(base)
    repair(target, CONSENT, **decision_of(variant))
    report = check_target(target)
    assert not report.has_errors
    assert {f.code for f in report.findings} <= {"sb-short-chunks", "zone-unmapped-not-empty"}
    assert not plan_of(target, CONSENT).plan
    kept = [(sb.version, sb.label_raw, sb.dmz_uuid) for sb in superblocks(before)]
    assert [(sb.version, sb.label_raw, sb.dmz_uuid) for sb in superblocks(target)] == kept
    wanted = variant.get("recoverable_sha256") or variant.get("content_sha256")
    # What reads differently on purpose: a reset data zone is filled from its buffer zone, a
    # shared zone is left to one chunk.
    if wanted and not variant["id"].startswith(("map-dup-", "map-cross", "zone-buffered-reset")):
        assert logical_sha256(target) == wanted
    elif base == "dual":
        assert tables(target) == tables(before)


def test_undamaged_images_need_nothing(images: Images) -> None:
    for name in ("hm64x1", "hm64x4", "triple", "ha32x4", "v1", "v1runt"):
        assert not plan_of(images.target(name)).plan


def test_a_chosen_set_decides_ties_only(images: Images) -> None:
    """What the zones say about a stale set is not overruled by --use-set."""
    variant = variant_of("stale-primary")
    target = corrupted(images, "hm64x1", variant)
    repair(target, use_set="0")
    assert errors_of(target) == []
    assert logical_sha256(target) == variant["recoverable_sha256"]


@pytest.mark.parametrize("chosen", [0, 1])
def test_newer_set_loses_when_the_user_says_so(images: Images, chosen: int) -> None:
    target = corrupted(images, "hm64x1", variant_of("log-committed"))
    expected = logical_content(target, chosen)
    repair(target, use_set=str(chosen))
    assert check_target(target).findings.codes == frozenset()
    assert logical_content(target) == expected


def test_set_that_the_user_vouches_for(images: Images) -> None:
    """Both super blocks are damaged, but all that matters in the first can still be read."""
    target = corrupted(images, "hm64x1", variant_of("both-bad"))
    with pytest.raises(NoValidSuperBlockError, match="--use-set 0"):
        plan_of(target)
    repair(target, use_set="0")
    assert check_target(target).findings.codes == frozenset()
    assert logical_sha256(target) == clean_sha256("hm64x1")


def test_set_that_cannot_be_used(images: Images) -> None:
    with pytest.raises((RefusedError, NoValidSuperBlockError)) as caught:
        plan_of(corrupted(images, "hm64x1", variant_of("sec-zero")), use_set="1")
    assert caught.value.clone_status == 255


def test_reclaim_crash_can_be_cleared_instead(images: Images) -> None:
    variant = variant_of("reclaim-crash")
    target = corrupted(images, "hm64x1", variant)
    repair(target, reclaim="clear")
    assert errors_of(target) == []
    assert logical_sha256(target) == variant["content_sha256"]


def test_overlap_can_go_to_the_buffer_zone(images: Images) -> None:
    variant = variant_of("bits-overlap")
    ours, theirs = corrupted(images, "hm64x1", variant), corrupted(images, "hm64x1", variant)
    repair(ours)
    repair(theirs, overlap="buffer")
    assert errors_of(ours) == errors_of(theirs) == []
    assert logical_sha256(ours) == variant["content_sha256"]
    one, other = logical_content(ours), logical_content(theirs)
    rows = [np.frombuffer(content, np.uint8).reshape(-1, BLOCK) for content in (one, other)]
    differing = np.flatnonzero((rows[0] != rows[1]).any(axis=1)).tolist()
    assert len(differing) <= 2
    assert {b // 256 for b in differing} <= {17}


def test_lost_ranges_are_named(images: Images) -> None:
    plan = plan_of(corrupted(images, "hm64x1", variant_of("zone-mapped-reset")))
    assert any("logical blocks 768 to 1023" in m and "256 valid blocks" in m for m in sentences(plan))


def test_version_1_stays_version_1(images: Images) -> None:
    target = images.target("v1")
    content = logical_sha256(target)
    patch(target.device, MIB, bytes(64))
    repair(target)
    assert check_target(target).findings.codes == frozenset()
    assert [sb.version for sb in superblocks(target)] == [1, 1]
    assert logical_sha256(target) == content


def test_null_uuid_left_by_the_reference_relabel(images: Images) -> None:
    target = images.target("v1")
    for offset in (0, MIB):
        sb = SuperBlock.parse(target.device.read(offset, BLOCK))
        target.device.write(offset, replace(sb, version=2, label_raw=b"dmz-x".ljust(32, b"\0")).pack())
    content = logical_sha256(target)
    plan = repair(target)
    assert check_target(target).findings.codes == frozenset()
    assert any("gets UUID" in m for m in sentences(plan))
    assert {sb.label for sb in superblocks(target)} == {"dmz-x"}
    assert logical_sha256(target) == content


def test_dead_zones_lower_the_reserve(images: Images) -> None:
    base = images.target("hm64x1").device
    table = base.zones()
    table["condition"][[62, 63]] = ZoneCondition.OFFLINE
    target = Target("dm-zoned", (overlay_with(base, table),))
    content = logical_sha256(target)
    excess = (
        "2 zones have died since the format: 55 chunks and a reserve of 7 do not fit any more (room for 60); "
        "the kernel refuses to start until the reserve is lowered to 5"
    )
    found = [f.message.partition(": ")[2] for f in check_target(target).findings if f.code == "sb-bad-chunks"]
    assert found == [excess, excess]
    assert not waiting(repair(target))
    assert errors_of(target) == []
    assert {sb.nr_reserved_seq for sb in superblocks(target)} == {5}
    assert logical_sha256(target) == content
    table["condition"][54:62] = ZoneCondition.OFFLINE
    with pytest.raises(RefusedError, match="too few"):
        plan_of(Target("dm-zoned", (overlay_with(base, table),)))


def test_dead_metadata_zone_is_refused(images: Images) -> None:
    base = corrupted(images, "hm64x1", variant_of("bits-after-wp")).device
    table = base.zones()
    table["condition"][1] = ZoneCondition.READ_ONLY
    with pytest.raises(
        RefusedError, match="zone 1 holds metadata set 1 and is read-only: the target cannot be written"
    ):
        plan_of(Target("dm-zoned", (overlay_with(base, table),)))


def test_written_zone_is_reset_with_consent_only(images: Images) -> None:
    target = corrupted(images, "hm64x1", variant_of("zone-unmapped-written"))
    assert not plan_of(target, CONSENT).plan
    assert waiting(plan_of(target)) == {"zone-unmapped-not-empty": Consent.LOSES}
    repair(target, allow=frozenset({"zone-unmapped-not-empty"}))
    assert check_target(target).findings.codes == frozenset()


def test_unknown_choices(images: Images) -> None:
    with pytest.raises(UsageError, match="no finding 'nonsense'"):
        RULES.agreed(frozenset({"nonsense"}))
    with pytest.raises(UsageError, match="no setting 'x'"):
        settings_of({"x": "y"})
    with pytest.raises(UsageError, match="overlap=both is not possible"):
        settings_of({"overlap": "both"})
    evidence = check_target(images.target("hm64x1"))
    with pytest.raises(UsageError, match="use-set=1 is for the check"):
        plan_repair(evidence, Consents(settings=settings_of({"use-set": "1"})))


# -- members


def test_members_in_the_wrong_order_are_not_rewritten(images: Images) -> None:
    target = images.target("triple")
    swapped = Target("dm-zoned", (target.devices[0], target.devices[2], target.devices[1]))
    with pytest.raises(RefusedError, match="wrong order"):
        plan_of(swapped)


def test_member_of_another_target_is_not_taken_over() -> None:
    def new_target(label: str) -> Target:
        target = Target("dm-zoned", (regular(40 * MIB), drive(16, 0, 4 * MIB)))
        apply_plan(target.devices, format_target(target, FormatOptions(3, label)).plan.steps)
        return target

    mine, other = new_target("mine"), new_target("other")
    mixed = Target("dm-zoned", (mine.devices[0], other.devices[1]))
    plan = plan_of(mixed)
    assert not plan.plan
    assert any("member of another target" in sentence for sentence in sentences(plan))
    assert waiting(plan) == {"sb-uuid-mismatch": Consent.GUESSES}
    repair(mixed, allow=frozenset({"sb-uuid-mismatch"}))
    assert check_target(mixed).findings.codes == frozenset()


def test_foreign_data_in_a_members_first_zone_stays(images: Images) -> None:
    target = images.target("dual")
    strange = drive(24, 0, 4 * MIB)
    strange.write(0, b"payload!" * 4096)
    plan = plan_of(Target("dm-zoned", (target.devices[0], strange)))
    assert not plan.plan
    assert waiting(plan) == {"zones-foreign": Consent.LOSES}
    target.devices[1].manage(ZoneOperation.RESET, 0)
    target.devices[1].write(0, b"payload!" * 4096)
    plan = plan_of(target)
    assert not plan.plan
    assert any("8 blocks of something else" in sentence for sentence in sentences(plan))
    assert waiting(plan) == {"sb-bad-magic": Consent.GUESSES}


def test_damaged_tertiary_keeps_its_device_uuid(images: Images) -> None:
    target = corrupted(images, "dual", variant_of("t-crc", "dual"))
    expected = superblocks(images.target("dual"))[2].dev_uuid
    repair(target)
    assert superblocks(target)[2].dev_uuid == expected


# -- any damage at all

damage = st.tuples(
    st.lists(st.tuples(ids, ids), min_size=NR_CHUNKS, max_size=NR_CHUNKS),
    st.lists(st.sets(st.integers(0, 90), max_size=6), min_size=ZONES, max_size=ZONES),
    st.lists(st.sampled_from([0, 1, 10, 63, 64]), min_size=ZONES, max_size=ZONES),
)


@settings(max_examples=80)
@given(damage)
def test_any_damage_is_repaired(case: tuple[Any, Any, Any]) -> None:
    target = damaged_target(*case)
    before = check_target(target)
    content = logical_content(target)
    repair_all(target, CONSENT, reclaim="clear")
    report = check_target(target)
    assert {f.code for f in report.findings} <= {"zone-unmapped-not-empty"}
    # Chunks that no finding is about read as before.
    table = case[0]
    suspect_zones = {f.where[k] for f in before.findings for k in ("zone", "bzone") if k in f.where}
    suspect_chunks = {f.where["chunk"] for f in before.findings if "chunk" in f.where}
    after = logical_content(target)
    for chunk, zones in enumerate(table):
        if chunk in suspect_chunks or suspect_zones & set(zones):
            continue
        part = slice(chunk * ZONE_BLOCKS * BLOCK, (chunk + 1) * ZONE_BLOCKS * BLOCK)
        assert after[part] == content[part]


@settings(max_examples=60)
@given(damage)
def test_without_consent_what_is_left_is_explained(case: tuple[Any, Any, Any]) -> None:
    target, table = damaged_target(*case), case[0]
    content = logical_content(target)
    plan = repair_all(target, frozenset({"zones-foreign"}))  # random write pointers look like another drive's
    waits = {chunk for action in plan.waiting for chunk in action.rows.places.get("chunk", ())}
    zones = {zone for chunk in waits for zone in table[chunk]}
    chunks = {chunk for chunk, entry in enumerate(table) if zones & set(entry) - {0xFFFFFFFF}}
    zones |= {zone for chunk in chunks for zone in table[chunk]}
    zones |= {zone for action in plan.waiting for zone in action.rows.places.get("zone", ())}
    for found in check_target(target).findings:
        if found.severity != "error" or found.code == "zones-foreign":
            continue
        places = found.where
        shared = places.get("chunks", [])
        assert isinstance(shared, list)
        assert places.get("chunk") in chunks or places.get("zone") in zones or chunks & set(shared), found.message
    # Nothing that can be read is lost; zones of metadata, or that do not exist, cannot be. A zone that fits one chunk
    # alone is that one's.
    after = logical_content(target)
    unshared = {
        chunk
        for action in plan.actions
        if not action.waits and action.id.endswith("map-zone-shared")
        for chunk in action.rows.places.get("chunk", ())
    }
    for block in range(len(content) // BLOCK):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        data, buffer = table[block // ZONE_BLOCKS]
        if min(data, buffer) > 1 and data < ZONES and any(content[part]) and block // ZONE_BLOCKS not in unshared:
            assert after[part] == content[part]


# -- power cuts


CUT_VARIANTS = [
    *[("hm64x1", i) for i in ("pri-crc", "pri-old-gen", "log-committed", "log-uncommitted", "stale-primary")],
    *[("hm64x1", i) for i in ("map-dzone-nz", "map-bzone-range", "bits-after-wp", "reclaim-crash", "sb-padding")],
    *[("dual", i) for i in ("t-zero", "pri-crc", "sec-crc")],
]


@pytest.mark.parametrize(("base", "identifier"), CUT_VARIANTS)
def test_power_cut_during_repair_can_be_finished(images: Images, base: str, identifier: str) -> None:
    variant = variant_of(identifier, base)
    target = corrupted(images, base, variant)
    plan = plan_of(target, **decision_of(variant)).plan
    done = Target("dm-zoned", tuple(Overlay(device) for device in target.devices))
    apply_plan(done.devices, plan.steps)
    expected = tables(done)
    for cut, interrupted in cuts(target, plan, random.Random(identifier)):
        repair(interrupted, **decision_of(variant))
        assert errors_of(interrupted) == [], cut
        assert tables(interrupted) == expected, cut


def test_a_paired_zone_breaks_no_rule_that_a_power_cut_would_leave() -> None:
    gone, none = ZONES, 0xFFFFFFFF  # a zone that does not exist, and no zone
    entries = [(none, none)] * NR_CHUNKS
    for chunk, entry in enumerate([(3, 20), (21, 11), (gone, gone), (gone, 16), (none, 0), (2, 1), (gone, 14)]):
        entries[chunk] = entry
    entries[8], entries[14], entries[15] = (gone, none), (none, 2), (20, 0)
    target = damaged_target(entries, [{63} if zone == 5 else set() for zone in range(ZONES)], [0] * ZONES)
    plan = plan_of(target, allow=CONSENT, reclaim="clear").plan
    for cut, interrupted in cuts(target, plan, random.Random(1)):
        repair_all(interrupted, CONSENT, reclaim="clear")
        assert errors_of(interrupted) == [], cut


@settings(max_examples=10)
@given(damage, st.randoms(use_true_random=False))
def test_power_cut_during_repair_of_any_damage(case: tuple[Any, Any, Any], choose: random.Random) -> None:
    target = damaged_target(*case)
    plan = plan_of(target, allow=CONSENT, reclaim="clear").plan
    done = Target("dm-zoned", tuple(Overlay(device) for device in target.devices))
    repair_all(done, CONSENT, reclaim="clear")
    expected = tables(done)
    for cut, interrupted in cuts(target, plan, choose):
        repair_all(interrupted, CONSENT, reclaim="clear")
        assert errors_of(interrupted) == [], cut
        assert tables(interrupted) == expected, cut


# -- relabel


def test_relabel_keeps_everything_else(images: Images) -> None:
    target = images.target("triple")
    before = superblocks(target)
    old, plan = plan_relabel(target, "renamed")
    apply_plan(target.devices, plan.steps)
    assert old == "pub-tri"
    label = b"renamed".ljust(32, b"\0")
    assert [replace(sb, crc=0) for sb in superblocks(target)] == [replace(sb, label_raw=label, crc=0) for sb in before]
    assert check_target(target).findings.codes == frozenset()
    assert not plan_relabel(target, "renamed")[1]


def test_power_cut_during_relabel(images: Images) -> None:
    target = images.target("dual")
    content = tables(target)
    plan = plan_relabel(target, "renamed")[1]
    for cut, interrupted in cuts(target, plan, random.Random(1)):
        repair(interrupted)
        assert errors_of(interrupted) == [], cut
        assert len({sb.label for sb in superblocks(interrupted)}) == 1
        assert tables(interrupted) == content


def test_relabel_needs_a_sound_version_2_target(images: Images) -> None:
    with pytest.raises(RefusedError, match="Check and repair required"):
        plan_relabel(corrupted(images, "hm64x1", variant_of("sec-zero")), "x")
    with pytest.raises(RefusedError, match="version 1"):
        plan_relabel(images.target("v1"), "x")
    with pytest.raises(UsageError, match="max 31"):
        plan_relabel(images.target("hm64x1"), "x" * 32)


def test_full_copy_of_a_large_set_needs_no_large_steps() -> None:
    """A destroyed primary set is rebuilt with fills where the bitmaps are uniform."""
    target = Target("dm-zoned", (drive(8000, 100, 256 * MIB),))
    result = format_target(target, FormatOptions(label="large", dmz_uuid=uuid.uuid4()))
    apply_plan(target.devices, result.plan.steps)
    patch(target.device, 0, b"\xa5" * (8 * MIB))
    plan = plan_of(target).plan
    assert sum(len(step.data) for step in plan.steps if hasattr(step, "data")) < 2 * MIB
    apply_plan(target.devices, plan.steps)
    assert check_target(target).findings.codes == frozenset()


def test_rebuilding_a_set_copies_what_cannot_be_filled() -> None:
    """Blocks without a pattern are copied through the device, not kept in the plan."""
    target = Target("dm-zoned", (drive(8000, 100, 256 * MIB),))
    result = format_target(target, FormatOptions(label="large", dmz_uuid=uuid.uuid4()))
    apply_plan(target.devices, result.plan.steps)
    layout = result.layout
    chunks = np.arange(4000, dtype="<u4")
    table = np.full((layout.nr_map_blocks * 512, 2), 0xFFFFFFFF, "<u4")
    table[: len(chunks), 0] = chunks + 100
    valid = b"\x01" + bytes(BLOCK - 1)
    for number in range(2):
        target.device.write(layout.map_block(number) * BLOCK, table.tobytes())
        for zone in range(100, 4100, 2):  # and no bits in every other zone
            target.device.write(layout.bitmap_block(number, zone) * BLOCK, valid)
    for zone in range(100, 4100):
        target.device.write(zone * 256 * MIB, bytes(BLOCK))
    assert check_target(target).findings.codes == frozenset()
    before = tables(target)
    patch(target.device, 0, b"\xa5" * (8 * MIB))
    plan = plan_of(target).plan
    assert sum(len(step.data) for step in plan.steps if hasattr(step, "data")) < MIB
    apply_plan(target.devices, plan.steps)
    verify_plan(target.devices, plan)
    assert check_target(target).findings.codes == frozenset()
    assert tables(target) == before


def test_chunks_that_one_super_block_has_forgotten_stay(images: Images) -> None:
    target = images.target("hm64x1")
    block = bytearray(target.device.read(0, BLOCK))
    patch(target.device, 0, replace(SuperBlock.parse(bytes(block)), nr_chunks=40).pack())
    plan = repair(target)
    assert any("secondary metadata set is copied" in message for message in sentences(plan))
    assert {sb.nr_chunks for sb in superblocks(target)} == {55}
    assert logical_sha256(target) == clean_sha256("hm64x1")
    assert check_target(target).findings.codes == frozenset()
