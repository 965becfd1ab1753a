"""A zone table that is not this drive's: one finding, no repair without consent, no zeroes for content."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.archives import expand_extents, set_zone
from tests.conftest import VECTORS
from tests.programs import Program
from zoned_tools.device.image import read_dump
from zoned_tools.device.zones import ZoneCondition, is_sequential, written_sectors

COMPARED = {"zdm.fwd.beyond_wp", "zdm.wp.ahead", "zdm.wp.behind"}


def _emptied(folder: Path, name: str, most: int = 1 << 20) -> Path:
    """A vector with the zone table of an empty drive, as far as ``most`` zones go."""
    image = folder / "disk.img"
    expand_extents(VECTORS / f"zdm/{name}", image)
    drive = read_dump(f"{image}.zones")
    written = (is_sequential(drive.table) & (written_sectors(drive.table) > 0)).nonzero()[0].tolist()
    for zone in written[:most]:
        set_zone(image, zone, wp=zone * drive.geometry.zone_bytes, condition=ZoneCondition.EMPTY)
    return image


def _codes(program: Program, image: Path) -> set[str]:
    return {row["id"] for row in program("zoned", "check", image, "--json").json["devices"][0]["findings"]}


@pytest.mark.parametrize("name", ["pop-small", "pop-journal"])
def test_the_table_of_an_empty_drive(name: str, tmp_path: Path, program: Program) -> None:
    """Everything would read as zeroes: an export stops, and its way out gives the content."""
    image, out = _emptied(tmp_path, name), tmp_path / "out"
    assert "zdm.zones-foreign" in _codes(program, image)
    assert not _codes(program, image) & COMPARED
    for words in (["export", image, "-q", "-o", out], ["map", image], ["export", image, "--skip-errors", "-o", out]):
        result = program("zoned", *words)
        assert result.status == 8
        assert "the zone table is not this drive's" in result.err
        assert "--zones content" in result.err
    assert not out.exists()
    before = image.stat().st_mtime_ns
    result = program("zoned", "check", "--repair", image)
    assert result.status == 4
    assert "--allow zdm.zones-foreign" in result.err
    assert image.stat().st_mtime_ns == before
    assert program("zoned", "export", image, "--zones", "content", "-q", "-o", out).status == 0
    expand_extents(VECTORS / f"zdm/{name}", image)
    real = tmp_path / "real"
    assert program("zoned", "export", image, "-q", "-o", real).status == 0
    subprocess.run(["cmp", out, real], check=True)


def test_with_consent_the_table_is_believed(tmp_path: Path, program: Program) -> None:
    image = _emptied(tmp_path, "pop-clean")
    result = program("zoned", "check", "--repair", "--allow", "zones-foreign", "--no-undo", image)
    assert result.status == 1, result.err
    assert program("zoned", "check", image).status == 0
    assert program("zoned", "export", image, "-q", "-o", tmp_path / "out").status == 0


def test_one_zone_that_was_reset_is_told_as_before(tmp_path: Path, program: Program) -> None:
    codes = _codes(program, _emptied(tmp_path, "pop-clean", 1))
    assert "zdm.zones-foreign" not in codes
    assert codes >= {"zdm.fwd.beyond_wp", "zdm.wp.ahead"}
