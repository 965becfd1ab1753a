"""Probe: which target is on a device, and which part of it."""

from __future__ import annotations

import itertools

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, drive, facts, patch, regular
from zoned_tools.formats.dm_zoned.probe import probe


@pytest.mark.parametrize("name", NAMES)
def test_probe_tells_target_and_order(images: Images, name: str) -> None:
    target = images.target(name)
    expected = facts(name)["images"]["clean"]["superblocks"][0]
    found = [probe(device, 0) for device in target.devices]
    for identity in found:
        assert identity is not None
        assert (identity.layout, identity.version) == ("dm-zoned", str(expected["version"]))
        assert (identity.uuid, identity.label) == (expected.get("dmz_uuid", ""), expected.get("label", ""))
        assert identity.group == (expected["dmz_uuid"] if len(found) > 1 else "")
    for order in itertools.permutations(found):
        assert sorted(order, key=lambda i: i.position if i else 0) == found


def test_probe_finds_nothing_on_other_devices() -> None:
    assert probe(drive(16, 4), 0) is None
    assert probe(drive(16, 0), 0) is None
    assert probe(regular(1 << 24), 0) is None
    assert probe(regular(512), 0) is None


def test_probe_with_a_damaged_primary(images: Images) -> None:
    for name in ("hm300x1", "dual"):
        target = images.target(name)
        patch(target.device, 200, b"\xff")
        patch(target.device, 80, b"\xff" * 16)  # the uuid in the damaged block is not to be believed
        identity = probe(target.device, 0)
        assert identity is not None
        assert identity.uuid == facts(name)["images"]["clean"]["superblocks"][0]["dmz_uuid"]
