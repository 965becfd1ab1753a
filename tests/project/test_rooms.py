"""Every layout has the rooms of the house, with the signatures that the registry promises."""

from __future__ import annotations

import inspect

import pytest

from zoned_tools.findings import Severity
from zoned_tools.formats.registry import LAYOUTS, Code, room

ROOMS = {
    "probe": ("probe", ["device", "start_bytes"]),
    "inspect": ("inspect", ["target"]),
    "check": ("check", ["target", "options"]),
    "repair": ("plan_repair", ["target", "report", "options"]),
    "mapper": ("open_mapper", ["target", "writable", "options"]),
    "table": ("table_line", ["target", "options"]),
    "dump": ("dump", ["target"]),
    "roles": ("zone_roles", ["target"]),
    "export": ("export", ["target"]),
}
NEEDED = ("probe", "inspect", "check", "repair")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ROOMS)
def test_room(layout: str, name: str) -> None:
    module = room(layout, name)
    function, parameters = ROOMS[name]
    if module is None or not hasattr(module, function):
        # A layout without blocks (zonefs) or without a kernel target (btrfs) lacks some rooms, never these.
        assert name not in NEEDED
        return
    assert list(inspect.signature(getattr(module, function)).parameters) == parameters


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_code_says_what_it_means(layout: str) -> None:
    module = room(layout, "check")
    assert module is not None
    for name, code in module.CODES.items():
        assert isinstance(code, Code), name
        assert isinstance(code.severity, Severity), name
        assert code.meaning, name
