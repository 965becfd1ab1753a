"""Undo files that every change writes, and their playback, through the programs."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import Program
from zoned_tools.device.undo_files import list_undo_files
from zoned_tools.engine import changing
from zoned_tools.errors import DeviceError

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


def test_a_restore_over_another_target_wants_force_and_is_undone(
    dual: list[Path], undo_files: Path, program: Program
) -> None:
    dump = dual[0].parent / "dump.json"
    assert program("zoned", "dump", *dual, "-o", dump).status == 0
    assert program("dmzadm", "--format", *dual, "--force", "--label=new").status == 0
    before = contents(dual)
    refused = program("zoned", "restore", *dual, "-i", dump)
    assert (refused.status, refused.out) == (8, "")
    assert "the document is of dm-zoned " in refused.err
    assert contents(dual) == before
    restored = program("zoned", "restore", *dual, "-i", dump, "--force")
    assert (restored.status, restored.out) == (0, "restored: 1 error, zoned check lists them\n"), "the data are gone"
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


def test_a_restore_that_leaves_more_errors_is_refused(dual: list[Path], undo_files: Path, program: Program) -> None:
    dump = dual[0].parent / "dump.json"
    with dual[0].open("r+b") as file:
        file.seek(4096)
        good = file.read(4096)
        file.seek(4096)
        file.write(b"\x07" * 4096)
    assert program("zoned", "check", *dual).status == 4
    assert program("zoned", "dump", *dual, "-o", dump).status == 0
    with dual[0].open("r+b") as file:
        file.seek(4096)
        file.write(good)
    assert program("zoned", "check", *dual).status == 0
    before = contents(dual)
    refused = program("zoned", "restore", *dual, "-i", dump)
    assert (refused.status, refused.out) == (8, "")
    assert "leaves" in refused.err
    assert contents(dual) == before
    assert not undo_files.exists()


def broken_set(dual: list[Path]) -> None:
    with dual[0].open("r+b") as file:
        file.write(bytes(4096))


def test_the_undo_file_is_named_before_the_first_write(
    dual: list[Path], undo_files: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_set(dual)

    def fail(*_: object) -> None:
        raise DeviceError("Input/output error", device=str(dual[0]))

    monkeypatch.setattr(changing, "apply_plan", fail)
    failed = program("zoned", "check", "--repair", *dual)
    assert failed.status == 8
    (saved,) = list_undo_files()
    assert f"note: zoned undo {saved.path} DEV... takes it back" in failed.err
    assert saved.path.startswith(str(undo_files))


def test_an_undo_file_that_would_be_too_large_is_asked_for(
    dual: list[Path], undo_files: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_set(dual)
    before = contents(dual)
    monkeypatch.setattr(changing, "DEFAULT_LIMIT_BYTES", 1)
    refused = program("zoned", "check", "--repair", *dual)
    assert refused.status == 8
    assert "would have to be saved for zoned undo (--undo FILE" in refused.err
    assert contents(dual) == before
    assert program("zoned", "check", "--repair", *dual, "--undo", dual[0].parent / "named").status == 1
    formatted = program("dmzadm", "--format", *dual, "--force")
    assert formatted.status == 0
    assert "note: no undo file: " in formatted.err
    assert not undo_files.exists()


def test_undo_and_no_undo_exclude_each_other(dual: list[Path], undo_files: Path, program: Program) -> None:
    broken_set(dual)
    before = contents(dual)
    for command in (("zoned", "check", "--repair"), ("dmzadm", "--format", "--force")):
        refused = program(*command, *dual, "--undo", undo_files / "x", "--no-undo")
        assert refused.status == (16 if command[0] == "zoned" else 1)
        assert "exclude each other" in refused.err
    assert contents(dual) == before


@dataclass(frozen=True)
class Format:
    """A format command, and an image that it can do something with."""

    command: tuple[object, ...]
    zone_size: str = "1MiB"
    zones: int = 64
    options: tuple[object, ...] = ()


FORMATS = {
    "mkzonefs": Format(("mkzonefs", "-f")),
    "dmzadm": Format(("dmzadm", "--format", "--force")),
    "zdmadm": Format(("zdmadm", "--create", "--force", "--start", 524288), "256MiB", 24),
    "inplace-compress": Format(
        ("zoned", "inplace-compress", "format", "--force", "--data-blocks", 2048), options=("--block-size", 512)
    ),
}


def head_and_zones(image: Path) -> tuple[bytes, bytes]:
    with image.open("rb") as file:
        return file.read(1 << 20), Path(f"{image}.zones").read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_an_undo_file_and_is_undone(
    name: str, undo_files: Path, program: Program, tmp_path: Path
) -> None:
    """The clones print what the originals do; people at a terminal are told, too."""
    image, form = tmp_path / "drive.img", FORMATS[name]
    kind = ("--zone-size", form.zone_size, "--zones", form.zones, "--conventional", form.zones // 2, *form.options)
    assert program("zoned", "image", "create", image, *kind).status == 0
    assert program("mkzonefs", "--no-undo", "--uuid", "11111111-2222-3333-4444-555555555555", image).status == 0
    assert not undo_files.exists()
    before = head_and_zones(image)
    formatted = program(*form.command, image)
    assert formatted.status == 0, formatted.err
    (saved,) = list_undo_files()
    note = f"note: zoned undo {saved.path} DEV... takes it back\n"
    assert formatted.err.startswith(note) if form.command[0] == "zoned" else note not in formatted.err
    assert program("zoned", "undo", saved.path, image).status == 0
    assert head_and_zones(image) == before


def test_formats_name_their_undo_file_at_a_terminal(
    dual: list[Path], undo_files: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    formatted = program("dmzadm", "--format", "--force", *dual)
    (saved,) = list_undo_files()
    assert formatted.err == f"note: zoned undo {saved.path} DEV... takes it back\n"
    assert undo_files.is_dir()


@pytest.fixture
def volume(tmp_path: Path, program: Program) -> Path:
    """A zonefs volume; /cnv/0 and /seq/0 have content."""
    image = tmp_path / "volume.img"
    made = program("zoned", "image", "create", image, "--zones", 10, "--zone-size", "1MiB", "--conventional", 2)
    assert made.status == 0
    assert program("mkzonefs", "--no-undo", image).status == 0
    (tmp_path / "old").write_bytes(b"old" * 4096)
    for path in ("/cnv/0", "/seq/0"):
        assert program("zoned", "zonefs", "put", image, path, tmp_path / "old", "--no-undo").status == 0
    return image


CHANGES = {
    "append": ("put", "/seq/0", "new"),
    "overwrite": ("put", "/cnv/0", "new"),
    "fill a new file": ("put", "/seq/3", "new"),
    "empty": ("truncate", "/seq/0", "0"),
    "fill up": ("truncate", "/seq/1", "max"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_files_are_undone(name: str, volume: Path, undo_files: Path, program: Program) -> None:
    (volume.parent / "new").write_bytes(b"n" * 8192)
    command, path, word = CHANGES[name]
    before = contents([volume])
    changed = program("zoned", "zonefs", command, volume, path, volume.parent / "new" if word == "new" else word)
    assert changed.status == 0
    assert contents([volume]) != before
    (saved,) = list_undo_files()
    assert f"note: zoned undo {saved.path} DEV... takes it back" in changed.err
    assert saved.title == f"{command} {path}"
    assert program("zoned", "undo", saved.path, volume).status == 0
    assert contents([volume]) == before
    assert undo_files.is_dir()


def test_a_change_that_changes_nothing_saves_nothing(volume: Path, undo_files: Path, program: Program) -> None:
    assert program("zoned", "zonefs", "truncate", volume, "/seq/1", "0").status == 0
    assert not undo_files.exists()


def test_an_import_over_content_is_undone(tmp_path: Path, undo_files: Path, program: Program) -> None:
    image, raw = tmp_path / "disk.img", tmp_path / "raw"
    image.write_bytes(b"x" * (4 << 20))
    raw.write_bytes(bytes(range(256)) * 4096)
    before = image.read_bytes()
    assert program("zoned", "inplace-compress", "import", raw, image).status == 0
    assert image.read_bytes() != before
    (saved,) = list_undo_files()
    assert program("zoned", "undo", saved.path, image).status == 0
    assert image.read_bytes() == before
    assert undo_files.is_dir()
