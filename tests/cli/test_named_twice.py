"""One drive named twice on a command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned_tools

if TYPE_CHECKING:
    from tests.programs import Program

COMMANDS = (
    ("check",),
    ("check", "--json"),
    ("check", "--repair"),
    ("check", "--repair", "--output", "x.img", "--output", "y.img"),
    ("inspect",),
    ("probe",),
    ("report",),
    ("report", "--json"),
    ("metrics",),
    ("map",),
    ("table",),
    ("dump",),
    ("export", "-o", "out"),
    ("serve", "--write", "--socket", "socket"),
    ("replay", "--trace", "trace"),
    ("restore", "-i", "dump"),
    ("inplace-compress", "import", "--force"),
    ("btrfs", "rollback", "--to-generation", "1"),
)


@pytest.fixture
def folder(tmp_path: Path, zoned: Program, program: Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert zoned("image", "create", "drive.img", "--zones", 32, "--zone-size", "4M", "--conventional", 8).status == 0
    assert program("dmzadm", "--format", "drive.img").status == 0
    Path("link.img").symlink_to("drive.img")
    Path("hard.img").hardlink_to("drive.img")
    Path("trace").write_text("fio version 2 iolog\n")
    Path("dump").write_text(zoned("dump", "drive.img").out)
    return tmp_path


@pytest.mark.parametrize("again", ["drive.img", "./drive.img", "link.img", "hard.img"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_is_refused_before_anything_is_opened(
    folder: Path, zoned: Program, command: tuple[str, ...], again: str
) -> None:
    before = sorted(os.listdir(folder)), (folder / "drive.img").stat().st_mtime_ns
    result = zoned(*command, "drive.img", again)
    hint = "" if again == "drive.img" else " (also as drive.img)"
    assert (result.status, result.err) == (16, f"zoned: {again}: named twice{hint}\n")
    assert "--json" in command or result.out == ""
    assert (sorted(os.listdir(folder)), (folder / "drive.img").stat().st_mtime_ns) == before


@pytest.mark.parametrize("operation", ["--format", "--check", "--repair", "--relabel", "--start"])
@pytest.mark.usefixtures("folder")
def test_the_clone_refuses_too(program: Program, operation: str) -> None:
    result = program("dmzadm", operation, "drive.img", "link.img")
    assert (result.status, result.out) == (1, "")
    assert result.err == "dmzadm: link.img: named twice (also as drive.img)\n"


@pytest.mark.parametrize("verb", ["--create", "--check", "--wipe"])
def test_zdmadm_refuses_before_the_first_device(folder: Path, program: Program, verb: str) -> None:
    before = (folder / "drive.img").stat().st_mtime_ns
    result = program("zdmadm", verb, "-F", "./drive.img", "link.img")
    assert (result.status, result.err) == (1, "zdmadm: link.img: named twice (also as ./drive.img)\n")
    assert (folder / "drive.img").stat().st_mtime_ns == before


@pytest.mark.usefixtures("folder")
def test_the_api_refuses_too() -> None:
    with pytest.raises(zoned_tools.UsageError, match="named twice"):
        zoned_tools.open_target("drive.img", "link.img")
    with pytest.raises(zoned_tools.UsageError, match="named twice"):
        zoned_tools.find_targets(["drive.img", "drive.img"])
    with pytest.raises(zoned_tools.UsageError, match="named twice"):
        zoned_tools.format("drive.img", "drive.img", layout="dm-zoned", force=True)


@pytest.mark.usefixtures("folder")
def test_two_missing_drives_are_missing(zoned: Program) -> None:
    assert zoned("check", "nosuch", "nosuch").err.count("No such file") == 2
