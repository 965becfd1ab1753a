"""Fixtures of the btrfs tests."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from btrfs_images import VECTORS, Result

from zoned_tools.cli.run import run


@pytest.fixture(scope="session")
def vector_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The image of a vector, unpacked once; tests must not write to it."""
    unpacked: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in unpacked:
            directory = tmp_path_factory.mktemp(name)
            with tarfile.open(VECTORS / f"{name}.tar.xz") as archive:
                archive.extractall(directory, filter="data")
            unpacked[name] = directory / "disk.img"
        return unpacked[name]

    return unpack


@pytest.fixture
def own_image(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a vector that the test may change."""

    def unpack(name: str) -> Path:
        with tarfile.open(VECTORS / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        image = tmp_path / "disk.img"
        image.chmod(0o644)
        return image

    return unpack


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``program("zoned", "btrfs", "supers", path)``: exit status and what was printed."""

    def call(name: str, *arguments: object) -> Result:
        capfd.readouterr()
        status = run(name, [str(a) for a in arguments])
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return call
