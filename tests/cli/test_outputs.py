"""Output files are never written over a drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

COMMANDS = {
    "dump": ("dump", "--force"),
    "diagram": ("diagram", "--force"),
    "metrics": ("metrics",),
}


@pytest.fixture
def images(tmp_path: Path, program: Program) -> Path:
    """Two images of zoned drives with a file system, and a link to the first."""
    for name in ("one.img", "other.img"):
        made = program("zoned", "image", "create", tmp_path / name, "--zones", 12, "--zone-size", "1MiB")
        assert made.status == 0
        assert program("mkzonefs", "--no-undo", tmp_path / name).status == 0
    (tmp_path / "link").symlink_to("one.img")
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("output", ["one.img", "one.img.zones", "link", "other.img", "other.img.zones"])
def test_a_drive_is_not_an_output_file(images: Path, zoned: Program, name: str, output: str) -> None:
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    refused = zoned(*COMMANDS[name], images / "one.img", "-o", images / output)
    assert (refused.status, refused.out, refused.err.count("\n")) == (8, "", 1)
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


@pytest.mark.parametrize("name", COMMANDS)
def test_other_files_are(images: Path, zoned: Program, name: str) -> None:
    (images / "out").write_bytes(b"old")
    assert zoned(*COMMANDS[name], images / "one.img", "-o", images / "out").status == 0
    assert (images / "out").read_bytes()[:3] != b"old"


def test_metrics_of_a_regular_image_are_not_written_over_it(tmp_path: Path, zoned: Program) -> None:
    image = tmp_path / "plain.img"
    image.write_bytes(bytes(1 << 20))
    assert zoned("metrics", image, "-o", image).status == 8
    assert image.read_bytes() == bytes(1 << 20)
