"""The table line."""

from __future__ import annotations

import pytest

from tests.formats.dm_zoned.images import NAMES, Images, drive, facts
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned import table as room


def table_line(target: Target, given: dict[str, str]) -> str:
    return room.table_line(target, LAYOUT.parse_settings(given, Journey.TABLE)).line


@pytest.mark.parametrize("name", NAMES)
def test_table_line(images: Images, name: str) -> None:
    target = images.target(name)
    words = table_line(target, {}).split()
    sectors = facts(name)["logical_size"] // 512
    assert words == ["0", str(sectors), "zoned", *target.paths]


def test_legacy_table_line(images: Images) -> None:
    target = images.target("v1")
    line = table_line(target, {"legacy": "1", "rlow": "40", "idle_rlow": "70"})
    assert line == f"0 131072 zoned {target.device.path} rlow=40 idle_rlow=70"
    assert table_line(target, {"legacy": "1"}) == f"0 131072 zoned {target.device.path}"


def test_blanks_in_names(images: Images) -> None:
    target = images.target("v1")
    device = target.device
    assert isinstance(device, EmulatedDrive)
    device.path = r"/v/sp ace\x"
    assert table_line(target, {}) == r"0 112640 zoned /v/sp\ ace\\x"
    device.path = "/v/a\nb"
    with pytest.raises(UsageError, match="cannot carry the name"):
        table_line(target, {})


@pytest.mark.parametrize(
    "options", [{"rlow": "40"}, {"legacy": "1", "rlow": "101"}, {"legacy": "1", "rlow": "x"}, {"other": "1"}]
)
def test_table_options_that_cannot_be_meant(images: Images, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        table_line(images.target("v1"), options)


def test_no_table_line(images: Images) -> None:
    with pytest.raises(UsageError, match="single devices"):
        table_line(images.target("dual"), {"legacy": "1"})
    with pytest.raises(MetadataError):
        table_line(Target("dm-zoned", (drive(16, 4),)), {})
