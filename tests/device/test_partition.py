"""Partition tables on drives and on images of drives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned_tools.device.image import open_image
from zoned_tools.device.partition import partitions

if TYPE_CHECKING:
    from pathlib import Path


def entry(start: int, count: int) -> bytes:
    return bytes(4) + b"\x83" + bytes(3) + start.to_bytes(4, "little") + count.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ([(2048, 4096)], [(1 << 20, 3 << 20)]),
        ([(2048, 2048), (8192, 8192)], [(1 << 20, 2 << 20), (4 << 20, 8 << 20)]),
        ([(2048, 1 << 31)], [(1 << 20, 64 << 20)]),
        ([(0, 100), (1 << 30, 5), (5, 0)], []),
        ([], []),
    ],
)
def test_mbr(tmp_path: Path, entries: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    path = tmp_path / "disk"
    path.write_bytes((bytes(446) + b"".join(entry(*e) for e in entries)).ljust(510, b"\0") + b"\x55\xaa")
    with path.open("r+b") as file:
        file.truncate(64 << 20)
    with open_image(str(path)) as device:
        assert partitions(device) == wanted


def test_an_mbr_in_sectors_on_the_image_of_a_drive_with_large_blocks(tmp_path: Path) -> None:
    from zoned_tools.cli.run import run

    path = str(tmp_path / "disk")
    assert run("zoned", ["image", "create", path, "--zones", "20", "--zone-size", "256MiB", "--conventional", "8"]) == 0
    with open(path, "r+b") as file:
        file.write((bytes(446) + entry(524288, 9961472)).ljust(510, b"\0") + b"\x55\xaa")
    with open_image(path) as device:
        assert device.geometry.logical_block_bytes == 4096
        assert partitions(device) == [(256 << 20, 20 * 256 << 20)]
    with open(path, "r+b") as file:
        file.write((bytes(446) + entry(65536, 9961472 // 8)).ljust(510, b"\0") + b"\x55\xaa")
    with open_image(path) as device:
        assert partitions(device) == [(256 << 20, 20 * 256 << 20)]
