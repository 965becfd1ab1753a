"""A regular device that was moved to a partition of another size: read as it was at format, named, never written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import error_findings
from tests.formats.dm_zoned.images import BLOCK, MIB, Images, check_target, logical_content, regular
from tests.formats.dm_zoned.mapper_support import opened
from tests.formats.dm_zoned.reshape_support import carried_out
from tests.programs import Program
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.attach import AttachOptions, plan_attach
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.detach import plan_detach


def resized(device: Device, zones: float) -> Device:
    """The same content on a regular device of so many MiB."""
    new = regular(int(zones * device_zone_bytes()))
    count = min(new.geometry.size_bytes, device.geometry.size_bytes)
    new.write(0, device.read(0, count))
    return new


def device_zone_bytes() -> int:
    return 4 * MIB


@pytest.mark.parametrize("zones", [9.5, 10, 11, 20, 8, 7])
@pytest.mark.parametrize("name", ["dual", "triple"])
def test_every_other_size_is_named(images: Images, name: str, zones: float) -> None:
    target = images.target(name)
    before = logical_content(target)
    formatted = -(-target.device.geometry.size_bytes // device_zone_bytes())
    changed = Target("dm-zoned", (resized(target.device, zones), *target.devices[1:]))
    evidence = check_target(changed)
    now = int(np.ceil(zones))
    if now == formatted:
        assert "regular-size-changed" not in evidence.findings.codes
        return
    (finding,) = [f for f in evidence.findings if f.code == "regular-size-changed"]
    assert (finding.where["zones"], finding.where["formatted"]) == (now, formatted)
    assert f"{formatted * 8192} sectors" in finding.message
    assert not {code for code in evidence.findings.codes if code.startswith("sb-")}
    mapper = opened(list(changed.devices), writable=False)
    mapping = evidence.chosen.map
    missing = {zone for zone in range(now, formatted) if mapping.owners.named[zone]}
    lost = {chunk for chunk in range(len(mapping.data)) if {mapping.data[chunk], mapping.buffer[chunk]} & missing}
    zone_blocks = mapper.size_blocks // len(mapping.data)
    for chunk in range(len(mapping.data)):
        if chunk not in lost:
            expected = before[chunk * zone_blocks * BLOCK : (chunk + 1) * zone_blocks * BLOCK]
            assert mapper.read(chunk * zone_blocks, zone_blocks) == expected, chunk
    for chunk in lost:
        with pytest.raises(DeviceError, match="offline"):
            mapper.read(chunk * zone_blocks, zone_blocks)


def test_it_is_not_written(images: Images) -> None:
    target = images.target("dual")
    with pytest.raises(RefusedError, match="it has 11 zones, the format had 9"):
        opened([resized(target.device, 11), *target.devices[1:]])


def test_members_of_another_target_are_still_foreign(images: Images) -> None:
    head, member = images.target("dual").device, images.target("triple").devices[2]
    with pytest.raises(NoValidSuperBlockError) as caught:
        check_target(Target("dm-zoned", (resized(head, 9), member)))
    assert "regular-size-changed" not in caught.value.evidence.findings.codes


def test_detach_and_attach_are_the_way_to_another_size(images: Images) -> None:
    drive = images.target("hm64x1").device
    before = logical_content(Target("dm-zoned", (drive,)))
    both, _ = carried_out([regular(20 * MIB), drive], lambda on: plan_attach(on[0], on[1], AttachOptions()).plan)
    grown = regular(33 * MIB)
    grown.write(0, both[0].read(0, 20 * MIB))
    alone, _ = carried_out([grown, both[1]], lambda on: plan_detach(on[0], on[1]).plan)
    new, _ = carried_out([alone[0], alone[1]], lambda on: plan_attach(on[0], on[1], AttachOptions()).plan)
    assert error_findings(new) == []
    assert logical_content(Target("dm-zoned", tuple(Overlay(device) for device in new))) == before


@pytest.mark.parametrize("absent", [1, 2])
def test_a_member_that_is_not_named(images: Images, absent: int) -> None:
    """Nothing is wrong with the others: no rule finds fault with what is not there, and no repair follows from it."""
    target = images.target("triple")
    devices = tuple(device for number, device in enumerate(target.devices) if number != absent)
    if absent == 1:  # it looks like a regular device that shrank
        evidence = check_target(Target("dm-zoned", devices))
        codes = set(evidence.findings.codes)
        assert "regular-size-changed" in codes
        assert not codes & {"map-bzone-on-random", "map-bzone-not-random"}
        return
    counts = [-(-device.geometry.size_bytes // device_zone_bytes()) for device in target.devices]
    gap = f"zones {sum(counts[:absent])} to {sum(counts) - 1}"
    with pytest.raises(RefusedError, match=f"{gap} of dm-zoned target .* are on a member that is not named"):
        check_target(Target("dm-zoned", devices))


def test_a_member_between_others_that_is_not_named(tmp_path: Path, program: Program) -> None:
    """Four devices; each of the last three is left out, and every command says the same."""
    paths = [tmp_path / f"d{number}.img" for number in range(4)]
    paths[0].touch()
    os.truncate(paths[0], 10 * MIB)
    for path, zones in zip(paths[1:], (6, 5, 4), strict=True):
        assert program("zoned", "image", "create", path, "--zones", zones, "--zone-size", MIB).status == 0
    assert program("dmzadm", "--format", *paths).status == 0
    for absent, gap in ((2, "zones 16 to 20"), (3, "zones 21 to 24")):
        named = [path for number, path in enumerate(paths) if number != absent]
        for command in (["check"], ["check", "--repair"], ["map"], ["inspect"], ["export", "-o", tmp_path / "raw"]):
            result = program("zoned", *command, *named)
            assert result.status == 8
            assert f"{gap} of dm-zoned target" in result.err
            assert "are on a member that is not named" in result.err
    assert not (tmp_path / "raw").exists()
