"""The ``dmsetup`` lines."""

from __future__ import annotations

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, facts, target
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.zdm import LAYOUT
from zoned_tools.formats.zdm.table import table_line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "load discard"),
        ({"create": "yes"}, "create discard"),
        ({"create": "no", "force": "1"}, "load discard"),
        ({"create": "1", "force": "on", "meta": "/dev/m", "mirror": "1"}, "meta=/dev/m mirror-md create force discard"),
        ({"mirror": "yes"}, "mirror-md load"),
    ],
)
def test_words_of_the_line(given: dict[str, str], words: str) -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    found = table_line(target(drive), LAYOUT.parse_settings(given, Journey.TABLE))
    assert found.line.startswith(f"0 1572864 zdm {drive.path} 5 ")
    assert words in found.line
    assert not found.warning


def test_create_line_is_the_references() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    settings = LAYOUT.parse_settings({"create": "yes", "force": "yes"}, Journey.TABLE)
    assert table_line(target(drive), settings).line == facts("fmt-16z")["table"][0].replace("DEVICE", drive.path)


@pytest.mark.parametrize("meta", ["", "a\nb", "\x1b[31m", "\udcff"])
def test_a_name_that_no_line_can_carry_is_refused(meta: str) -> None:
    with pytest.raises(UsageError, match="is not possible: a table line cannot carry"):
        LAYOUT.parse_settings({"meta": meta}, Journey.TABLE)


def test_blanks_in_names() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    drive.path = "/v/sp ace"
    line = table_line(target(drive), LAYOUT.parse_settings({"meta": "/m/a b"}, Journey.TABLE)).line
    assert line.startswith(r"0 1572864 zdm /v/sp\ ace 5 meta=/m/a\ b load ")
    drive.path = "/v/a\nb"
    with pytest.raises(UsageError, match="cannot carry the name"):
        table_line(target(drive), LAYOUT.parse_settings({}, Journey.TABLE))


def test_a_damaged_zdm_has_no_line() -> None:
    case = next(c for c in facts("corrupt-clean")["cases"] if c["name"] == "all-keys")
    drive = zx1.open_case(FOLDER, case["base"], case)
    with pytest.raises(MetadataError, match="no complete generation"):
        table_line(target(drive), LAYOUT.parse_settings({}, Journey.TABLE))
