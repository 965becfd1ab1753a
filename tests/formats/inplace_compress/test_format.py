"""What a volume can be made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.formats.inplace_compress.images import check_device, in_memory, settings_of, target_of
from zoned_tools.device.base import Device, Geometry
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import DeviceError, GeometryError, UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.inplace_compress import LAYOUT
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.encoding import Choice
from zoned_tools.formats.inplace_compress.format import plan_format, plan_volume, volume_sizes
from zoned_tools.formats.inplace_compress.import_ import plan_import
from zoned_tools.formats.inplace_compress.source import open_source


def test_devices_and_sources_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "raw").write_bytes(bytes(8 << 20))
    small = in_memory(tmp_path, 4 << 20)
    with pytest.raises(UsageError):
        open_source(str(tmp_path / "empty"))
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DeviceError):
            open_source(str(path))
    with pytest.raises(GeometryError):
        plan_import(small, open_source(str(tmp_path / "raw")), Choice(Compressor.LZO))
    impossible: list[dict[str, Any]] = [{"data_blocks": 1023}, {"data_blocks": 1 << 60}]
    for choices in [*impossible, {"start_bytes": (4 << 20) - 8192}]:
        with pytest.raises(GeometryError):
            plan_volume(small, compressor=Compressor.LZO, **choices)
    meaningless: list[dict[str, Any]] = [{"data_blocks": 0}, {"start_bytes": 100}, {"compressor": Compressor.LZ4}]
    for choices in meaningless:
        with pytest.raises(UsageError):
            plan_volume(small, **{"compressor": Compressor.LZO, **choices})


@pytest.mark.parametrize(
    ("given", "compressor", "blocks"),
    [
        ({}, "lzo", 1022),
        ({"compressor": "842-generic", "data-blocks": "512"}, "842", 512),
        ({"table": "0 4096 inplacecompress device={},compressor=842"}, "842", 512),
        ({"table": "device={},writethrough", "compressor": "lzo"}, "lzo", 1022),
    ],
)
def test_the_room_makes_what_the_settings_say(
    given: dict[str, str], compressor: str, blocks: int, tmp_path: Path
) -> None:
    device = in_memory(tmp_path, 4 << 20)
    assert LAYOUT.plan_format is not None
    named = {name: value.format(device.path) for name, value in given.items()}
    apply_plan([device], LAYOUT.plan_format(target_of(device), settings_of(Journey.FORMAT, named)).steps)
    evidence = check_device(device)
    assert (evidence.findings.groups, evidence.facts["data_blocks"]) == ([], blocks)
    assert evidence.facts["compressor"] == compressor


@pytest.mark.parametrize(
    "given",
    [
        {"table": "0 4096 inplacecompress device=x", "data-blocks": "9"},
        {"table": "device=x,compressor=lzo", "compressor": "842"},
        {"table": "device=x"},
        {"data-blocks": "0"},
        {"compressor": "zstd"},
        {"label": "x"},
    ],
)
def test_contradictions_are_refused(given: dict[str, str], tmp_path: Path) -> None:
    device = in_memory(tmp_path, 4 << 20)
    with pytest.raises(UsageError):
        plan_format(target_of(device), settings_of(Journey.FORMAT, given))


def test_only_conventional_zones_carry_a_volume(tmp_path: Path) -> None:
    path, zone = str(tmp_path / "zoned"), 1 << 20
    geometry = Geometry(Model.HOST_MANAGED, 8 * zone, zone, 8)
    create_image(path, geometry, make_table(8 * zone // 512, zone // 512, nr_conventional=4))
    with open_image(path, writable=True) as device:
        with pytest.raises(GeometryError):
            plan_volume(device, compressor=Compressor.LZO)
        assert plan_volume(device, compressor=Compressor.LZO, data_blocks=1022)
        with pytest.raises(GeometryError):
            plan_volume(device, compressor=Compressor.LZO, data_blocks=1023)


def zoned_device(folder: Path, conventional: set[int]) -> Device:
    """16 zones of 1 MiB."""
    path, zone, count = str(folder / "zoned"), 1 << 20, 16
    sectors = count * zone // 512
    table = make_table(sectors, zone // 512, nr_conventional=0)
    chosen = sorted(conventional)
    table[chosen] = make_table(sectors, zone // 512, nr_conventional=count)[chosen]
    create_image(path, Geometry(Model.HOST_MANAGED, count * zone, zone, count), table)
    return open_image(path)


@pytest.mark.parametrize("conventional", [[range(6)], [range(2), range(5, 12)], [range(14, 16)], []])
@pytest.mark.parametrize("start", [0, 2048, 3000, 9 * 2048])
def test_a_refusal_names_what_works(conventional: list[range], start: int, tmp_path: Path) -> None:
    device = zoned_device(tmp_path, {zone for some in conventional for zone in some})
    with pytest.raises(GeometryError) as refused:
        volume_sizes(device, 512 * start)
    hint = refused.value.hint
    if not conventional:
        assert hint == "no conventional zones have room for one"
        return
    found = re.fullmatch(r"(?:--start (\d+) )?--data-blocks (\d+) works", hint)
    assert found is not None
    begin, blocks = int(found[1] or 0), int(found[2])
    assert volume_sizes(device, 512 * begin, blocks)[1] == blocks
    with pytest.raises(GeometryError):
        volume_sizes(device, 512 * begin, blocks + 1)
    if any(start // 2048 in zones for zones in conventional):
        assert begin == start
