"""Commands of one layout, and repairs that name one, on a drive that holds another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Program

READING = (
    ("zonefs", "ls"),
    ("zonefs", "cat", "/seq/0"),
    ("zdm", "status"),
    ("zdm", "zones"),
    ("btrfs", "supers"),
    ("inplace-compress", "stat"),
)
WRITING = (
    ("check", "--repair", "--layout", "zonefs", "--allow", "sb-magic"),
    ("check", "--repair", "--layout", "inplace-compress", "--set", "compressor=lzo", "--set", "data-blocks=1000"),
    ("zonefs", "check", "--repair", "--allow", "sb-magic"),
    ("inplace-compress", "repair", "--table", "compressor=lzo", "--data-blocks", "1000"),
    ("btrfs", "rollback", "--to-generation", "1"),
)


HOLDS = {"dm-zoned": "dm-zoned 'shelf'", "zonefs": "zonefs 'logs'"}


def others(commands: tuple[tuple[str, ...], ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Each command with each layout that is not its own."""
    return [(layout, command) for layout in HOLDS for command in commands if layout not in command]


@pytest.fixture
def drive(tmp_path: Path, program: Program) -> Callable[[str], Path]:
    """``drive(layout)``: an image that holds it."""

    def make(layout: str) -> Path:
        image = tmp_path / "drive.img"
        kind = ("--zones", 64, "--zone-size", "1MiB", "--conventional", 16, "--block-size", 512)
        assert program("zoned", "image", "create", image, *kind).status == 0
        if layout == "zonefs":
            assert program("mkzonefs", "--no-undo", "-L", "logs", image).status == 0
        else:
            assert program("dmzadm", "--format", "--no-undo", "--label=shelf", image).status == 0
        return image

    return make


def command_line(command: tuple[str, ...], image: Path) -> tuple[object, ...]:
    """The image comes before a path in it."""
    return (*command[:2], image, *command[2:])


@pytest.mark.parametrize(("layout", "command"), others(READING), ids=str)
def test_they_say_what_it_holds(
    drive: Callable[[str], Path], zoned: Program, layout: str, command: tuple[str, ...]
) -> None:
    refused = zoned(*command_line(command, drive(layout)))
    assert (refused.status, refused.out) == (8, "")
    assert f"holds {HOLDS[layout]}, not {command[0]}" in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(("layout", "command"), others(WRITING), ids=str)
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry"])
def test_repairs_do_not_write_over_it(
    drive: Callable[[str], Path], zoned: Program, layout: str, command: tuple[str, ...], dry_run: tuple[str, ...]
) -> None:
    image = drive(layout)
    before = image.read_bytes()
    refused = zoned(*command, image, *dry_run)
    assert (refused.status, refused.out) == (8, "")
    assert f"holds {HOLDS[layout]}, not " in refused.err
    assert image.read_bytes() == before


def test_an_empty_drive_has_no_zdm(tmp_path: Path, zoned: Program) -> None:
    image = tmp_path / "empty.img"
    assert zoned("image", "create", image, "--zones", 12, "--zone-size", "1MiB").status == 0
    refused = zoned("zdm", "status", image)
    assert refused.status == 8
    assert "--layout" not in refused.err
