"""Fixtures of the btrfs tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.archives import unpack, unpacked_once
from tests.formats.btrfs.images import STATES, VECTORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.formats.btrfs.images import Images


@pytest.fixture(scope="session")
def vector_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The image of a vector, unpacked once; tests must not write to it."""
    return unpacked_once(VECTORS, tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """All devices of a vector, unpacked once for each file of tests."""
    first = unpacked_once(VECTORS, tmp_path_factory.mktemp)
    return lambda name: [first(name).parent / device for device in STATES[name]["devices"]]


@pytest.fixture
def own_image(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a vector that the test may change."""

    def copy(name: str) -> Path:
        image = unpack(VECTORS / f"{name}.tar.xz", tmp_path) / "disk.img"
        image.chmod(0o644)
        return image

    return copy
