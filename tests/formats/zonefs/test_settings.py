"""Settings: the same refusal in every journey, before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.volumes import GIVEN, GOOD, consents_of, image_with
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.zonefs import LAYOUT
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.parameters import describe, with_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result


@pytest.mark.parametrize(
    "settings",
    [
        {"foo": "1"},
        {"features": "foo"},
        {"features": "perm=77777"},
        {"uuid": "x"},
        {"label": "x" * 65},
        {"label": "x\0y"},
        {"label": "\ud800"},
    ],
)
@pytest.mark.parametrize("journey", [Journey.CHECK, Journey.REPAIR, Journey.FORMAT])
def test_bad_settings(settings: dict[str, str], journey: Journey) -> None:
    with pytest.raises(UsageError):
        LAYOUT.parse_settings(settings, journey)


def test_settings_make_a_super_block() -> None:
    given = consents_of(GIVEN).settings
    assert with_settings(SuperBlock(), given).pack() == GOOD.pack()
    assert describe(GOOD).startswith(f"features={GIVEN['features']} label='name'")
    assert with_settings(GOOD, consents_of({}).settings) == GOOD


@pytest.mark.parametrize(
    ("words", "status"),
    [(("foo=1",), 16), (("features=foo",), 16), (("label=" + "x" * 65,), 16), (("uuid=x",), 16), (("label=new",), 0)],
)
def test_check_without_repair_refuses_too(
    words: tuple[str, ...], status: int, tmp_path: Path, program: Callable[..., Result]
) -> None:
    image = image_with(tmp_path / "disk.img", GOOD.pack())
    result = program("zoned", "check", image, *(part for word in words for part in ("--set", word)))
    assert result.status == status
    assert len(result.err.splitlines()) == (1 if status else 0)


def test_a_list_of_features_is_one_value(tmp_path: Path, program: Callable[..., Result]) -> None:
    """What a repair's message names can be given on the command line, commas and all."""
    image = image_with(tmp_path / "disk.img", b"\xff" * 4096)
    words = [part for name, value in GIVEN.items() for part in ("--set", f"{name}={value}")]
    assert program("zoned", "check", "--layout", "zonefs", "--repair", *words, image).status == 1
    assert image.read_bytes()[:4096] == GOOD.pack()
