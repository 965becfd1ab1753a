"""Targets whose super blocks are lost: found again by geometry, mapping table and bitmaps, or from a member."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import BLOCK, NAMES, Images, check_target, drive, facts, patch
from tests.formats.dm_zoned.repair_support import errors_of, plan_of, repair, repair_all, superblocks, waiting
from tests.formats.dm_zoned.test_unreadable import content
from tests.formats.dm_zoned.unreadable import damaged, layout_of, metadata_blocks
from zoned_tools.errors import UsageError, ZonedError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError

IMAGES = [(name, state) for name in NAMES for state in facts(name)["images"]]
ALLOW = frozenset({"sb-lost"})


def without_superblocks(images: Images, base: str, state: str = "clean", fill: bytes = bytes(BLOCK)) -> Target:
    target = images.target(base, state)
    layout = layout_of(images, base, state)
    for number in (0, 1):
        patch(target.device, layout.set_block(number) * BLOCK, fill)
    return target


@pytest.mark.parametrize(("base", "state"), IMAGES)
def test_places_and_content_are_found(images: Images, base: str, state: str) -> None:
    layout = layout_of(images, base, state)
    target = without_superblocks(images, base, state)
    evidence = check_target(target)
    lost: list[Any] = [finding for finding in evidence.findings if finding.code == "sb-lost"]
    assert len(lost) == 1
    assert not {"sb-bad-magic", "bits-unmapped", "map-dzone-range"} & evidence.findings.codes
    found = evidence.state.layout
    assert found is not None
    assert (found.nr_map_blocks, found.set_zones, found.first_zone) == (
        layout.nr_map_blocks,
        layout.set_zones,
        layout.first_zone,
    )
    low, high = lost[0].where["nr_chunks"]
    assert low <= layout.nr_chunks <= high == found.nr_chunks
    expected = facts(base)["images"][state]["logical_sha256"]
    if expected == "all zeros":
        return
    size = layout.nr_chunks * layout.zone_blocks * BLOCK
    if size <= 1 << 30:
        whole = content(target)
        assert hashlib.sha256(whole[:size]).hexdigest() == expected
        assert not any(whole[size:])


@pytest.mark.parametrize("base", ["hm64x1", "hm300x1", "dual", "triple", "v1"])
def test_a_repair_waits_and_then_makes_a_sound_target(images: Images, base: str) -> None:
    before = superblocks(images.target(base))
    target = without_superblocks(images, base)
    plan = plan_of(target)
    assert set(waiting(plan)) == {"sb-lost"}
    assert not plan.plan
    version = {"version": "1"} if base == "v1" else {}
    repair(target, ALLOW, seq=str(before[0].nr_reserved_seq), **version)
    assert [f.severity for f in check_target(target).findings if f.severity != "info"] == []
    after = superblocks(target)
    assert [(s.nr_chunks, s.nr_reserved_seq, s.sb_block, s.version) for s in after] == [
        (s.nr_chunks, s.nr_reserved_seq, s.sb_block, s.version) for s in before
    ]
    assert [s.gen for s in after[:2]] == [1, 1]
    assert hashlib.sha256(content(target)).hexdigest() == facts(base)["images"]["clean"]["logical_sha256"]
    if len(target.devices) > 1:
        assert {(s.label, s.dmz_uuid) for s in after} == {(before[0].label, before[0].dmz_uuid)}
        assert after[2:] == before[2:]
    elif base != "v1":
        assert {s.label for s in after} == {"rescued"}


def test_settings_replace_what_is_assumed(images: Images) -> None:
    name = "11111111-2222-4333-8444-555555555555"
    target = without_superblocks(images, "hm64x1")
    for given_ in ({"seq": "8"}, {"label": "x" * 32}):
        with pytest.raises(UsageError):
            plan_of(target, ALLOW, **given_)
    repair(target, ALLOW, seq="3", label="saved", uuid=name)
    for found in superblocks(target):
        assert (found.nr_reserved_seq, found.label, str(found.dmz_uuid)) == (3, "saved", name)
    target = without_superblocks(images, "dual")
    with pytest.raises(UsageError):
        plan_of(target, ALLOW, version="1")


def test_garbage_and_unreadable_blocks_are_no_super_blocks(images: Images) -> None:
    expected = facts("hm64x1")["images"]["clean"]["logical_sha256"]
    size = 57671680
    target = without_superblocks(images, "hm64x1", fill=random.Random(1).randbytes(BLOCK))
    assert hashlib.sha256(content(target)[:size]).hexdigest() == expected
    layout = layout_of(images, "hm64x1")
    first, second = (metadata_blocks(layout, number) for number in (0, 1))
    target = damaged(images.target("hm64x1"), [first[0], second[0], first[1], second[9]])
    assert {"sb-lost", "block-unreadable"} == set(errors_of(target))
    assert hashlib.sha256(content(target)[:size]).hexdigest() == expected
    repair_all(target, ALLOW)
    assert errors_of(target) == []


def test_several_devices_without_any_super_block(images: Images) -> None:
    target = without_superblocks(images, "dual")
    patch(target.devices[1], 0, bytes(BLOCK))
    whole = content(target)
    assert hashlib.sha256(whole[: 28 << 22]).hexdigest() == facts("dual")["images"]["clean"]["logical_sha256"]


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"data", None])
def test_nothing_is_found_where_there_is_nothing(fill: bytes | None) -> None:
    device = drive(64, 8)
    content_ = random.Random(3).randbytes(8 << 20) if fill is None else fill * ((8 << 20) // len(fill))
    device.write(0, content_)
    with pytest.raises(NoValidSuperBlockError):
        check_target(Target("dm-zoned", (device,)))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_else_is_damaged_ends_in_words(images: Images, data: Any) -> None:
    base = data.draw(st.sampled_from(["hm64x1", "dual"]))
    layout = layout_of(images, base)
    target = without_superblocks(images, base)
    for _ in range(data.draw(st.integers(0, 3))):
        block = data.draw(st.sampled_from(metadata_blocks(layout, data.draw(st.sampled_from([0, 1])))[1:]))
        seed = data.draw(st.integers(0, 2**32))
        patch(target.device, block * BLOCK, random.Random(seed).randbytes(BLOCK))
    try:
        before = errors_of(target)
        repair_all(target, ALLOW)
        assert len(errors_of(target)) <= len(before)
    except ZonedError:
        return
