"""Inspect: the decoded metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, corrupted, corruptions, facts
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
