"""Inspect: the decoded metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, corrupted, corruptions, facts, patch
from zoned_tools.formats.contract import Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.dump import dump
from zoned_tools.formats.dm_zoned.inspect import inspect
from zoned_tools.formats.dm_zoned.probe import probe

CORRUPTIONS = corruptions()


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
def test_inspect_and_probe_of_damaged_metadata(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    tree = inspect(target)
    assert tree["set_used"] == variant.get("set_used", tree["set_used"])
    json.dumps(tree)
    for device in target.devices:
        probe(device, 0)


def chosen_by_user(target: Target, number: str) -> Target:
    return replace(target, settings=LAYOUT.parse_settings({"use-set": number}, Journey.READ))


def test_the_set_that_the_user_wants_is_shown(images: Images) -> None:
    """Chunk 0 is unmapped in the primary set alone."""
    target = images.target("hm64x1")
    patch(target.device, 4096, b"\xff" * 8)
    trees: list[Any] = [inspect(chosen_by_user(target, number)) for number in "01"]
    assert [tree["set_used"] for tree in trees] == [0, 1]
    assert [[row["chunk"] for row in tree["chunks"]][:2] for tree in trees] == [[1, 2], [0, 1]]
    dumps: list[Any] = [dump(chosen_by_user(target, number)) for number in "01"]
    maps = [document["sets"][0] for document in dumps]
    assert [row["set"] for row in maps] == [0, 1]
    assert maps[0]["map"][0][0] == 1
    assert maps[1]["map"][0][0] == 0


def test_a_set_that_cannot_be_used_is_told_with_the_other_one(images: Images) -> None:
    target = images.target("hm64x1")
    patch(target.device, 16, b"\x01")
    for room in (inspect, dump):
        with pytest.raises(NoValidSuperBlockError, match="No valid superblock") as caught:
            room(chosen_by_user(target, "0"))
        assert "set 0 cannot be used" in caught.value.hint
        assert room(chosen_by_user(target, "1"))
