"""Roles: what each zone is used for, and how a diagram shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.formats.zonefs.volumes import GOOD, image_with
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs import LAYOUT
from zoned_tools.formats.zonefs.roles import zone_roles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result


def edit(table: ZoneTable) -> None:
    """Zones 0 to 2 are conventional; 3 is partly written, 4 full, 5 offline, the others empty."""
    table["condition"][3] = ZoneCondition.CLOSED
    table["wp_sector"][3] += 8
    table["condition"][4] = ZoneCondition.FULL
    table["condition"][5] = ZoneCondition.OFFLINE


def test_zone_roles(tmp_path: Path) -> None:
    with open_image(str(image_with(tmp_path / "disk.img", GOOD.pack(), conventional=3, edit=edit))) as device:
        roles = zone_roles(Target("zonefs", (device,)))
    assert {name: zones.tolist() for name, zones in roles.items()} == {
        "super block": [0],
        "conventional files": [1, 2],
        "sequential files": [3, 4],
    }
    assert list(roles) == [role.name for role in LAYOUT.roles]


def test_diagram(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = image_with(tmp_path / "disk.img", GOOD.pack(), conventional=3, edit=edit)
    lines = program("zoned", "diagram", image).out.splitlines()
    assert lines[1].split() == ["0", "MccffX.."]
