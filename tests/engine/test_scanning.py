"""Metadata found by looking at everything that is written, when nothing points to them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.archives import poke, set_zone, unpack
from zoned_tools.device.zones import ZoneCondition

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

BLOCK = 4096


def test_a_dm_zoned_target_without_super_blocks(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    before = zoned("scan", image, "--json", "-q")
    found = before.json["layouts"]["dm-zoned"]
    assert [(row["offset_bytes"], row["generation"]) for row in found["super_blocks"]] == [(0, 23), (1 << 20, 23)]
    tables = [(row["offset_bytes"], row["blocks"], row["mapped_chunks"]) for row in found["mapping_tables"]]
    assert tables == [(BLOCK, 1, 22), ((1 << 20) + BLOCK, 1, 22)]
    assert before.json["unreadable_bytes"] == 0
    assert before.json["scanned_bytes"] < image.stat().st_size
    poke(image, 0, bytes(BLOCK))
    poke(image, 1 << 20, bytes(BLOCK))
    assert zoned("probe", image, "--json").json["devices"][0]["layout"] is None
    after = zoned("scan", image, "-q")
    assert after.status == 0
    assert "byte 4096: 1 blocks of a mapping table, 22 chunks mapped, 2 with a buffer zone" in after.out


def test_btrfs_trees_without_a_super_block(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "btrfs-zoned/g01-dup-healthy.tar.xz", tmp_path) / "disk.img"
    zone = zoned("report", image, "--json").json["drives"][0]["zones"][0]["length_bytes"]
    supers = zoned("btrfs", "supers", image, "--json").json["rings"][0]["kernel_choice"]
    poke(image, 0, bytes(2 * zone))
    found = zoned("scan", image, "--json", "-q").json["layouts"]["btrfs"]
    names = {row["name"]: row for row in found["trees"]}
    assert names["root"]["newest_generation"] <= supers["generation"]
    assert found["node_bytes"] in (4096, 16384)


def test_unreadable_blocks_are_passed_over_and_said(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    (tmp_path / "disk.img.map").write_text(f"0 +\n0 {BLOCK} -\n{BLOCK} {image.stat().st_size - BLOCK} +\n")
    result = zoned("scan", image, "-q")
    assert result.status == 4
    assert f"{BLOCK} of them unreadable" in result.out
    assert "byte 0:" not in result.out


def test_nothing_to_find(tmp_path: Path, zoned: Program) -> None:
    path = tmp_path / "plain.img"
    path.write_bytes(bytes(range(256)) * 4096)
    result = zoned("scan", path, "-q")
    assert result.status == 0
    assert result.out == f"{path}: no metadata found in 1048576 written bytes\n"
    assert zoned("scan", path, "--layout", "zonefs").status == 16


def test_an_offline_zone_does_not_end_a_scan(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    set_zone(image, 15, condition=ZoneCondition.OFFLINE)
    result = zoned("scan", image, "-q")
    assert result.status == 0, result.err
    assert "byte 0: a super block" in result.out
