"""Members: their order, and which devices are one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.formats.dm_zoned.images import Images, patch
from zoned_tools.device.base import Device
from zoned_tools.formats.contract import Probed
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.members import claims, order_members
from zoned_tools.formats.dm_zoned.probe import probe


def targets_of(devices: Sequence[Device]) -> set[tuple[Device, ...]]:
    """The devices of each target, as opening puts them together."""
    probed = [Probed(device, probe(device, 0)) for device in devices]
    if claims(probed):
        return {tuple(devices)}
    groups: dict[str, list[Probed]] = {}
    for number, one in enumerate(probed):
        assert one.identity is not None
        groups.setdefault(one.identity.group or f"alone {number}", []).append(one)
    return {tuple(member.device for member in order_members(members)) for members in groups.values()}


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "change", [{"version": 0}, {"dmz_uuid": UUID(int=7)}, {"dmz_uuid": UUID(int=0)}, {"gen": 1 << 40}]
)
def test_a_member_with_a_damaged_super_block_stays_with_its_target(images: Images, number: int, change: Any) -> None:
    target = images.target("triple")
    member = target.devices[number]
    patch(member, 0, replace(SuperBlock.parse(member.read(0, 4096)), **change).pack())
    assert targets_of(target.devices) == {target.devices}


def test_complete_targets_and_strays_stay_apart(images: Images) -> None:
    dual, triple, single = (images.target(name) for name in ("dual", "triple", "hm64x1"))
    mixed = [triple.devices[2], single.device, dual.devices[1], triple.devices[0], dual.devices[0], triple.devices[1]]
    assert targets_of(mixed) == {dual.devices, triple.devices, single.devices}


def test_an_unreadable_member_stays_with_its_target(images: Images) -> None:
    target = images.target("triple")
    patch(target.devices[1], 0, bytes(4096))
    assert targets_of(target.devices) == {target.devices}
