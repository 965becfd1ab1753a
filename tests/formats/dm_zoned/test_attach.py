"""A regular device joins a target and leaves it: the content stays, whenever the power fails."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import TARGETS, error_findings
from tests.formats.dm_zoned.images import BLOCK, MIB, Images, check_target, logical_sha256, patch, regular
from tests.formats.dm_zoned.mapper_support import fill, opened
from tests.formats.dm_zoned.reshape_support import carried_out, content, cuts, is_sound, random_single, used
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.errors import RefusedError, ZonedError
from zoned_tools.formats.contract import Consents, Target
from zoned_tools.formats.dm_zoned.attach import AttachOptions, is_leftover, plan_attach
from zoned_tools.formats.dm_zoned.detach import plan_detach
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.probe import sealed_superblock
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair

SINGLES = ("single", "single-large-zones", "host-aware")
UUID = uuid.UUID("11223344-5566-7788-99aa-bbccddeeff00")


def attach(options: AttachOptions | None = None) -> Callable[[list[Device]], Plan]:
    return lambda devices: plan_attach(devices[0], devices[1], options or AttachOptions(upgrade=True)).plan


def detach(devices: list[Device]) -> Plan:
    return plan_detach(devices[0], devices[1]).plan


def with_cache(drives: Sequence[Device], zones: float) -> list[Device]:
    """A target's drive, and an empty regular device of so many zones in front of it."""
    return [regular(int(zones * drives[0].geometry.zone_bytes) // BLOCK * BLOCK), *drives]


def superblock(device: Device, block: int = 0) -> SuperBlock:
    return SuperBlock.parse(device.read(block * BLOCK, BLOCK))


def mixed(devices: list[Device], seed: int) -> list[Device]:
    """After requests that leave chunks in the cache and buffers."""
    return used(devices, random.Random(seed), 25)


# -- the content, on vectors and random targets


@pytest.mark.parametrize(("name", "zones"), [("hm64x1", 20), ("hm64x4", 12.5), ("hm300x1", 28), ("v1", 9)])
def test_attach_and_detach_public_targets(images: Images, name: str, zones: float) -> None:
    drive = images.target(name).device
    before = logical_sha256(Target("dm-zoned", (drive,)))
    both, _ = carried_out(with_cache([drive], zones), attach())
    found = check_target(Target("dm-zoned", tuple(both)))
    assert not found.has_errors
    assert found.facts["needs_sync"] is False
    assert logical_sha256(Target("dm-zoned", tuple(both))) == before
    with pytest.raises(RefusedError, match="zoned member"):
        check_target(Target("dm-zoned", (both[1],)))
    alone, _ = carried_out(both, detach)
    single = check_target(Target("dm-zoned", (alone[1],)))
    assert not single.has_errors
    assert "bits-unmapped" not in single.findings.codes
    assert logical_sha256(Target("dm-zoned", (alone[1],))) == before
    assert single.facts["buffered_chunks"] == 0
    assert sealed_superblock(alone[0]) is None


def test_names_and_sizes_stay(images: Images) -> None:
    drive = images.target("hm64x1").device
    old = superblock(drive)
    options = AttachOptions(device_uuid=UUID)
    both, _ = carried_out(with_cache([drive], 20), attach(options))
    primary, tertiary = superblock(both[0]), superblock(both[1])
    for new in (primary, tertiary):
        assert (new.dmz_uuid, new.label, new.nr_chunks) == (old.dmz_uuid, old.label, old.nr_chunks)
        assert new.nr_reserved_seq == old.nr_reserved_seq
    assert (primary.gen, primary.dev_uuid) == (old.gen + 1, UUID)
    assert (tertiary.gen, tertiary.sb_block, tertiary.dev_uuid) == (0, 20 * 256, old.dev_uuid)
    assert not any(both[1].read(256 * BLOCK, BLOCK)), "nothing may be taken for the old secondary super block"
    alone, _ = carried_out(both, detach)
    new = superblock(alone[1])
    assert (new.dmz_uuid, new.label, new.nr_chunks) == (old.dmz_uuid, old.label, old.nr_chunks)
    assert (new.dev_uuid, new.sb_block) == (old.dev_uuid, 0)


@pytest.mark.parametrize("seed", range(16))
def test_random_targets(seed: int) -> None:
    chance = random.Random(f"attach {seed}")
    drives = random_single(chance)
    before = content(*drives)
    devices = with_cache(drives, chance.randrange(11, 30) + chance.choice((0, 0.5)))
    grow = chance.random() < 0.3
    both, _ = carried_out(devices, attach(AttachOptions(grow=grow)))
    assert error_findings(both) == []
    size = len_of(drives)
    assert content_of(both, size) == before
    both = used(both, chance, 15)
    now = content(*both)
    try:
        alone, _ = carried_out(both, detach)
    except RefusedError as refusal:
        assert grow or "free sequential zones" in refusal.message  # noqa: PT017
        return
    assert error_findings(alone[1:]) == []
    assert content(alone[1]) == now


def len_of(devices: Sequence[Device]) -> int:
    return opened(list(devices), writable=False).size_blocks


def content_of(devices: Sequence[Device], blocks: int) -> str:
    """Digest of the first blocks: a grown target has more."""
    return hashlib.sha256(opened(list(devices), writable=False).read(0, blocks)).hexdigest()


def test_growing_makes_room(images: Images) -> None:
    drive = images.target("hm64x1").device
    both, _ = carried_out(with_cache([drive], 20.5), attach(AttachOptions(grow=True)))
    found = check_target(Target("dm-zoned", tuple(both)))
    assert not found.has_errors
    # 21 + 64 zones, 2 of metadata, 7 reserved, one member's first zone, one runt.
    assert found.facts["chunks"] == 85 - 2 - 7 - 1 - 1


def test_what_was_written_to_the_attached_target_is_on_the_drive_after_detaching() -> None:
    devices = with_cache(used(TARGETS["single"](), random.Random(3), 20), 14)
    both, _ = carried_out(devices, attach())
    both = mixed(both, 9)
    before = content(*both)
    survey = check_target(Target("dm-zoned", tuple(both))).chosen
    assert (survey.map.data < 14).any(), "chunks are in the cache"
    detached = plan_detach(both[0], both[1])
    assert detached.copied_bytes
    alone, _ = carried_out(both, detach)
    assert content(alone[1]) == before
    assert is_sound(alone[1:])


# -- power cuts


def targets_on(devices: Sequence[Device]) -> list[tuple[Device, ...]]:
    """Which of the drive alone and both devices are a target that can be used."""
    found = []
    for members in ((devices[1],), tuple(devices)):
        try:
            evidence = check_target(Target("dm-zoned", members))
        except ZonedError:
            continue
        usable = {group.code for group in evidence.findings.groups if group.severity == "error"} <= {"sb-bad-magic"}
        if usable and evidence.state.sets[0].valid:
            found.append(members)
    return found


@pytest.mark.parametrize("name", SINGLES)
def test_an_attach_that_was_cut_off(name: str) -> None:
    chance = random.Random(f"attach {name}")
    drives = used(TARGETS[name](), chance, 30)
    before = content(*drives)
    devices = with_cache(drives, 14.5)
    _, log = carried_out(devices, attach())
    states = set()
    for point, cut in cuts(devices, log, chance, most=150):
        usable = targets_on(cut)
        assert len(usable) == 1, point
        assert content(*usable[0]) == before, point
        states.add(len(usable[0]))
        if len(usable[0]) == 2:
            continue
        again, _ = carried_out(cut, attach())
        assert error_findings(again) == [], point
        assert content(*again) == before, point
    assert states == {1, 2}


@pytest.mark.parametrize("name", SINGLES)
def test_a_detach_that_was_cut_off(name: str) -> None:
    chance = random.Random(f"detach {name}")
    devices = with_cache(used(TARGETS[name](), chance, 15), 14.5)
    both, _ = carried_out(devices, attach())
    both = used(both, chance, 12)
    before = content(*both)
    _, log = carried_out(both, detach)
    states = set()
    for point, cut in cuts(both, log, chance, most=150):
        usable = targets_on(cut)
        assert len(usable) == 1, point
        assert content(*usable[0]) == before, point
        states.add(len(usable[0]))
        if len(usable[0]) == 1 and sealed_superblock(cut[0]) is None:
            assert is_sound(usable[0]), point
            continue
        found = check_target(Target("dm-zoned", usable[0]))
        if "sets-gen-differ" in found.findings.codes:  # cut in a commit: first the command that the refusal names
            refused(cut, detach, "sets-gen-differ")
            mended = {id(device): number for number, device in enumerate(cut)}
            steps = plan_repair(found, Consents()).plan.steps
            apply_plan(cut, [replace(step, device=mended[id(usable[0][step.device])]) for step in steps])
        again, _ = carried_out(cut, detach)
        assert is_sound(again[1:]), point
        assert content(again[1]) == before, point
        assert sealed_superblock(again[0]) is None, point
    assert states == {1, 2}


def test_leftovers_of_an_attach_are_known() -> None:
    devices = with_cache(TARGETS["single"](), 14)
    _, log = carried_out(devices, attach())
    assert not is_leftover(devices[0], sealed_superblock(devices[1]))
    known = [
        is_leftover(cut[0], sealed_superblock(cut[1]))
        for _, cut in cuts(devices, log, random.Random(1), most=10**6)
        if len(targets_on(cut)[0]) == 1
    ]
    assert known[-1]


# -- refusals


def refused(devices: Sequence[Device], planner: Callable[[list[Device]], Plan], match: str) -> None:
    with pytest.raises(ZonedError, match=match):
        planner([Overlay(device) for device in devices])


def test_a_cache_device_that_is_too_small(images: Images) -> None:
    drive = images.target("hm64x1").device
    for zones in (1, 2, 4, 4.9):
        refused(with_cache([drive], zones), attach(), r"zones of 1048576 bytes, 5 are needed")
    refused(with_cache([drive], 6), attach(), "reserves 7 zones")
    carried_out(with_cache([drive], 7), attach())


def test_version_1_needs_consent(images: Images) -> None:
    drive = images.target("v1").device
    refused(with_cache([drive], 12), attach(AttachOptions()), "version 1 is for single devices")
    both, _ = carried_out(with_cache([drive], 12), attach(AttachOptions(upgrade=True, label="new", dmz_uuid=UUID)))
    assert (superblock(both[0]).label, superblock(both[1]).dmz_uuid) == ("new", UUID)
    assert superblock(both[1]).dev_uuid.int


def test_damage_and_sets_that_differ_are_mended_first(images: Images) -> None:
    target = images.target("hm64x1")
    good = [Overlay(target.device) for _ in range(3)]
    patch(good[0], 4096, np.full(2, 0x7FFFFFFF, "<u4").tobytes())
    refused(with_cache([good[0]], 20), attach(), "sets-content-differ|map-dzone-range")
    patch(good[1], 256 * BLOCK, replace(superblock(good[1], 256), gen=22).pack())
    with pytest.raises(RefusedError, match="sets-gen-differ") as caught:
        attach()(with_cache([good[1]], 20))
    assert f"dmzadm --repair {good[1].path} brings both sets together" in caught.value.hint
    patch(good[2], 256 * BLOCK, bytes(BLOCK))
    refused(with_cache([good[2]], 20), attach(), "sb-bad-magic")


def test_a_member_cannot_be_attached_again(images: Images) -> None:
    both, _ = carried_out(with_cache([images.target("hm64x1").device], 20), attach())
    refused(both, attach(), "zoned member")


def test_wrong_kinds_of_devices(images: Images) -> None:
    drive = images.target("hm64x1").device
    refused([drive, Overlay(drive)], attach(), "Not a regular block device")
    refused([regular(MIB), regular(MIB)], attach(), "Not a zoned block device")
    refused(with_cache([drive], 20), detach, "no dm-zoned super block")


def test_a_dead_metadata_zone() -> None:
    devices = with_cache(TARGETS["single"](), 14)
    devices[1].machine.table["condition"][1] = ZoneCondition.READ_ONLY  # type: ignore[attr-defined]
    refused(devices, attach(), "zone 1 holds metadata set 0 and is read-only: the target cannot be written")


def test_detach_needs_conventional_zones(images: Images) -> None:
    refused(images.target("dual").devices, detach, "28 chunks|conventional")


def test_detach_makes_nothing_smaller_unasked() -> None:
    devices = with_cache(TARGETS["single"](), 14)
    both, _ = carried_out(devices, attach(AttachOptions(grow=True)))
    refused(both, detach, "do not fit on drive alone")
    alone, _ = carried_out(both, lambda on: plan_detach(on[0], on[1], shrink=True).plan)
    assert is_sound(alone[1:])
    mapper = opened([Overlay(device) for device in both])
    mapper.write(mapper.size_blocks - 1, bytes(BLOCK))
    mapper.close()
    written = [Overlay(device) for device in both]
    mapper = opened(list(written))
    mapper.write(mapper.size_blocks - 1, b"x" * BLOCK)
    mapper.close()
    refused(written, lambda on: plan_detach(on[0], on[1], shrink=True).plan, "is mapped")


def test_detach_needs_free_sequential_zones() -> None:
    devices = with_cache(TARGETS["single"](), 14)
    both, _ = carried_out(devices, attach())
    mapper = opened(both, rlow="0")
    fill(mapper, 3)
    mapper.close()
    before = content(*both)
    refused(both, detach, "free sequential zones")
    assert content(*both) == before


def test_the_cache_device_of_another_target() -> None:
    first = with_cache(TARGETS["single"](), 14)
    both, _ = carried_out(first, attach())
    other = TARGETS["single"]()[0]
    refused([both[0], other], detach, "another target")
