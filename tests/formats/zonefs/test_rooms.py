"""The declared layout: light to import, with the rooms that zonefs has, and one row for each code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from zoned_tools.formats.zonefs import LAYOUT
from zoned_tools.formats.zonefs.rules import RULES

HEAVY = ("numpy", "construct", "rich", "crc32c", "xxhash", "pyudev")


def test_the_declaration_and_the_rules_are_light() -> None:
    code = (
        "import sys, zoned_tools.formats.zonefs, zoned_tools.formats.zonefs.rules;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_rooms() -> None:
    """No logical device of blocks, no target of the device mapper, one device."""
    rooms = ("open_mapper", "table_line", "dump", "restore", "zone_roles", "plan_format")
    assert [name for name in rooms if getattr(LAYOUT, name) is not None] == [
        "dump",
        "restore",
        "zone_roles",
        "plan_format",
    ]
    assert LAYOUT.rules() is RULES
    assert (LAYOUT.order_members, LAYOUT.claims, LAYOUT.whole_drive) == (None, None, False)


def test_every_code_of_the_rules_is_made_somewhere() -> None:
    package = Path(__file__).parents[3] / "zoned_tools/formats/zonefs"
    made = set()
    for module in ("check.py", "findings.py", "judge.py"):
        made |= set(re.findall(r'"([a-z0-9]+(?:-[a-z]+)+)"', (package / module).read_text()))
    engines = {"image-short", "zones-derived"}
    assert set(RULES) - engines - {"block-unreadable"} <= made  # there is one copy of all
