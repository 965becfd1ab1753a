"""Metadata that one set, or no set, can be read of."""

from __future__ import annotations

import errno
import hashlib
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import BLOCK, Images, check_target, corrupted, facts, regular
from tests.formats.dm_zoned.repair_support import (
    CONSENT,
    CORRUPTIONS,
    errors_of,
    plan_of,
    repair,
    repair_all,
    variant_of,
    waiting,
)
from tests.formats.dm_zoned.unreadable import BadDrive, KnowingDrive, damaged, layout_of, metadata_blocks
from tests.sampling import EVERY, rounds, some
from zoned_tools.device.plan import apply_plan
from zoned_tools.engine.losses import _payload_losses
from zoned_tools.errors import DeviceError, RefusedError, ZonedError
from zoned_tools.formats.contract import Journey, MapExtent, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.dump import dump, restore
from zoned_tools.formats.dm_zoned.inspect import inspect
from zoned_tools.formats.dm_zoned.layout import BLOCK_BITS
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper
from zoned_tools.formats.dm_zoned.probe import probe
from zoned_tools.formats.dm_zoned.roles import zone_roles
from zoned_tools.formats.shared.losses import Loss

POPULATED = ("hm64x1", "hm64x4", "dual", "triple", "v1")
EVERY_POPULATED = (*POPULATED, "ha32x4", "hm6x256", "v1runt", "hm300x1") if EVERY else POPULATED


def opened(target: Target, *, writable: bool = False, **given: str) -> DmZonedMapper:
    return open_mapper(target, writable=writable, settings=LAYOUT.parse_settings(given, Journey.LOGICAL))


def content(target: Target, **given: str) -> bytes:
    mapper = opened(target, writable=False, **given)
    return b"".join(mapper.read(b, min(1024, mapper.size_blocks - b)) for b in range(0, mapper.size_blocks, 1024))


def lookups(target: Target) -> list[MapExtent]:
    """Where every block's content is: what is the same shows the same content, as no payload is touched."""
    mapper = opened(target)
    return [replace(run, why="") for run in mapper.lookup(0, mapper.size_blocks)]


def found(target: Target) -> list[tuple[str, dict[str, object]]]:
    """Codes and places of what is wrong."""
    return [(f.code, dict(f.where)) for f in check_target(target).findings if f.severity != "info"]


