"""Figures for monitoring, against those that the status line of the real target agrees with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.formats.dm_zoned.images import VECTORS, Images, patch
from zoned_tools.device.device_mapper import Mapping
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned import running
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.figures import figures
from zoned_tools.formats.dm_zoned.geometry import ZoneKind
from zoned_tools.formats.dm_zoned.inspect import inspect
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.running import parse_status

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


STATUS = "0 57344 zoned 73 zones 3/7 cache 1/2 random 29/40 sequential 0/0 random 4/9 sequential"


def test_the_status_line_of_a_running_target() -> None:
    expected = {ZoneKind.CACHE: (3, 7), ZoneKind.RANDOM: (1, 2), ZoneKind.SEQUENTIAL: (33, 49)}
    assert parse_status(STATUS) == expected
    for other in ("", "0 8 linear 253:0 0", "0 8 zoned x/y random"):
        assert parse_status(other) == {}


def test_figures_of_a_running_target_are_the_kernels(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    target = images.target("hm64x1")
    before = {(figure.name, figure.labels[1:]): figure.value for figure in figures(target)}
    assert ("running", ()) not in before
    mappings = [Mapping("other", "linear", ""), Mapping("t", "zoned", STATUS)]
    monkeypatch.setattr(running, "mappings_on", lambda path: mappings)
    found = {(figure.name, figure.labels[1:]): figure.value for figure in figures(target)}
    assert found["running", ()] == 1
    assert found["free_zones", (("kind", "sequential"),)] == 33
    assert found["zones", (("kind", "sequential"),)] == 49
    assert found["free_zones", (("kind", "cache"),)] == 3
    assert found["mapped_chunks", (("kind", "random"),)] == before["mapped_chunks", (("kind", "random"),)]
    tree = inspect(target)["running"]
    assert tree == {
        "name": "t",
        "cache": {"free": 3, "zones": 7},
        "random": {"free": 1, "zones": 2},
        "sequential": {"free": 33, "zones": 49},
    }
    monkeypatch.setattr(running, "mappings_on", lambda path: [Mapping("t", "zoned", "")])
    assert {(f.name, f.labels[1:]): f.value for f in figures(target)} == {**before, ("running", ()): 1}
