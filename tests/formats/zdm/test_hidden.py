"""A ZDM at a zone boundary that no partition table names is recognised, and not written over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

START = 524288


@pytest.fixture
def drive(tmp_path: Path, program: Program) -> Path:
    image = tmp_path / "drive.img"
    kind = ("--zones", 24, "--zone-size", "256MiB", "--conventional", 12)
    assert program("zoned", "image", "create", image, *kind).status == 0
    assert program("zdmadm", "--create", "--no-undo", "--start", START, "-l", "shelf", image).status == 0
    return image


def test_it_is_recognised_without_a_start(drive: Path, zoned: Program) -> None:
    (row,) = zoned("probe", drive, "--json").json["devices"]
    assert (row["layout"], row["label"]) == ("zdm", "shelf")
    assert zoned("check", drive).status == 0
    assert zoned("zdm", "status", drive).status == 0


@pytest.mark.parametrize(
    "command",
    [
        ("mkzonefs",),
        ("dmzadm", "--format"),
        ("zoned", "zone", "finish", "--zone", 13),
    ],
    ids=lambda command: command[0] + command[1] if len(command) > 1 else command[0],
)
def test_nothing_goes_over_it_unasked(drive: Path, program: Program, command: tuple[object, ...]) -> None:
    refused = program(*command, drive)
    assert refused.status != 0
    assert "zdm" in refused.err
    assert program("zoned", "check", "--start", START, drive).status == 0
