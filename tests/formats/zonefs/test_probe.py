"""Probe: super blocks are recognised when they are damaged, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zonefs.images import make_image
from tests.formats.zonefs.volumes import GOOD, UUID, image_with
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.formats.zonefs.constants import Feature
from zoned_tools.formats.zonefs.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result


def test_probe(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = image_with(tmp_path / "disk.img", replace(GOOD, features=int(Feature.UID) | 1 << 40).pack())
    (row,) = program("zoned", "probe", "--json", image).json["devices"]
    assert (row["layout"], row["uuid"], row["label"]) == ("zonefs", str(UUID), "name")
    document = program("zoned", "zonefs", "inspect", "--json", image).json
    assert document["mountable"] is False
    assert document["super_block"]["crc"]["meaning"] == "right"
    assert program("zoned", "zonefs", "inspect", image).status == 0


def test_an_offline_zone_0_shows_nothing(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][0] = ZoneCondition.OFFLINE

    with open_image(str(make_image(tmp_path / "disk.img", edit=kill))) as device:
        assert probe(device, 0) is None


@given(st.data())
def test_truncated_and_tiny_devices(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "tiny.img"
    size = data.draw(st.sampled_from((512, 2048, 4096, 4608)))
    path.write_bytes(GOOD.pack()[:size].ljust(size, b"\0"))
    with open_image(str(path)) as device:
        assert (probe(device, 0) is not None) == (size >= 4096)
        assert probe(device, size) is None
