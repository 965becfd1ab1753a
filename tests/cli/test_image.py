"""Emulated drives through the command line: made, imported, converted, managed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image
from zoned_tools.device.opening import open_device
from zoned_tools.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program


def report(program: Program, image: Path) -> list[dict[str, Any]]:
    zones: list[dict[str, Any]] = program("zoned", "report", image, "--json").json["drives"][0]["zones"]
    return zones


@pytest.mark.parametrize(
    "options",
    [
        ("--zones", "16", "--zone-size", "1MiB", "--conventional", "4"),
        ("--size", "66M", "--zone-size", "8M", "--block-size", "512"),
        ("--zones", "9", "--zone-size", "4MiB", "--zone-capacity", "3MiB", "--model", "zns", "--max-open", "3"),
        ("--zones", "32", "--zone-size", "64KiB", "--model", "host-aware", "--conventional", "2"),
    ],
    ids=["host-managed", "runt", "zns", "host-aware"],
)  # fmt: skip
def test_zbd_reads_our_sidecars(options: tuple[str, ...], tmp_path: Path, program: Program) -> None:
    image = tmp_path / "disk.img"
    assert program("zoned", "image", "create", image, *options).status == 0
    ours = program("zoned", "report", image, "--format", "zbd", "-i").out
    ours = ours.replace(f"Device {image}:", f"Device {image}.zones:")
    done = subprocess.run(["zbd", "report", "-i", f"{image}.zones"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ours.splitlines()
    done = subprocess.run(["zbd", "report", "-csv", f"{image}.zones"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == program("zoned", "report", image, "--format", "csv").out.splitlines()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--zones", "4", "--zone-size", "3MiB"), "power of two"),
        (("--zones", "4", "--conventional", "5"), "more than all"),
        (("--zones", "4", "--zone-capacity", "512MiB"), "zone capacity"),
        (("--zones", "4", "--model", "zns", "--conventional", "1"), "no conventional"),
        (("--zones", "4", "--block-size", "1000"), "block size"),
        (("--size", "1e9"), "not a size"),
        (("--size", "-5"), "not a size"),
        ((), "how large"),
        (("--size", "1GiB", "--zones", "4"), "how large"),
        (("--zones", "99999999999"), "more than any drive"),
    ],
)
def test_impossible_drives_are_refused(options: tuple[str, ...], words: str, tmp_path: Path, program: Program) -> None:
    result = program("zoned", "image", "create", tmp_path / "disk.img", *options)
    assert result.status == 16
    assert words in result.err
    assert result.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_an_existing_image_needs_force(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "disk.img"
    assert program("zoned", "image", "create", image, "--zones", 4).status == 0
    again = program("zoned", "image", "create", image, "--zones", 8)
    assert (again.status, "already exists" in again.err) == (8, True)
    assert program("zoned", "image", "create", image, "--zones", 8, "--force").status == 0
    assert len(report(program, image)) == 8


def test_zone_management(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "disk.img"
    program(
        "zoned", "image", "create", image, "--zones", 16, "--zone-size", "1MiB", "--conventional", 4, "--max-open", 2
    )
    assert program("zoned", "zone", "open", image, "--zone", 5).status == 0
    assert program("zoned", "zone", "finish", image, "--offset", 6 * 2048, "--count", 2).status == 0
    conditions = [zone["condition"] for zone in report(program, image)]
    assert conditions[4:8] == ["empty", "explicit-open", "full", "full"]
    assert program("zoned", "zone", "close", image, "-z", 5).status == 0
    assert program("zoned", "zone", "open", image, "-z", 8, "-c", 3).status == 8, "past the open limit"
    assert program("zoned", "zone", "reset", image, "--all").status == 0
    assert {zone["condition"] for zone in report(program, image)} == {"empty", "not-wp"}
    for wrong in (("--zone", 3), ("--zone", 16), ("--offset", 100), (), ("--all", "--zone", 4)):
        result = program("zoned", "zone", "reset", image, *wrong)
        assert result.status in (8, 16)
        assert result.err.count("\n") == 1
    dry = program("zoned", "zone", "finish", image, "--zone", 5, "--dry-run")
    assert "finish zone 5" in dry.out
    assert report(program, image)[5]["condition"] == "empty"


@pytest.mark.parametrize(
    "device", ["nullblk-cap3of4", "qemu-zns", "scsi-debug-aware", "scsi-debug-managed-runt", "nullblk-ro-offline"]
)
def test_import_of_a_blkzone_report(device: str, vectors: Path, tmp_path: Path, program: Program) -> None:
    folder = vectors / "zone-report" / device
    text = (folder / "blkzone_report.txt").read_text()
    sectors = sum(int(line.split("len ")[1].split(",")[0], 16) for line in text.splitlines())
    raw = tmp_path / "content.raw"
    raw.write_bytes(os.urandom(1 << 16))
    os.truncate(raw, sectors * 512)
    image = tmp_path / "disk.img"
    block = "4096" if device in ("qemu-zns", "scsi-debug-managed-runt") else "512"
    arguments = ("--zones", folder / "blkzone_report.txt", "--data", raw, "--block-size", block)
    assert program("zoned", "image", "import", image, *arguments).status == 0
    assert program("zoned", "report", image, "--format", "blkzone").out == text
    with open_image(str(image)) as drive, open(raw, "rb") as source:
        first = drive.zones(0, 1)[0]
        shown = 4096 if first["type"] == 2 else 1 << 16
        assert drive.read(0, shown) == source.read(shown)


def test_import_of_a_zbd_dump_pair(vectors: Path, tmp_path: Path, program: Program) -> None:
    shutil.copy(vectors / "zone-report/nullblk-cap3of4/disk.img.zones", tmp_path / "x_zone_info.dump")
    with open(tmp_path / "x_zone_data.dump", "wb") as data:
        data.truncate(64 << 20)
        data.seek(8 << 20)
        data.write(b"sequential zone 2" * 100)
    image = tmp_path / "disk.img"
    assert program("zoned", "image", "import", image, "--zones", tmp_path / "x_zone_info.dump").status == 0
    pair = program("zoned", "report", tmp_path / "x_zone_data.dump", "--format", "csv")
    assert pair.status == 0, "the pair opens as it is"
    assert pair.out == program("zoned", "report", image, "--format", "csv").out
    with open_image(str(image)) as drive:
        assert drive.read(8 << 20, 1700) == b"sequential zone 2" * 100


def test_import_refuses_nonsense(tmp_path: Path, program: Program) -> None:
    (tmp_path / "report.txt").write_text("  start: 0x000000000, len 0x002000, what\n")
    (tmp_path / "content.raw").write_bytes(bytes(4096))
    result = program(
        "zoned",
        "image",
        "import",
        tmp_path / "d.img",
        "--zones",
        tmp_path / "report.txt",
        "--data",
        tmp_path / "content.raw",
    )
    assert result.status == 8
    assert "line 1" in result.err
    assert not (tmp_path / "d.img").exists()


def test_a_zloop_directory_is_a_drive(tmp_path: Path, program: Program) -> None:
    image, folder, back = tmp_path / "disk.img", tmp_path / "zloop", tmp_path / "back.img"
    program("zoned", "image", "create", image, "--zones", 12, "--zone-size", "1MiB", "--conventional", 3)
    with open_device(str(image), writable=True) as drive:
        drive.write(4096, b"c" * 8192)
        drive.write(4 << 20, b"s" * (1 << 20))
        drive.write(6 << 20, b"t" * 12288)
    assert program("zoned", "image", "convert", image, folder).status == 0
    assert (folder / "seq-000006").stat().st_size == 12288
    assert (folder / "seq-000005").stat().st_size == 0
    assert (folder / "cnv-000002").stat().st_size == 1 << 20
    with open_device(str(folder), writable=True) as drive:
        assert drive.read(4096, 8192) == b"c" * 8192
        drive.write((6 << 20) + 12288, b"u" * 4096)
        drive.manage(ZoneOperation.RESET, 4)
        with pytest.raises(DeviceError):
            drive.write((6 << 20) + 65536, b"x" * 4096)
        with pytest.raises(BusyError):
            open_device(str(folder))
    assert (folder / "seq-000006").stat().st_size == 16384
    assert (folder / "seq-000004").stat().st_size == 0
    assert program("zoned", "image", "convert", folder, back).status == 0
    assert [zone["condition"] for zone in report(program, back)][3:8] == ["empty"] * 3 + ["closed", "empty"]
    with open_device(str(back)) as drive:
        assert drive.read(6 << 20, 16384) == b"t" * 12288 + b"u" * 4096


def test_an_image_in_use_is_refused(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "disk.img"
    program("zoned", "image", "create", image, "--zones", 4, "--zone-size", "1MiB")
    with open_image(str(image), writable=True):
        result = program("zoned", "zone", "reset", image, "--all")
    assert (result.status, result.err) == (8, f"zoned: {image}: in use by another program\n")


def test_repair_of_a_torn_zone_table(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "drive.img"
    program("zoned", "image", "create", image, "--zones", 16, "--zone-size", "1MiB", "--conventional", 4)
    sidecar = tmp_path / "drive.img.zones"
    whole = sidecar.read_bytes()
    assert program("zoned", "image", "repair", image).status == 0
    sidecar.write_bytes(whole[:-64])
    assert program("zoned", "report", image).status == 8
    dry = program("zoned", "image", "repair", image, "--dry-run", "--json")
    assert (dry.status, dry.json["changed"]) == (0 if dry.json["repaired"] else 4, False)
    assert sidecar.read_bytes() == whole[:-64]
    done = program("zoned", "image", "repair", image)
    assert done.status in (1, 4)
    if done.status == 1:
        assert sidecar.read_bytes() == whole
    sidecar.write_bytes(b"")
    lost = program("zoned", "image", "repair", image, "--json")
    assert (lost.status, lost.json["changed"]) == (4, False)
    assert lost.json["missing"]
