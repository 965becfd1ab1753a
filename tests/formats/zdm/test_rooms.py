"""What the layout declares, and that naming it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.zdm import LAYOUT

HEAVY = ("numpy", "construct", "rich", "crc32c", "xxhash", "pydantic")


@pytest.mark.parametrize("module", ["zoned_tools.formats.zdm", "zoned_tools.formats.zdm.rules"])
def test_declaration_and_rules_load_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*(n for n in {HEAVY!r} if n in sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_rooms() -> None:
    rooms = ("open_mapper", "table_line", "dump", "restore", "zone_roles", "plan_format")
    assert all(getattr(LAYOUT, room) is not None for room in rooms)
    assert all(getattr(LAYOUT, room) is None for room in ("order_members", "claims"))
    assert LAYOUT.whole_drive
    assert LAYOUT.rules().layout == LAYOUT.name == "zdm"


def test_settings_are_refused_and_normalised() -> None:
    good = LAYOUT.parse_settings({"sb-uuid": "0F" * 16}, Journey.LOGICAL)
    assert good.text("sb-uuid") == "0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f"
    for journey, given, message in (
        (Journey.LOGICAL, {"sb-uuid": "nonsense"}, "uuid"),
        (Journey.LOGICAL, {"create": "yes"}, "no setting"),
        (Journey.FORMAT, {"reserve": "7"}, "reserve"),
        (Journey.FORMAT, {"reserve": "1024"}, "reserve"),
        (Journey.FORMAT, {"label": "x" * 64}, "64 bytes"),
        (Journey.FORMAT, {"label": "a/b"}, "mapping"),
        (Journey.FORMAT, {"gc": "maybe"}, "gc"),
        (Journey.CHECK, {"label": "x"}, "no setting"),
    ):
        with pytest.raises(UsageError, match=message):
            LAYOUT.parse_settings(given, journey)
