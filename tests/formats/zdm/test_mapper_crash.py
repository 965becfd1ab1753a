"""Power cuts at every change of the drive: what was flushed is there, check finds no error, and a session goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.crash_model import Workload, assert_content, cut_drive, go_on
from tests.formats.zdm.images import FOLDER, check_counts, errors, tight_drive
from zoned_tools.formats.zdm.mapper import reclaim

if TYPE_CHECKING:
    from collections.abc import Callable

CHECK_EVERY = 5
"""Every how many cuts the whole check runs beside the comparison of the content, and another session follows."""

NOTES = {"zf.drift"}
"""What a check may say after a clean close."""


def keeping(choose: random.Random, share: float) -> Callable[[int], bool]:
    """Keep each write that was not flushed with the probability ``share``."""
    return lambda _: choose.random() < share


def explore(workload: Workload, cuts: int, seed: int) -> int:
    """Cut at ``cuts`` places, in turn keeping all, none or some of what was not flushed."""
    choose = random.Random(seed)
    places = sorted(choose.choices(range(len(workload.log) + 1), k=cuts))
    for number, cut in enumerate(places):
        share = (1.0, 0.0, choose.random())[number % 3]
        left = cut_drive(workload.drive, workload.log, cut, keeping(choose, share))
        assert_content(left, workload.allowed(cut), workload.span)
        if number % CHECK_EVERY == 0:
            assert errors(left) == [], f"cut {cut}, {share:.2f} kept"
            now = go_on(left, workload.allowed(cut), workload.span, choose)
            assert check_counts(left).keys() <= NOTES, f"cut {cut}, {share:.2f} kept, another session"
            assert_content(left, now, workload.span)
    return len(places)


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("base", ["fmt-16z", "pop-clean", "pop-journal", "gen-third-slot", "stale-trim"])
def test_mapper(base: str, part: int) -> None:
    workload = Workload(zx1.open_vector(FOLDER, base))
    workload.run(seed=part, operations=60)
    assert explore(workload, 40, seed=part) == 40


@pytest.mark.parametrize("part", range(6))
def test_reclaim(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    original = reclaim.empty_zone

    def empty_zone(mapper: reclaim.MovesBlocks, zone: int) -> None:
        emptied.append(zone)
        original(mapper, zone)

    monkeypatch.setattr(reclaim, "empty_zone", empty_zone)
    workload = Workload(tight_drive())
    workload.run(seed=part, operations=40)
    assert emptied, "the workload is meant to run out of zones"
    assert explore(workload, 40, seed=part) == 40
