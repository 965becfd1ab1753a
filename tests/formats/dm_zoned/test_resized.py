"""A regular device that was moved to a partition of another size: read as it was at format, named, never written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import error_findings
from tests.formats.dm_zoned.images import BLOCK, MIB, Images, check_target, logical_content, regular
from tests.formats.dm_zoned.mapper_support import opened
from tests.formats.dm_zoned.reshape_support import carried_out
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
