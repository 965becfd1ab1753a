"""``KEY=VALUE`` words of a command line."""

from __future__ import annotations

import pytest

from zoned_tools.cli.settings import parse_settings
from zoned_tools.errors import UsageError


def test_a_bare_word_is_yes_and_an_empty_value_stays_empty() -> None:
    assert parse_settings(["zero-unreadable", "relink=", "rlow=40,legacy"]) == {
        "zero-unreadable": "1",
        "relink": "",
        "rlow": "40",
        "legacy": "1",
    }


@pytest.mark.parametrize(
    ("word", "hint"),
    [("meta", "meta=PATH"), ("rlow", "rlow=0..100"), ("use_set", "use_set=0|1"), ("label", "label=TEXT")],
)
def test_only_switches_do_without_a_value(word: str, hint: str) -> None:
    with pytest.raises(UsageError, match="needs a value") as refused:
        parse_settings([word])
    assert refused.value.hint == hint


def test_unknown_words_are_left_for_the_layout_to_refuse() -> None:
    assert parse_settings(["nonsense"]) == {"nonsense": "1"}
