"""``zoned report`` against what blkzone and zbd printed for the same zones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

DEVICES = ["nullblk-cap3of4", "nullblk-ro-offline", "qemu-zns", "scsi-debug-aware", "scsi-debug-managed-runt"]


@pytest.fixture(params=DEVICES)
def case(request: pytest.FixtureRequest, vectors: Path, tmp_path: Path) -> tuple[Path, Path]:
    """``(folder with the expected texts, image)``."""
    folder = vectors / "zone-report" / request.param
    image = tmp_path / "disk.img"
    shutil.copy(folder / "disk.img.zones", tmp_path / "disk.img.zones")
    image.touch()
    return folder, image


def test_blkzone_text(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    result = program("zoned", "report", image, "--format", "blkzone")
    assert (result.status, result.err) == (0, "")
    assert result.out == (folder / "blkzone_report.txt").read_text()


def test_zbd_text(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    expected = (folder / "zbd_report_i.txt").read_text().replace("Device DEV:", f"Device {image}:")
    assert program("zoned", "report", image, "--format", "zbd", "-i").out == expected
    zones = [line for line in expected.splitlines() if line.startswith("Zone ")]
    assert program("zoned", "report", image, "--format", "zbd").out.splitlines() == zones


def test_csv(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    assert program("zoned", "report", image, "--format", "csv").out == (folder / "zbd_report.csv").read_text()


def test_filters_count_as_zbd_does(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    lines = (folder / "zbd_counts.txt").read_text().splitlines()
    expected = {title.split()[-1]: int(count.split()[0]) for title, count in pairwise(lines) if "# -ro" in title}
    assert len(expected) == 10
    for word, count in expected.items():
        out = program("zoned", "report", image, "--format", "zbd", "--filter", word).out
        assert len(out.splitlines()) == count, word


def test_json_carries_everything(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    document = json.loads(program("zoned", "report", image, "--json").out)
    assert document["schema"] == "zoned.report/2"
    (drive,) = document["drives"]
    assert drive["nr_zones"] == len(drive["zones"])
    rows = (folder / "zbd_report.csv").read_text().splitlines()[1:]
    for zone, row in zip(drive["zones"], rows, strict=True):
        number, kind, start, length, capacity, wp, condition, non_seq, reset = [f.strip() for f in row.split(",")]
        assert zone["zone"] == int(number)
        assert (zone["start_bytes"], zone["length_bytes"]) == (int(start), int(length))
        assert zone["capacity_bytes"] == int(capacity)
        has_wp = int(condition, 16) in (1, 2, 3, 4) and kind != "1"
        assert zone["wp_bytes"] == (int(wp) if has_wp else None)
        assert (zone["non_seq"], zone["reset_recommended"]) == (non_seq == "1", reset == "1")
    lines = program("zoned", "report", image, "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == [{"device": str(image), **zone} for zone in drive["zones"]]


def test_offset_and_count(case: tuple[Path, Path], program: Program) -> None:
    folder, image = case
    whole = (folder / "blkzone_report.txt").read_text().splitlines()
    zone_sectors = int(whole[0].split("len ")[1].split(",")[0], 16)
    result = program("zoned", "report", image, "--format", "blkzone", "-o", 2 * zone_sectors + 1, "-c", 3)
    assert result.out.splitlines() == whole[2:5]
    beyond = program("zoned", "report", image, "--offset", "0x7fffffff")
    assert (beyond.status, beyond.out, beyond.err.count("\n")) == (16, "", 1)


def test_summary(case: tuple[Path, Path], program: Program) -> None:
    _, image = case
    text = program("zoned", "report", image, "--summary").out
    assert text.startswith(f"{image}: host-")
    document = json.loads(program("zoned", "report", image, "--summary", "--json").out)
    assert document["schema"] == "zoned.report.summary/1"
    (facts,) = document["drives"]
    assert sum(facts["summary"]["conditions"].values()) == facts["nr_zones"]


def test_a_regular_file_is_no_zoned_drive(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "plain.img"
    image.write_bytes(bytes(1 << 20))
    result = program("zoned", "report", image)
    assert result.status == 8
    assert result.err == f"zoned: {image}: not a zoned device\n"


def test_a_zone_table_by_itself(case: tuple[Path, Path], program: Program) -> None:
    _, image = case
    assert (
        program("zoned", "report", f"{image}.zones", "--format", "csv").out
        == program("zoned", "report", image, "--format", "csv").out
    )


def test_several_drives(case: tuple[Path, Path], program: Program) -> None:
    _, image = case
    again = image.with_name("again.img")
    shutil.copyfile(image, again)
    shutil.copyfile(f"{image}.zones", f"{again}.zones")
    document = json.loads(program("zoned", "report", image, again, "--json").out)
    assert document["schema"] == "zoned.report/2"
    assert [drive["device"] for drive in document["drives"]] == [str(image), str(again)]
    assert document["drives"][:1] == json.loads(program("zoned", "report", image, "--json").out)["drives"]
    lines = program("zoned", "report", image, again).out.splitlines()
    assert lines.count(f"{image}:") == lines.count(f"{again}:") == 1


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path, program: Program) -> None:
    """More output than a pipe holds, to a reader that takes one byte."""
    image = tmp_path / "disk.img"
    program("zoned", "image", "create", image, "--size", "512M", "--zone-size", "64K", "--conventional", "8")
    command = [sys.executable, "-m", "zoned_tools", "report", str(image), "--format", "blkzone"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)
