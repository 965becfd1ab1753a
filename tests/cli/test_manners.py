"""What people type and read: help, suggestions, the letters of fsck(8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archives import poke, unpack
from tests.programs import Program

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drive of dm-zoned."""
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    return unpack(VECTORS / "hm64x1.tar.xz", tmp_path) / "disk.img"


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("chek", "Did you mean 'check'"),
        ("zonefs lss", "Did you mean 'ls'?"),
        ("check --layout dmzoned x", "did you mean 'dm-zoned'?"),
        ("explain sb-bad-magc", "did you mean 'sb-bad-magic'"),
        ("explain dm-zoned.sb-bad-magc", "did you mean 'dm-zoned.sb-bad-magic'"),
        ("check --jsn x", "--json"),
    ],
)
def test_misspelt(line: str, suggestion: str, zoned: Program) -> None:
    result = zoned(*line.split())
    assert (result.status, result.out, result.err.count("\n")) == (16, "", 1)
    assert suggestion in result.err


def test_misspelt_settings_and_codes(drive: Path, zoned: Program) -> None:
    wrong = zoned("check", drive, "--set", "use-st=1")
    assert (wrong.status, "did you mean 'use-set'?" in wrong.err) == (16, True)
    wrong = zoned("check", drive, "--repair", "--allow", "map-zone-shard")
    assert (wrong.status, "did you mean 'map-zone-shared'" in wrong.err) == (16, True)
    far = zoned("check", drive, "--set", "nonsense=1")
    assert (far.status, "its settings: " in far.err) == (16, True)


@pytest.mark.parametrize("group", [(), ("zone",), ("zonefs",)])
def test_help_as_it_is(group: tuple[str, ...], zoned: Program) -> None:
    asked = zoned("help", *group)
    assert (asked.status, asked.err) == (0, "")
    assert len(asked.out.splitlines()) > 8
    assert asked.out == zoned(*group, "--help").out
    alone = zoned(*group)
    assert (alone.status, alone.err) == (16, "")
    assert alone.out.split() == asked.out.split()


def test_help_of_a_command(zoned: Program) -> None:
    assert zoned("help", "zonefs", "ls").out == zoned("zonefs", "ls", "--help").out


def test_words_that_are_no_numbers(zoned: Program) -> None:
    assert "'x' is not a number" in zoned("report", "--count", "x", "y").err
    assert "0 is not in the range x>=1" in zoned("report", "--count", "0", "y").err


def test_codes_of_a_layout(zoned: Program) -> None:
    of_one = zoned("explain", "zonefs").out.splitlines()
    assert of_one
    assert all(line.startswith("zonefs.") for line in of_one)
    begun = zoned("explain", "dm-zoned.sb-").out.splitlines()
    assert len(begun) > 5
    assert all(line.startswith("dm-zoned.sb-") for line in begun)


def _damage(drive: Path) -> None:
    """The primary set's super block loses its magic: certain to mend."""
    poke(drive, 0, bytes(4))


def _share(drive: Path) -> None:
    """Both sets map chunks 0 and 1 to one zone: only a consent decides."""
    for first in (0, 256 << 12):
        block = drive.read_bytes()[first + 4096 : first + 4096 + 16]
        poke(drive, first + 4096 + 8, block[:8])


@pytest.mark.parametrize("letters", ["-a", "-p", "-y", "--yes"])
def test_letters_that_repair(letters: str, drive: Path, zoned: Program) -> None:
    _damage(drive)
    assert zoned("check", drive).status == 4
    assert zoned("check", letters, "-n", drive).status == 4
    assert zoned("check", letters, drive).status == 1
    assert zoned("check", drive).status == 0


def test_yes_agrees_to_everything(drive: Path, zoned: Program) -> None:
    _share(drive)
    assert zoned("check", "-a", drive).status == 4
    waits = zoned("check", "-a", "-n", drive).out
    assert "for --allow" in waits
    assert zoned("check", "-y", drive).status == 1
    assert zoned("check", drive).status == 0
    assert zoned("undo", "--list").out.count("\n") >= 1


def test_quiet_and_verbose(drive: Path, zoned: Program) -> None:
    assert zoned("check", "-q", drive).out == ""
    assert zoned("check", "-v", drive).out == zoned("check", "--all", drive).out
    _damage(drive)
    assert "errors found" in zoned("check", "-q", drive).out
