"""Declared settings: which values are possible."""

from __future__ import annotations

import pytest

from zoned_tools.errors import UsageError
from zoned_tools.formats import registry
from zoned_tools.formats.shared.settings import Journey, Setting

SWITCHES = [(layout.name, s) for layout in registry.ours() for s in layout.settings if s.kind == "switch"]


@pytest.mark.parametrize(("layout", "setting"), SWITCHES, ids=[f"{name}-{s.name}" for name, s in SWITCHES])
def test_a_switch_without_a_value_is_no_consent(layout: str, setting: Setting) -> None:
    with pytest.raises(UsageError, match=r"^\S+= is not possible \(\S+=yes\|no\)$"):
        setting.normalise("")
    with pytest.raises(UsageError, match=r"^\S+=perhaps is not possible"):
        setting.normalise("perhaps")
    parsed = registry.get(layout).parse_settings({setting.name: "1"}, *setting.journeys)
    assert parsed.on(setting.name)
    assert not registry.get(layout).parse_settings({setting.name: "No"}, *setting.journeys).on(setting.name)


def test_only_text_may_be_empty() -> None:
    for layout in registry.ours():
        for setting in layout.settings:
            if setting.kind in ("choice", "number", "uuid"):
                with pytest.raises(UsageError, match="is not possible"):
                    layout.parse_settings({setting.name: ""}, *Journey)
