"""``zoned check --deep=data``: file data against the checksum tree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.btrfs.images import STATES, poke
from tests.formats.btrfs.nodes import own_devices

if TYPE_CHECKING:
    from tests.programs import Program


def check(program: Program, *words: object) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    done = program("zoned", "check", "--json", *words)
    [row] = done.json["devices"]
    return done.status, row["facts"], row["findings"]


@pytest.mark.parametrize("name", ["g01-dup-healthy", "g18-raid1-two-healthy", "g21-bgt-cap-active", "g25-25-commits"])
def test_sound_data(name: str, tmp_path: Path, program: Program) -> None:
    images = own_devices(name, tmp_path)
    status, facts, findings = check(program, "--deep=data", *images)
    assert status == 0
    assert {f["severity"] for f in findings} <= {"info"}
    data = sum(g["used"] for g in STATES[name]["block_groups"] if "DATA" in g["kind"].split("|"))
    assert facts["data_checked_bytes"] == data > 0
    assert facts["trees_checked"] == "all"
    assert "data_checked_bytes" not in check(program, "--deep", *images)[1]
    assert check(program, "--deep", "--set", "data=yes", *images)[1] == facts


def test_data_that_are_bad(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)
    rows = program("zoned", "btrfs", "extents", "--json", "/d/big", image).json["extents"]
    at, logical = rows[0]["copies"][0]["physical_bytes"], rows[0]["logical_bytes"]
    poke(image, at + 4096, b"\xa5" * 5000)
    assert check(program, "--deep", image)[0] == 0
    status, _, findings = check(program, "--deep=data", image)
    assert status == 4
    [lost] = [f for f in findings if f["severity"] == "error"]
    assert lost["id"] == "btrfs.data-lost"
    assert lost["where"] == {"logical": logical + 4096, "length_bytes": 8192, "block_group": 16777216}
    assert "lost, in /d/big: " in lost["message"]


def test_data_in_a_dead_and_in_a_reset_zone(tmp_path: Path, program: Program) -> None:
    for name in ("g07-data-offline", "g09-data-reset"):
        images = own_devices(name, tmp_path / name)
        status, _, findings = check(program, "--deep=data", *images)
        assert status == 4
        lost = [f["where"]["length_bytes"] for f in findings if f["id"] == "btrfs.data-lost"]
        assert sum(lost) == 135168
        assert any("/d/big" in f["message"] for f in findings)


def test_other_layouts_do_not_have_it(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "z.img"
    program("zoned", "image", "create", image, "--size", "64MiB", "--zone-size", "4MiB")
    program("mkzonefs", image)
    assert program("zoned", "check", "--deep", image).status == 0
    assert program("zoned", "check", "--deep=data", image).status == 16
    assert program("zoned", "check", "--deep=trees", image).status == 16
