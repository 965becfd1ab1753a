"""The declared layout: light to import, with the rooms that btrfs has, and one row for each code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoned_tools.formats.btrfs
from zoned_tools.formats.btrfs import LAYOUT, layout
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.contract import Identity, Probed

HEAVY = ("numpy", "construct", "rich", "crc32c", "xxhash", "pyudev")


def test_the_declaration_and_the_rules_are_light() -> None:
    code = (
        "import sys, zoned_tools.formats.btrfs, zoned_tools.formats.btrfs.rules, zoned_tools.formats.btrfs.members;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_rooms() -> None:
    """No logical device of its own, no target of the device mapper; each of its devices is shown."""
    rooms = ("open_mapper", "open_views", "map_copies", "map_zone", "table_line", "dump", "restore")
    assert [name for name in rooms if getattr(LAYOUT, name) is not None] == ["open_views", "map_copies", "map_zone"]
    assert LAYOUT.zone_roles is not None
    assert LAYOUT.plan_format is None
    assert LAYOUT.order_members is None
    assert LAYOUT.rules() is RULES
    assert LAYOUT.claims is not None
    assert ([setting.name for setting in LAYOUT.settings], LAYOUT.whole_drive) == (["data", "generation", "log"], False)
    assert LAYOUT.name == layout.NAME == NAME == RULES.layout


def test_every_code_of_the_rules_is_made_somewhere() -> None:
    package = Path(zoned_tools.formats.btrfs.__file__).parent
    made: set[str] = set()
    for module in (
        "check",
        "findings",
        "ring_findings",
        "judge",
        "validate",
        "tree_findings",
        "block_group_findings",
        "data_findings",
    ):
        made |= set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)*)"', (package / f"{module}.py").read_text()))
    engines = {"image-short", "zones-derived", "data-unreadable"}
    assert set(RULES) - engines <= made


def member(group: str) -> Probed:
    return Probed(None, Identity("btrfs", group=group))  # type: ignore[arg-type] # only the identity is looked at


@pytest.mark.parametrize(
    ("probed", "one"),
    [
        (["a", "a", None], True),
        (["a", None, None], True),
        (["a", "a"], False),
        (["a", "b", None], False),
        (["", None], False),
        (["a", "", None], False),
        ([None, None], False),
    ],
)
def test_members_with_damaged_super_blocks(probed: list[str | None], *, one: bool) -> None:
    """Devices on which nothing is found belong to the only file system of several devices."""
    assert LAYOUT.claims is not None
    nothing = Probed(None, None)  # type: ignore[arg-type] # only the identity is looked at
    assert LAYOUT.claims([nothing if group is None else member(group) for group in probed]) is one
