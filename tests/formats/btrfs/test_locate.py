"""``zoned map`` of btrfs: every copy of a logical address, and whose a zone is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.formats.btrfs.images import STATES, Images

if TYPE_CHECKING:
    from tests.programs import Program


@pytest.mark.parametrize("name", [name for name in STATES if "map" in STATES[name]])
def test_copies_of_blocks(name: str, images: Images, program: Program) -> None:
    for wanted in STATES[name]["map"]:
        block = wanted["logical_block"]
        shown = program("zoned", "map", "--json", "--at", block, *images(name))
        assert shown.status == 0, shown.err
        assert shown.json["schema"] == "zoned.map/1"
        rows = shown.json["extents"]
        assert [{key: row[key] for key in wanted["copies"][0]} for row in rows] == wanted["copies"]
        assert {row["logical_block"] for row in rows} == {block}
        assert [row["copy"] for row in rows] == list(range(1, len(rows) + 1))
        same = program("zoned", "map", "--json", "--byte", f"{block * 4096 + 100}+200", *images(name))
        assert same.json["extents"] == rows


def test_why_and_ranges(images: Images, program: Program) -> None:
    """A range ends at the write pointer of a copy, and goes on behind its chunk."""
    [image] = images("g05-dup-reset2")
    rows = program("zoned", "map", "--json", "--at", f"{25165824 // 4096 - 2}+1026", image).json["extents"]
    assert rows[0]["why"].startswith("SYSTEM DUP, block group 20971520, copy 1 of 2, zone 5")
    written = 1064960 // 4096
    metadata = [(r["logical_block"], r["blocks"], r["copy"], r["state"]) for r in rows if r["zone"] in (7, 8)]
    start = 25165824 // 4096
    assert metadata == [
        (start, written, 1, "ok"),
        (start, written, 2, "above-wp"),
        (start + written, 1024 - written, 1, "above-wp"),
        (start + written, 1024 - written, 2, "above-wp"),
    ]
    nowhere, data = program("zoned", "map", "--json", "--at", "100+4000", image).json["extents"]
    assert (nowhere["why"], nowhere["device"], nowhere["physical_block"]) == ("in no chunk", None, None)
    assert (nowhere["logical_block"], nowhere["blocks"], nowhere["copy"]) == (100, 3996, None)
    assert (data["logical_block"], data["blocks"], data["zone"]) == (4096, 4, 4)


def test_everything(images: Images, program: Program) -> None:
    """Without a range every chunk, in every copy; rows of stripes one by one."""
    rows = program("zoned", "map", "--json", *images("g20-raid0-two-healthy")).json["extents"]
    groups = STATES["g20-raid0-two-healthy"]["block_groups"]
    assert sum(row["blocks"] for row in rows) == sum(1024 * (len(g["stripes"])) for g in groups)
    assert {row["blocks"] for row in rows if "RAID0" in row["why"] and row["state"] == "ok"} <= set(range(1, 17))


def test_a_device_that_is_missing(images: Images, program: Program) -> None:
    rows = program("zoned", "map", "--json", "--at", 7492, images("g18-raid1-two-healthy")[0]).json["extents"]
    assert [(row["devid"], row["state"], row["device"] is None) for row in rows] == [
        (1, "ok", False),
        (2, "missing", True),
    ]


def test_whose_a_zone_is(images: Images, program: Program) -> None:
    [image] = images("g01-dup-healthy")
    document = program("zoned", "map", "--json", "--zone", 8, image).json
    [row] = document["zones"]
    assert document["extents"] == []
    wanted = next(z for z in STATES["g01-dup-healthy"]["zones"][0]["zones"] if z["zone"] == 8)
    assert wanted.items() <= row.items()
    assert (row["logical_bytes"], row["length_bytes"]) == (25165824, 4 << 20)
    assert program("zoned", "map", "--zone", 3, image).out.startswith(f"device {image}, devid 1, zone 3")
    assert program("zoned", "map", "--zone", 99, image).status == 16
    assert program("zoned", "map", "--zone", 1, "--at", 1, image).status == 16
