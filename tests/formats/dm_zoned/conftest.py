"""Fixtures of the dm-zoned tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.formats.dm_zoned.images import Images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """The published images, unpacked once."""
    opened = Images(tmp_path_factory.mktemp("dm-zoned"))
    yield opened
    opened.close()
