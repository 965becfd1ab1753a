"""The decoded metadata as a tree."""

from __future__ import annotations

from typing import Any

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, IMAGES, facts, target
from zoned_tools.formats.zdm import inspect as inspect_room


@pytest.mark.parametrize("name", IMAGES)
def test_inspect(name: str) -> None:
    expected = facts(name)
    tree: Any = inspect_room.inspect(target(zx1.open_vector(FOLDER, name), expected["start_sector"]))
    assert tree["identity"]["sect_size"] == expected["identity"]["sect_size"]
    assert tree["generation"] == expected.get("generation")
    for key in expected.get("generations", []):
        (found,) = [k for k in tree["keys"] if k["generation"] == key["generation"]]
        assert (found["area"], found["complete"]) == (key["area"], key["valid"])
