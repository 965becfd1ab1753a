"""Every layout is one declared object: which rooms it has, its rules and consents, and that mypy sees a wrong room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zoned_tools
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Consent, Layout, Severity

if TYPE_CHECKING:
    from tests.programs import Program

PACKAGE = Path(zoned_tools.__file__).parent

OPTIONAL = (
    "open_mapper", "table_line", "dump", "restore", "zone_roles", "figures", "plan_format", "order_members",
    "claims", "open_importer", "open_views", "map_copies", "map_zone",
)  # fmt: skip
"""Rooms that a layout may lack; it always has the others."""

ROOMS = {
    "dm-zoned": {*OPTIONAL} - {"open_views", "map_copies", "map_zone"},
    "zdm": {"open_mapper", "open_importer", "table_line", "dump", "restore", "zone_roles", "plan_format"},
    "zonefs": {"dump", "restore", "zone_roles", "plan_format"},
    "btrfs": {"open_views", "map_copies", "map_zone", "zone_roles", "figures", "claims"},
    "inplace-compress": {"open_mapper", "table_line", "dump", "restore", "plan_format"},
}
"""zonefs has files instead of a logical device; a zoned btrfs is a kernel's own, without device-mapper."""


@pytest.mark.parametrize("name", registry.OURS)
def test_rooms(name: str) -> None:
    layout = registry.get(name)
    assert isinstance(layout, Layout)
    assert layout.name == name
    assert layout.summary
    assert {room for room in OPTIONAL if getattr(layout, room) is not None} == ROOMS[name]
    assert (layout.zone_roles is None) == (not layout.roles)


@pytest.mark.parametrize("name", registry.OURS)
def test_rules_say_what_they_mean(name: str) -> None:
    rules = registry.get(name).rules()
    assert rules.layout == name
    for code, rule in rules.items():
        assert isinstance(rule.severity, Severity), code
        assert rule.meaning, code
        assert not rule.can_wait or rule.repair, f"{code} asks for consent to nothing"
        assert rule.consent in (None, *Consent)


@pytest.mark.parametrize("name", registry.OURS)
def test_explain_prints_the_rules(name: str, zoned: Program) -> None:
    rules = registry.get(name).rules()
    rows = {row["id"]: row for row in zoned("explain", "--json").json["codes"]}
    for code, rule in rules.items():
        row = rows[f"{name}.{code}"]
        assert (row["repair"], row["allow"], row["consent"]) == (rule.repair, rule.allow, rule.consent)
    asking = next((code for code, rule in rules.items() if rule.can_wait), None)
    if asking is not None:
        text = zoned("explain", f"{name}.{asking}").out
        assert (rules[asking].allow or rules[asking].repair) in text
        assert f"--allow {name}.{asking}" in text


@pytest.mark.parametrize("name", registry.OURS)
def test_roles_are_told_apart(name: str) -> None:
    roles = registry.get(name).roles
    assert len({role.letter for role in roles}) == len({role.name for role in roles}) == len(roles)
    assert all(len(role.letter) == 1 and role.colour.startswith("#") for role in roles)


@pytest.mark.parametrize("name", registry.OURS)
def test_settings_are_declared_well(name: str) -> None:
    for setting in registry.get(name).settings:
        assert setting.help
        assert setting.journeys
        if setting.default:
            assert setting.normalise(setting.default) == setting.default


BREAKS = {
    "formats/zonefs/inspect.py": ("def inspect(target: Target)", "def inspect(target: Target, depth: int)"),
    "formats/zonefs/check.py": ("-> ZonefsEvidence:", "-> int:"),
    "formats/zonefs/roles.py": ("def zone_roles(target: Target)", "def zone_roles(device: int)"),
}
"""File to ``(text, the same with another signature)``."""


def test_mypy_sees_a_room_with_a_wrong_signature(tmp_path: Path) -> None:
    copy = tmp_path / "zoned_tools"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path, (good, bad) in BREAKS.items():
        text = (copy / path).read_text(encoding="utf-8")
        assert good in text, path
        (copy / path).write_text(text.replace(good, bad), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, "--follow-imports=silent", "zoned_tools/formats/zonefs/__init__.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for room in ("inspect", "check", "zone_roles"):
        assert any("__init__.py" in line and room in line for line in done.stdout.splitlines()) or room in done.stdout
    assert done.stdout.count("zonefs/__init__.py") >= len(BREAKS)
