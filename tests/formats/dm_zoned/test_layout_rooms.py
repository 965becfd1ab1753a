"""Probe, inspect and table."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, corrupted, corruptions, drive, facts, patch, regular
from zoned_tools.engine.targets import group_targets
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.inspect import inspect
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.probe import probe
from zoned_tools.formats.dm_zoned.table import table_line

CORRUPTIONS = corruptions()


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


@pytest.mark.parametrize("name", NAMES)
def test_inspect(images: Images, name: str) -> None:
    tree = json.loads(json.dumps(inspect(images.target(name))))
    expected = facts(name)["images"]["clean"]
    for place, fields in zip(("primary", "secondary"), expected["superblocks"], strict=True):
        found = tree["super_blocks"][place]
        assert found["valid"]
        assert found["gen"]["value"] == fields["gen"]
        assert found["crc"]["value"] == f"{int(fields['crc'], 16):#010x}"
    assert {row["chunk"] for row in tree["chunks"]} == {int(c) for c in expected["chunks"]}
    for row in tree["chunks"]:
        chunk = expected["chunks"][str(row["chunk"])]
        assert (row["data_zone"], row.get("buffer_zone")) == (chunk["dzone"], chunk["bzone"])
        assert row["data_zone_valid_blocks"] == chunk["weight"]
        assert row.get("write_pointer_block") == chunk.get("wp_block")


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=[f"{b}-{v['id']}" for b, v in CORRUPTIONS])
def test_inspect_and_probe_of_damaged_metadata(images: Images, base: str, variant: dict) -> None:
    target = corrupted(images, base, variant)
    tree = inspect(target)
    assert tree["set_used"] == variant.get("set_used", tree["set_used"])
    json.dumps(tree)
    for device in target.devices:
        probe(device, 0)


@pytest.mark.parametrize("name", NAMES)
def test_table_line(images: Images, name: str) -> None:
    target = images.target(name)
    words = table_line(target, {}).split()
    sectors = facts(name)["logical_size"] // 512
    assert words == ["0", str(sectors), "zoned", *target.paths]


def test_legacy_table_line(images: Images) -> None:
    target = images.target("v1")
    line = table_line(target, {"legacy": "1", "rlow": "40", "idle_rlow": "70"})
    assert line == f"0 131072 zoned {target.device.path} rlow=40 idle_rlow=70"
    assert table_line(target, {"legacy": "1"}) == f"0 131072 zoned {target.device.path}"


@pytest.mark.parametrize(
    "options", [{"rlow": "40"}, {"legacy": "1", "rlow": "101"}, {"legacy": "1", "rlow": "x"}, {"other": "1"}]
)
def test_table_options_that_cannot_be_meant(images: Images, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        table_line(images.target("v1"), options)


def test_no_table_line(images: Images) -> None:
    with pytest.raises(UsageError, match="single devices"):
        table_line(images.target("dual"), {"legacy": "1"})
    with pytest.raises(MetadataError):
        table_line(Target("dm-zoned", (drive(16, 4),)), {})


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "change", [{"version": 0}, {"dmz_uuid": UUID(int=7)}, {"dmz_uuid": UUID(int=0)}, {"gen": 1 << 40}]
)
def test_a_member_with_a_damaged_super_block_stays_with_its_target(images: Images, number: int, change: Any) -> None:
    target = images.target("triple")
    member = target.devices[number]
    patch(member, 0, replace(SuperBlock.parse(member.read(0, 4096)), **change).pack())
    targets, unknown = group_targets(target.devices)
    assert unknown == []
    assert [t.devices for t in targets] == [target.devices]


def test_complete_targets_and_strays_stay_apart(images: Images) -> None:
    dual, triple, single = (images.target(name) for name in ("dual", "triple", "hm64x1"))
    mixed = [triple.devices[2], single.device, dual.devices[1], triple.devices[0], dual.devices[0], triple.devices[1]]
    targets, unknown = group_targets(mixed)
    assert unknown == []
    assert {t.devices for t in targets} == {dual.devices, triple.devices, single.devices}
