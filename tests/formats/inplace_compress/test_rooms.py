"""What the layout declares, and what its rooms load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.formats.inplace_compress.images import settings_of
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.inplace_compress import LAYOUT
from zoned_tools.formats.inplace_compress.settings import TABLE_WORDS

HEAVY = ("numpy", "construct", "rich", "crc32c", "xxhash", "lzallright", "multiprocessing")

ROOMS = {
    "open_mapper", "table_line", "dump", "restore", "plan_format",
}  # fmt: skip
LACKING = {"zone_roles", "order_members", "claims"}


def loaded_by(statement: str) -> set[str]:
    """Which of the heavy modules a statement loads in a fresh interpreter."""
    program = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(HEAVY) & set(run.stdout.split())


@pytest.mark.parametrize("module", ["inplace_compress", "inplace_compress.rules", "inplace_compress.settings"])
def test_declarations_and_rules_are_light(module: str) -> None:
    assert loaded_by(f"import zoned_tools.formats.{module}") == set()


def test_only_several_processes_load_multiprocessing() -> None:
    modules = ["check", "repair_plan", "mapper.open"]
    loaded = loaded_by("; ".join(f"import zoned_tools.formats.inplace_compress.{m}" for m in modules))
    assert "numpy" in loaded
    assert "multiprocessing" not in loaded


def test_rooms() -> None:
    assert {name for name in ROOMS if getattr(LAYOUT, name) is None} == set()
    assert {name for name in LACKING if getattr(LAYOUT, name) is not None} == set()
    assert LAYOUT.name == LAYOUT.rules().layout == "inplace-compress"


def test_settings() -> None:
    declared = {setting.name: setting for setting in LAYOUT.settings}
    assert len(declared) == len(LAYOUT.settings)
    assert {name for name, setting in declared.items() if setting.bare} == {"writethrough", "writethough", "critical"}
    assert all(
        {Journey.CHECK, Journey.REPAIR, Journey.LOGICAL, Journey.TABLE} <= declared[n].journeys for n in TABLE_WORDS
    )
    given = {"writeback": "5", "writethrough": "1", "critical": "on"}
    assert list(settings_of(Journey.TABLE, given).items()) == [
        ("writeback", "5"), ("writethrough", "yes"), ("critical", "yes"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("journey", "name", "value"),
    [
        (Journey.CHECK, "window", "2"),
        (Journey.LOGICAL, "relink", "yes"),
        (Journey.LOGICAL, "window", "4"),
        (Journey.LOGICAL, "encoder", "best"),
        (Journey.CHECK, "processes", "257"),
        (Journey.CHECK, "data-blocks", "0"),
        (Journey.REPAIR, "relink", "perhaps"),
        (Journey.TABLE, "critical", "2"),
        (Journey.TABLE, "payloads", "no"),
        (Journey.CHECK, "bogus", "1"),
    ],
)
def test_settings_that_are_refused(journey: Journey, name: str, value: str) -> None:
    with pytest.raises(UsageError):
        settings_of(journey, {name: value})
