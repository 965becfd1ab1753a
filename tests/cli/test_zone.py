"""``zoned zone``: what it refuses, and what it says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program


@pytest.fixture
def drive(tmp_path: Path, zoned: Program) -> Path:
    image = tmp_path / "drive.img"
    assert zoned("image", "create", image, "--zones", 20, "--zone-size", "1MiB", "--conventional", 4).status == 0
    return image


@pytest.fixture
def files(drive: Path, program: Program, zoned: Program, tmp_path: Path) -> Path:
    """A zonefs volume with a file that is written."""
    assert program("mkzonefs", "-L", "logs", drive).status == 0
    (tmp_path / "data").write_bytes(b"x" * 4096)
    assert zoned("zonefs", "put", drive, "/seq/3", tmp_path / "data").status == 0
    return drive


@pytest.mark.parametrize("which", [("--all",), ("--zone", 7), ("--zone", 4, "--count", 16)])
def test_reset_of_a_recognised_drive_wants_force(files: Path, zoned: Program, which: tuple[object, ...]) -> None:
    before = files.read_bytes()
    refused = zoned("zone", "reset", files, *which)
    assert (refused.status, refused.out) == (8, "")
    assert "carries zonefs 'logs'" in refused.err
    assert "zone 7 is written" in refused.err
    assert files.read_bytes() == before
    assert zoned("zone", "reset", files, *which, "--force").status == 0
    assert zoned("report", files, "--filter", "em", "--json").json["drives"][0]["zones"]


def test_empty_zones_of_a_recognised_drive_are_reset_without_force(files: Path, zoned: Program) -> None:
    assert zoned("zone", "reset", files, "--zone", 9).status == 0


def test_finish_of_a_recognised_drive_wants_force(files: Path, zoned: Program) -> None:
    assert "still to be written" in zoned("zone", "finish", files, "--zone", 9).err
    assert zoned("zone", "finish", files, "--zone", 9, "--force").status == 0


def test_a_forced_reset_can_be_undone(files: Path, zoned: Program, tmp_path: Path) -> None:
    assert zoned("zone", "reset", files, "--zone", 7, "--force", "--undo", tmp_path / "u").status == 0
    assert zoned("zonefs", "cat", files, "/seq/3").out == ""
    assert zoned("undo", tmp_path / "u", files).status == 0
    assert zoned("zonefs", "cat", files, "/seq/3").out == "x" * 4096


def test_an_unrecognised_drive_needs_no_force(drive: Path, zoned: Program) -> None:
    assert zoned("zone", "finish", drive, "--zone", 9).status == 0
    assert zoned("zone", "reset", drive, "--all").status == 0


@pytest.mark.parametrize(
    "which", [("--zone", 20), ("--zone", 19, "--count", 2), ("--zone", 4, "--count", 17), ("--all", "--count", 2)]
)
def test_zones_past_the_end_are_refused(drive: Path, zoned: Program, which: tuple[object, ...]) -> None:
    for dry in ((), ("--dry-run",)):
        refused = zoned("zone", "reset", drive, *which, *dry)
        assert (refused.status, refused.out) == (16, "")


def conditions(drive: Path, zoned: Program) -> list[str]:
    return [zone["condition"] for zone in zoned("report", drive, "--json").json["drives"][0]["zones"]]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_all_leaves_out_the_zones_that_cannot_take_the_operation(
    drive: Path, zoned: Program, dry_run: tuple[str, ...]
) -> None:
    """Conventional and dead zones, and for close those that are not open (zone-report.md 6.1)."""
    assert zoned("zone", "finish", drive, "--zone", 5).status == 0
    for operation, expected in (("open", "explicit-open"), ("close", "empty"), ("finish", "full"), ("reset", "empty")):
        before = conditions(drive, zoned)
        ran = zoned("zone", operation, drive, "--all", *dry_run)
        assert ran.status == 0, ran.err
        after = conditions(drive, zoned)
        if dry_run:
            assert after == before
            continue
        assert after[:4] == ["not-wp"] * 4
        assert after[5] == ("empty" if operation == "reset" else "full")
        assert set(after[6:]) == {expected}
