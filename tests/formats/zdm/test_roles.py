"""What zones are used for."""

from __future__ import annotations

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, START, facts, target
from zoned_tools.formats.zdm import LAYOUT
from zoned_tools.formats.zdm.roles import zone_roles


def test_roles_of_a_used_drive() -> None:
    expected = facts("pop-clean")
    roles = {name: zones.tolist() for name, zones in zone_roles(target(zx1.open_vector(FOLDER, "pop-clean"))).items()}
    assert list(roles) == [role.name for role in LAYOUT.roles]
    assert roles["metadata"] == list(range(START // 524288, 5))
    assert roles["data"] == [5 + row[0] for row in expected["zones_used"]]
    assert roles["write zone"] == sorted({5 + zone for zone in expected["streams"].values()})
    assert len(roles["reserve"]) == 2


def test_roles_of_a_fresh_drive() -> None:
    roles = zone_roles(target(zx1.open_vector(FOLDER, "fmt-16z")))
    assert {name: len(zones) for name, zones in roles.items()} == {
        "metadata": 4,
        "data": 0,
        "write zone": 0,
        "reserve": 0,
    }