def rescued(target: Target) -> tuple[bytes, list[tuple[int, int]]]:
    """What can be read block by block, zeroes elsewhere, and the ranges that the mapper calls lost."""
    mapper = opened(target)
    lost = [(loss.offset_bytes // BLOCK, loss.length_bytes // BLOCK) for loss in mapper.losses().metadata]
    inside = {block for first, count in lost for block in range(first, first + count)}
    found = bytearray(mapper.size_blocks * BLOCK)
    for block in range(mapper.size_blocks):
        if block in inside:
            with pytest.raises(DeviceError) as caught:
                mapper.read(block, 1)
            assert caught.value.errno == errno.EIO
        else:
            found[block * BLOCK : (block + 1) * BLOCK] = mapper.read(block, 1)
    return bytes(found), lost


def sha256_of(base: str) -> str:
    return str(facts(base)["images"]["clean"]["logical_sha256"])


def codes(target: Target) -> list[str]:
    return [finding.code for finding in check_target(target).findings]


@pytest.mark.parametrize("kind", [BadDrive, KnowingDrive])
@pytest.mark.parametrize("base", EVERY_POPULATED)
def test_one_unreadable_block_of_one_set_costs_nothing(images: Images, base: str, kind: type[BadDrive]) -> None:
    layout = layout_of(images, base)
    choose = random.Random(base)
    whole, before = lookups(images.target(base)), found(images.target(base))
    places = [(number, block) for number in (0, 1) for block in range(layout.nr_meta_blocks)]
    for number, block in [(0, 0), (1, 0), (0, 1), (1, 1), *some(places, 4, choose)]:
        bad = metadata_blocks(layout, number)[block]
        target = damaged(images.target(base), [bad], kind=kind)
        unreadable = ("block-unreadable", {"set": number, "block": block, "blocks": 1})
        assert [row for row in found(target) if row not in before] == [unreadable]
        assert lookups(target) == whole
        assert number + block > 2 or hashlib.sha256(content(target)).hexdigest() == sha256_of(base)
        assert not opened(target).losses().metadata
        with pytest.raises(RefusedError):
            opened(target, writable=True)
        device = target.devices[0]
        assert isinstance(device, BadDrive)
        known = {f"dm-zoned.{code}" for code, _ in before}
        assert {action.id for action in plan_of(target).waiting} <= known
        device.touched.clear()
        repair(target)
        assert kind is BadDrive or not block or not device.touched
        assert not device.bad
        assert [row for row in found(target) if row not in before] == []
        assert lookups(target) == whole


def test_every_block_of_one_set(images: Images) -> None:
    layout = layout_of(images, "hm64x1")
    for number in (0, 1):
        target = damaged(images.target("hm64x1"), metadata_blocks(layout, number))
        found = [f for f in check_target(target).findings if f.severity != "info"]
        assert [(f.code, f.where) for f in found] == [
            ("block-unreadable", {"set": number, "block": 0, "blocks": layout.nr_meta_blocks})
        ]
        assert hashlib.sha256(content(target)).hexdigest() == sha256_of("hm64x1")
        repair(target)
        assert [f for f in check_target(target).findings if f.severity != "info"] == []


@pytest.mark.parametrize("base", EVERY_POPULATED if EVERY else ["hm64x1", "dual"])
def test_two_blocks_lose_only_what_neither_set_has(images: Images, base: str) -> None:
    layout = layout_of(images, base)
    whole, before = content(images.target(base)), set(codes(images.target(base)))
    choose = random.Random(base)
    for _ in rounds(10, 100):
        blocks = [choose.randrange(layout.nr_meta_blocks) for _ in range(2)]
        if choose.random() < 0.5:
            blocks[1] = blocks[0]
        bad = [metadata_blocks(layout, number)[block] for number, block in enumerate(blocks)]
        if blocks == [0, 0]:
            continue
        target = damaged(images.target(base), bad)
        found, lost = rescued(target)
        expected = bytearray(whole)
        for first, count in lost:
            expected[first * BLOCK : (first + count) * BLOCK] = bytes(count * BLOCK)
        assert found == expected
        if blocks[0] != blocks[1]:
            assert not lost
            assert set(codes(target)) - before == {"block-unreadable"}
        else:
            assert "metadata-lost" in codes(target)
            assert not errors_of_others(target)


def errors_of_others(target: Target) -> set[str]:
    return set(errors_of(target)) - {"block-unreadable", "metadata-lost"}


def test_a_set_with_a_bad_super_block_serves_when_it_is_alike(images: Images) -> None:
    layout = layout_of(images, "hm64x1")
    first, second = (metadata_blocks(layout, number) for number in (0, 1))
    for kind in (BadDrive, KnowingDrive):
        target = damaged(images.target("hm64x1"), [first[0], second[1], second[20]], kind=kind)
        assert codes(target).count("block-unreadable") == 3
        assert "metadata-lost" not in codes(target)
        assert hashlib.sha256(content(target)).hexdigest() == sha256_of("hm64x1")
        repair(target)
        assert errors_of(target) == []
    # A set that differs elsewhere is not believed, and a sound super block would make it believed.
    target = images.target("hm64x1")
    target.device.write(first[30] * BLOCK, b"\xff" * BLOCK)
    target = damaged(target, [first[0], second[20]])
    assert "metadata-lost" in codes(target)
    before = target.device.read(BLOCK, 16 * BLOCK)
    plan = repair(target)
    assert set(waiting(plan)) == {"metadata-lost"}
    assert not plan.plan
    assert target.device.read(BLOCK, 16 * BLOCK) == before


def test_blocks_of_the_older_set_wait_for_consent(images: Images) -> None:
    layout = layout_of(images, "hm64x1")
    first, second = (metadata_blocks(layout, number) for number in (0, 1))
    target = damaged(corrupted(images, "hm64x1", variant_of("pri-old-gen")), [second[10]])  # set 1 is newer
    assert hashlib.sha256(content(target)).hexdigest() == sha256_of("hm64x1")
    assert any("older" in warning for warning in opened(target).warnings)
    assert {"block-unreadable", "sets-gen-differ"} <= set(codes(target))
    plan = plan_of(target)
    assert set(waiting(plan)) == {"block-unreadable"}
    assert not plan.plan
    repair(target, frozenset({"block-unreadable"}))
    assert codes(target) == []
    # An unreadable block of the older set is written by the sync.
    target = damaged(corrupted(images, "hm64x1", variant_of("pri-old-gen")), [first[10]])
    repair(target)
    assert codes(target) == []


def test_a_tertiary_super_block_waits_for_consent(images: Images) -> None:
    target = damaged(images.target("dual"), [], [0])
    assert [(f.code, f.where) for f in check_target(target).findings] == [("block-unreadable", {"device": 1})]
    assert hashlib.sha256(content(target)).hexdigest() == sha256_of("dual")
    plan = repair(target)
    assert set(waiting(plan)) == {"block-unreadable"}
    assert not plan.plan
    device = target.devices[1]
    assert isinstance(device, BadDrive)
    device.bad.clear()  # the reset of its zone makes a sequential zone writable
    repair(Target("dm-zoned", (target.devices[0], BadDrive(device.device, []))))


def test_every_reader_goes_on(images: Images) -> None:
    layout = layout_of(images, "hm64x1")
    first, second = (metadata_blocks(layout, number) for number in (0, 1))
    target = damaged(images.target("hm64x1"), [first[1], first[12], second[13], first[15], second[15]])
    clean = images.target("hm64x1")
    assert inspect(target)["chunks"] != []
    assert probe(target.device, 0) == probe(clean.device, 0)
    assert {name: zones.tolist() for name, zones in zone_roles(target).items()} == {
        name: zones.tolist() for name, zones in zone_roles(clean).items()
    }
    document = dump(target)
    assert document["sets"][0]["unreadable"] == [[15, 1]]  # type: ignore[index]
    with pytest.raises(ZonedError, match="lacks metadata"):
        restore(clean, document)
    whole = dump(damaged(images.target("hm64x1"), [first[1], second[13]]))
    assert whole == dump(clean)
    plan = restore(target, whole)
    apply_plan(target.devices, plan.steps)
    assert codes(target) == []


def test_a_regular_device_is_recognised_by_its_secondary(images: Images) -> None:
    clean = images.target("dual")
    assert probe(damaged(clean, [0]).device, 0) == probe(images.target("dual").device, 0)
    assert probe(BadDrive(regular(64 << 20), [0]), 0) is None


def test_written_blocks_stand_for_lost_bits(images: Images) -> None:
    base = "hm64x1"
    layout, whole = layout_of(images, base), content(images.target(base))
    mapping = check_target(images.target(base)).chosen.map
    zones = np.unique(np.concatenate((mapping.data, mapping.buffer)))
    for zone in zones[zones < layout.nr_zones].tolist()[::3]:
        places = [layout.bitmap_block(number, zone) for number in (0, 1)]
        target = damaged(images.target(base), places)
        mapper = opened(target, bitmaps="written")
        losses = mapper.losses()
        assert not losses.metadata
        found = content(target, bitmaps="written")
        end = 0
        for loss in [*losses.guessed, Loss(len(whole), 0, "", "")]:
            assert found[end : loss.offset_bytes] == whole[end : loss.offset_bytes]
            end = loss.offset_bytes + loss.length_bytes
        plan = repair(target, frozenset({"metadata-lost"}))
        assert not plan.waiting
        assert errors_of(target) == []
        assert content(target) == found


def test_pairs_stand_for_a_lost_map_block(images: Images) -> None:
    base = "hm64x1"
    layout, whole = layout_of(images, base), content(images.target(base))
    mapping = check_target(images.target(base)).chosen.map
    weight = check_target(images.target(base)).chosen.bits.weight
    target = damaged(images.target(base), [layout.map_block(0), layout.map_block(1)])
    assert set(waiting(plan_of(target))) == {"metadata-lost"}
    words = []
    for chunk, (zone, buffer) in enumerate(zip(mapping.data.tolist(), mapping.buffer.tolist(), strict=True)):
        if zone < layout.nr_zones:
            words.append(f"{chunk}:{zone}" + (f"+{buffer}" if buffer < layout.nr_zones else ""))
    pairs = ",".join(words[:3])
    mapper = opened(target, pair=pairs)
    assert mapper.read(0, layout.zone_blocks) == whole[: layout.zone_blocks * BLOCK]
    with pytest.raises(DeviceError):
        mapper.read(layout.zone_blocks * 20, 1)
    assert set(waiting(plan_of(target, pair=pairs))) == {"metadata-lost"}
    every = ",".join(word for word in words if weight[int(word.partition(":")[2].partition("+")[0])] or "+" in word)
    plan = repair(target, pair=every)
    assert not plan.waiting or set(waiting(plan)) == {"zone-unmapped-not-empty"}
    assert errors_of(target) == []
    assert content(target) == whole


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_repair_converges_whatever_is_damaged_and_unreadable(images: Images, data: Any) -> None:
    base, variant = data.draw(st.sampled_from([c for c in CORRUPTIONS if c[1]["id"] not in ("both-bad", "version-3")]))
    layout = layout_of(images, base)
    relative = st.integers(0, layout.nr_meta_blocks - 1)
    picked = data.draw(st.lists(st.tuples(st.sampled_from([(0,), (1,), (0, 1)]), relative), max_size=5))
    blocks = sorted({metadata_blocks(layout, n)[block] for numbers, block in picked for n in numbers})
    target = damaged(
        corrupted(images, base, variant), blocks, kind=data.draw(st.sampled_from([BadDrive, KnowingDrive]))
    )
    allow = data.draw(st.sampled_from([frozenset[str](), CONSENT]))
    try:
        before = errors_of(target)
        repair_all(target, allow)
        after = errors_of(target)
    except ZonedError:
        return
    assert len(after) <= len(before)
    if allow and not plan_of(target, allow).waiting:
        assert set(after) <= {"zone-offline-mapped"}


def test_bitmaps_of_several_blocks(images: Images) -> None:
    """Zones of 256 MiB: a lost bitmap block is about the half of a zone."""
    layout = layout_of(images, "hm6x256")
    mapping = check_target(images.target("hm6x256")).chosen.map
    assert layout.bitmap_blocks_per_zone == 2
    chunk = next(c for c, zone in enumerate(mapping.data.tolist()) if zone < layout.nr_zones)
    zone = int(mapping.data[chunk])
    for part in (0, 1):
        places = [layout.bitmap_block(number, zone) + part for number in (0, 1)]
        mapper = opened(damaged(images.target("hm6x256"), places))
        for loss in mapper.losses().metadata:
            first = loss.offset_bytes // BLOCK - chunk * layout.zone_blocks
            assert part * BLOCK_BITS <= first < (part + 1) * BLOCK_BITS


@pytest.mark.parametrize("base", ["hm64x1", "dual"])
def test_torn_payload_is_what_a_lookup_of_everything_finds(images: Images, base: str) -> None:
    target = images.target(base)
    choose = random.Random(base)
    for _ in range(10):
        devices = []
        for device in target.devices:
            most = device.geometry.size_bytes // BLOCK - 600
            first = layout_of(images, base).metadata_zones.stop * layout_of(images, base).zone_blocks
            starts = [choose.randrange(0 if device is not target.device else first, most) for _ in range(12)]
            bad = {b for start in starts for b in range(start, start + choose.choice([1, 7, 300]))} - {0}
            devices.append(KnowingDrive(device, bad))
        damaged_one = Target("dm-zoned", tuple(devices))
        mapper = opened(damaged_one)
        assert mapper.losses().payload == _payload_losses(damaged_one, mapper)
