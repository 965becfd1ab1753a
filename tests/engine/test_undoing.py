"""Undo files that every change writes, and their playback, through the programs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.programs import Program
from zoned_tools.device.undo_files import list_undo_files

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"


@pytest.fixture
def undo_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "undo"
    monkeypatch.setenv("ZONED_UNDO_DIR", str(directory))
    return directory


@pytest.fixture
def dual(tmp_path: Path) -> list[Path]:
    """A regular device and a zoned one with a populated target."""
    with tarfile.open(VECTORS / "dual.tar.xz") as archive:
        archive.extractall(tmp_path, [m for m in archive.getmembers() if m.name.startswith("disk")], filter="data")
    return [tmp_path / "disk0.img", tmp_path / "disk1.img"]


def contents(devices: list[Path]) -> list[bytes]:
    files = [*devices, *(Path(f"{device}.zones") for device in devices)]
    return [file.read_bytes() for file in files if file.exists()]


def test_a_format_of_two_devices_is_undone(dual: list[Path], undo_files: Path, program: Program) -> None:
    before = contents(dual)
    assert program("dmzadm", "--format", *dual, "--force", "--label=new").status == 0
    assert contents(dual) != before
    (saved,) = list_undo_files()
    assert saved.devices == tuple(map(str, dual))
    assert saved.path.startswith(str(undo_files))
    assert program("zoned", "undo", saved.path, *dual).status == 0
    assert contents(dual) == before


def test_a_restore_onto_another_target_is_undone(dual: list[Path], undo_files: Path, program: Program) -> None:
    dump = dual[0].parent / "dump.json"
    assert program("zoned", "dump", *dual, "-o", dump).status == 0
    assert program("dmzadm", "--format", *dual, "--force", "--label=new").status == 0
    before = contents(dual)
    assert program("zoned", "restore", *dual, "-i", dump).status == 0
    newest = list_undo_files()[0]
    assert program("zoned", "undo", newest.path, *dual).status == 0
    assert contents(dual) == before
    assert undo_files.is_dir()


def test_undo_wants_its_devices_and_no_others(
    dual: list[Path], undo_files: Path, program: Program, tmp_path: Path
) -> None:
    assert program("dmzadm", "--relabel", *dual, "--label=other").status == 0
    (saved,) = list_undo_files()
    before = contents(dual)
    unnamed = program("zoned", "undo", saved.path)
    assert unnamed.status == 16
    assert str(dual[0]) in unnamed.err
    assert program("zoned", "undo", saved.path, dual[0]).status == 8
    assert program("zoned", "undo", saved.path, *reversed(dual)).status == 8
    image = tmp_path / "x.img"
    program("zoned", "image", "create", image, "--zones", 10, "--zone-size", "1MiB")
    assert program("zoned", "undo", saved.path, dual[0], image).status == 8
    assert contents(dual) == before
    assert undo_files.is_dir()


def test_no_undo_saves_nothing(dual: list[Path], undo_files: Path, program: Program) -> None:
    with dual[0].open("r+b") as file:
        file.write(bytes(4096))
    assert program("zoned", "check", "--repair", "--no-undo", *dual).status == 1
    assert list_undo_files() == []
    assert not undo_files.exists()


def test_undo_files_are_listed(dual: list[Path], undo_files: Path, program: Program) -> None:
    assert program("zoned", "undo", "--list").out == "no undo files\n"
    with dual[0].open("r+b") as file:
        file.write(bytes(4096))
    repaired = program("zoned", "check", "--repair", *dual)
    (row,) = program("zoned", "undo", "--list", "--json").json["files"]
    assert row["path"] in program("zoned", "undo", "--list").out
    assert row["path"] in repaired.err
    assert row["identity"].startswith("dm-zoned ")
    assert undo_files.is_dir()
