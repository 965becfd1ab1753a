"""Fixtures of the zonefs tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.archives import unpacked_once
from tests.formats.zonefs.images import VECTORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def vector_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The image of a vector, unpacked once; tests must not write to it."""
    return unpacked_once(VECTORS, tmp_path_factory.mktemp)
