"""Figures for monitoring, against those that the status line of the real target agrees with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.formats.dm_zoned.images import VECTORS, Images, patch
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.figures import figures
from zoned_tools.formats.dm_zoned.layout import SuperBlock

FIGURES = json.loads((VECTORS / "figures.json").read_text())


def found(target: Target) -> dict[str, float]:
    rows = {}
    for figure in figures(target):
        kind = dict(figure.labels).get("kind")
        rows[figure.name + (f'{{kind="{kind}"}}' if kind else "")] = figure.value
        assert figure.help
    return rows


@pytest.mark.parametrize(("name", "state"), [(name, state) for name, states in FIGURES.items() for state in states])
def test_public_figures(images: Images, name: str, state: str) -> None:
    wanted = FIGURES[name][state]
    values = found(images.target(name, state))
    assert {key: values[key] for key in wanted} == wanted


def test_sets_of_different_generations_need_a_sync(images: Images) -> None:
    target = images.target("hm64x1")
    secondary = SuperBlock.parse(target.device.read(256 * 4096, 4096))
    patch(target.device, 256 * 4096, replace(secondary, gen=22).pack())
    values = found(target)
    assert (values["needs_sync"], values["sets_equal"], values["generation"]) == (1, 0, 23)


def test_content_that_differs_is_not_equal(images: Images) -> None:
    target = images.target("hm64x1")
    patch(target.device, 257 * 4096 + 8 * 54, bytes(8))
    values = found(target)
    assert (values["needs_sync"], values["sets_equal"]) == (0, 0)


def test_without_a_super_block_there_are_none(images: Images) -> None:
    target = images.target("hm64x1")
    for block in (0, 256):
        patch(target.device, block * 4096, bytes(4096))
    with pytest.raises(NoValidSuperBlockError):
        list(figures(target))
