"""What is recognised, and where."""

from __future__ import annotations

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, IMAGES, facts
from zoned_tools.formats.zdm.probe import probe


@pytest.mark.parametrize("name", IMAGES)
def test_probe(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    found = probe(drive, expected["start_sector"] * 512)
    assert found is not None
    assert found.uuid.replace("-", "") == expected["identity"]["uuid"]
    assert found.label == expected["identity"]["label"]
    assert probe(drive, expected["start_sector"] * 512 + 4096) is None
