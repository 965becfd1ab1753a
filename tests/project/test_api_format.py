"""Formatting through the Python API at a place on the drive."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import zoned_tools
from tests.programs import Program

MIB = 1 << 20
START = 256 * MIB // 512
"""Zone 1: a ZDM begins at a zone, and not at the drive's first."""


@pytest.fixture
def drive(tmp_path: Path, zoned: Program) -> Path:
    """Sparse; with the partition table that a ZDM is used behind."""
    path = tmp_path / "drive.img"
    made = zoned("image", "create", path, "--zones", 40, "--zone-size", "256MiB", "--conventional", 8)
    assert made.status == 0, made.err
    entry = struct.pack("<B3xB3xII", 0, 0x83, START, 39 * 256 * MIB // 512)
    with path.open("r+b") as file:
        file.write((bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa")
    return path


def beginning(drive: Path) -> bytes:
    with drive.open("rb") as file:
        return file.read(4 * MIB)


def test_a_layout_that_needs_a_partition(drive: Path, tmp_path: Path, zoned: Program) -> None:
    before = beginning(drive)
    with pytest.raises(zoned_tools.ContentError, match="partition table"):
        zoned_tools.format(drive, layout="zdm", label="shelf")
    undo = tmp_path / "before.undo"
    zoned_tools.format(drive, layout="zdm", start_sector=START, label="shelf", undo=undo)
    found = zoned_tools.probe(drive)
    assert found is not None
    assert (found.layout, found.label, found.start_bytes) == ("zdm", "shelf", START * 512)
    with zoned_tools.open_target(drive, start_sector=START) as target:
        assert target.check().verdict == "clean"
    assert beginning(drive) == before, "what is in front of the partition stays"
    with pytest.raises(zoned_tools.ContentError, match="zdm"):
        zoned_tools.format(drive, layout="zdm", start_sector=START)
    zoned_tools.format(drive, layout="zdm", start_sector=START, label="again", force=True, no_undo=True)
    assert zoned_tools.probe(drive, start_sector=START).label == "again"  # type: ignore[union-attr]


def test_a_layout_that_sees_its_partition_alone(drive: Path, tmp_path: Path, zoned: Program) -> None:
    undo = tmp_path / "before.undo"
    zoned_tools.format(drive, layout="zonefs", start_sector=START, label="part", undo=undo)
    found = zoned_tools.probe(drive)
    assert found is not None
    assert (found.layout, found.label, found.start_bytes) == ("zonefs", "part", START * 512)
    assert zoned("undo", undo, drive).status == 0
    assert zoned_tools.probe(drive) is None


def test_a_whole_drive_is_undone(drive: Path, tmp_path: Path, zoned: Program) -> None:
    """What a format with a random UUID has put there is known to its undo file."""
    undo = tmp_path / "before.undo"
    zoned_tools.format(drive, layout="zonefs", force=True, undo=undo)
    assert zoned("undo", undo, drive).status == 0
    assert zoned_tools.probe(drive) is None


def test_what_has_the_whole_drive_is_not_overwritten(drive: Path) -> None:
    zoned_tools.format(drive, layout="zonefs", force=True, no_undo=True)
    with pytest.raises(zoned_tools.ContentError, match="zonefs"):
        zoned_tools.format(drive, layout="zdm", start_sector=START)


def test_a_place_that_is_not_on_the_drive(drive: Path) -> None:
    for layout in ("zdm", "zonefs"):
        with pytest.raises(zoned_tools.ZonedError):
            zoned_tools.format(drive, layout=layout, start_sector=1 << 40)
        with pytest.raises(zoned_tools.ZonedError):
            zoned_tools.format(drive, layout=layout, start_sector=-START)
