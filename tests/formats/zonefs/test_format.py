"""Format through the common room: the same steps as ``mkzonefs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.images import make_image
from tests.formats.zonefs.volumes import GIVEN, GOOD, found
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.errors import GeometryError
from zoned_tools.formats.contract import Journey, Target
from zoned_tools.formats.zonefs import LAYOUT
from zoned_tools.formats.zonefs.format import plan_format, plan_volume

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("conventional", [0, 3])
def test_a_new_volume(conventional: int, tmp_path: Path) -> None:
    with open_image(str(make_image(tmp_path / "disk.img", conventional=conventional))) as base:
        device = Overlay(base)
        plan = plan_format(Target("zonefs", (device,)), LAYOUT.parse_settings(GIVEN, Journey.FORMAT))
        assert plan.steps == plan_volume(device, device.zones(), GOOD).steps
        apply_plan([device], plan.steps)
        assert device.read(0, 4096) == GOOD.pack()
        assert found(device) == {}


def test_without_settings_the_uuid_is_random(tmp_path: Path) -> None:
    with open_image(str(make_image(tmp_path / "disk.img"))) as device:
        target, settings = Target("zonefs", (device,)), LAYOUT.parse_settings({}, Journey.FORMAT)
        assert plan_format(target, settings).steps != plan_format(target, settings).steps


def test_a_dead_zone_0_is_refused_first(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][0] = ZoneCondition.READ_ONLY

    image = make_image(tmp_path / "disk.img", edit=kill)
    with open_image(str(image)) as device, pytest.raises(GeometryError):
        plan_format(Target("zonefs", (device,)), LAYOUT.parse_settings({}, Journey.FORMAT))
