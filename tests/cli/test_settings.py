"""``KEY=VALUE`` words of a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned_tools.cli.settings import parse_settings
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program


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


def test_commas_join_settings_and_stay_in_values_behind_a_backslash() -> None:
    assert parse_settings(["rlow=40,idle_rlow=50,"]) == {"rlow": "40", "idle_rlow": "50"}
    assert parse_settings([r"label=a\,b,c=d", r"meta=/dev/\x"]) == {"label": "a,b", "c": "d", "meta": r"/dev/\x"}
    assert parse_settings(["features=aggr_cnv,uid=0"]) == {"features": "aggr_cnv,uid=0"}
    line = "device=/dev/x,writeback=5,critical"
    assert parse_settings([f"table={line}"]) == {"table": line}
    assert parse_settings([f"table:{line}"]) == {"table": line}


@pytest.mark.parametrize("word", ["", ",", ",,", "=1", ":", "rlow=1,=2"])
def test_a_word_that_says_nothing_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        parse_settings([word])


def test_a_label_with_a_comma(zoned: Program, tmp_path: Path) -> None:
    image = tmp_path / "drive.img"
    assert zoned("image", "create", image, "--zones", 16, "--zone-size", "4M", "--conventional", 2).status == 0
    assert zoned("zonefs", "check", image, "--repair", "--allow", "sb-magic", "--set", r"label=a\,b").status == 1
    assert zoned("probe", image, "--json").json["devices"][0]["label"] == "a,b"
    for word in ("", ","):
        refused = zoned("check", image, "--set", word)
        assert (refused.status, refused.out, refused.err) == (16, "", f"zoned: '{word}' is not KEY=VALUE\n")
