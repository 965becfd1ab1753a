"""A power cut at every step of a repair: the old state or the repaired one, and repair finishes it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.crash_model import cut_drive
from tests.formats.zdm.images import FOLDER, case_drive, check_counts, digests, planned
from tests.formats.zdm.test_mapper_crash import keeping
from zoned_tools.device.overlay import Overlay, Recorder
from zoned_tools.device.plan import apply_plan
from zoned_tools.formats.zdm import repair_writes
from zoned_tools.formats.zdm.survey import survey

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

REPAIRED = [
    ("corrupt-clean", "lut-fwd"),
    ("corrupt-clean", "fwd-double"),
    ("corrupt-clean", "cache-range"),
    ("corrupt-clean", "md-crcs"),
    ("corrupt-journal", "journal-page"),
    ("corrupt-journal", "key-newest"),
    ("corrupt-journal", "all-keys"),
]


def repair_once(drive: Overlay | Recorder) -> None:
    apply_plan([drive], planned(drive).plan.steps)


def cut_everywhere(file: str, name: str) -> None:
    drive = case_drive(file, name)
    recorder = Recorder(Overlay(drive))
    repair_once(recorder)
    expected = digests(recorder.device)[:2]
    choose = random.Random(name)
    for cut in range(len(recorder.log) + 1):
        share = (1.0, 0.0, choose.random())[cut % 3]
        left = cut_drive(drive, recorder.log, cut, keeping(choose, share))
        repair_once(left)
        assert check_counts(left, notes=False) == {}
        if cut % 3 == 0:
            assert digests(left)[:2] == expected


@pytest.mark.parametrize(("file", "name"), REPAIRED, ids=[name for _, name in REPAIRED])
def test_repair_can_be_cut_and_run_again(file: str, name: str) -> None:
    cut_everywhere(file, name)


@pytest.mark.parametrize(("file", "name"), REPAIRED[::2], ids=[name for _, name in REPAIRED[::2]])
def test_pages_that_do_not_fit_the_journal_can_be_cut_as_well(
    file: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_writes, "slots_for", lambda _state, _homes: None)
    assert any("overwritten in place" in m for m in planned(case_drive(file, name)).plan.messages)
    cut_everywhere(file, name)


def test_tables_that_stay_as_they_are_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    surveyed: list[State] = []

    def counted(state: State) -> Survey:
        surveyed.append(state)
        return survey(state)

    monkeypatch.setattr(repair_writes, "survey", counted)
    assert planned(zx1.open_vector(FOLDER, "gen-third-slot")).plan.steps
    clean = planned(case_drive("corrupt-clean", "zf-too-high"))
    assert clean.plan.steps
    once = len(surveyed)
    assert planned(case_drive("corrupt-clean", "rev-missing")).plan.steps
    assert len(surveyed) == once + 1
