"""``zoned btrfs`` on devices without btrfs: one line, status 8, whatever kind of device it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.formats.btrfs.images import SUPER_BYTES, Drive

if TYPE_CHECKING:
    from tests.programs import Program

COMMANDS = (
    ("supers",),
    ("supers", "--json"),
    ("supers", "--full"),
    ("supers", "--roots"),
    ("supers", "--latest"),
    ("supers", "--latest", "--json"),
    ("zones",),
    ("zones", "--json"),
    ("rollback", "--to-generation", 7),
    ("rollback", "--to-generation", 7, "--dry-run", "--json"),
)


def empty_drive(directory: Path) -> Path:
    return Drive(directory / "disk.img").make()


def conventional_front(directory: Path) -> Path:
    return Drive(directory / "disk.img", conventional=4).make()


def foreign_ring(directory: Path) -> Path:
    return Drive(directory / "disk.img", contents={0: [b"\xa5" * SUPER_BYTES] * 3}).make()


def plain_file(directory: Path) -> Path:
    path = directory / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(map(str, words)))
@pytest.mark.parametrize("make", [empty_drive, conventional_front, foreign_ring, plain_file])
def test_one_line_and_status_8(
    make: Callable[[Path], Path], command: tuple[object, ...], tmp_path: Path, program: Program
) -> None:
    path = make(tmp_path)
    found = program("zoned", "btrfs", *command, path)
    assert found.status == 8
    if "--json" in command:
        assert found.json["exit_status"] == 8
        assert [error["message"] for error in found.json["errors"]] == ["no btrfs super block"]
    else:
        assert found.out == ""
    assert found.err.splitlines() == [f"zoned: {path}: no btrfs super block"]


def test_a_reset_ring_before_written_zones_is_shown(tmp_path: Path, program: Program) -> None:
    path = Drive(tmp_path / "disk.img", contents={2: [bytes(SUPER_BYTES)]}).make()
    assert program("zoned", "btrfs", "supers", "--json", path).json["rings"][0]["state"] == "absent"
    refused = program("zoned", "btrfs", "rollback", "--to-generation", 7, path)
    assert refused.status == 8
    assert "there is no valid one at all" in refused.err
