"""Power cuts at every change of the drive: what was flushed is there, and check finds no error."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.crash_model import Workload, assert_content, cut_drive
from tests.formats.zdm.images import FOLDER, check_counts, digests, errors, facts, target
from zoned_tools.device.overlay import Overlay, Recorder
from zoned_tools.device.plan import apply_plan
from zoned_tools.findings import CheckReport
from zoned_tools.formats.contract import RepairOptions
from zoned_tools.formats.zdm import reclaim
from zoned_tools.formats.zdm.repair import plan_repair

CHECK_EVERY = 5
"""Every how many cuts the whole check runs beside the comparison of the content."""


def tight_drive() -> zx1.VectorDrive:
    """pop-clean with nearly full zones, so that streams run out of zones."""
    drive = zx1.open_vector(FOLDER, "pop-clean")
    table = drive.zones()
    for zone in range(5, 13):
        table["wp_sector"][zone] = table["start_sector"][zone] + (65536 - 60) * 8
        table["condition"][zone] = 4
    return zx1.VectorDrive("tight", drive.geometry, table, drive.store, writable=True)


def explore(workload: Workload, cuts: int, seed: int) -> int:
    """Cut at ``cuts`` places, in turn keeping all, none or some of what was not flushed."""
    choose = random.Random(seed)
    places = sorted(choose.choices(range(len(workload.log) + 1), k=cuts))
    for number, cut in enumerate(places):
        share = (1.0, 0.0, choose.random())[number % 3]
        left = cut_drive(workload.drive, workload.log, cut, lambda index, share=share: choose.random() < share)
        assert_content(left, workload.allowed(cut), workload.span)
        if number % CHECK_EVERY == 0:
            assert errors(left) == [], f"cut {cut}, {share:.2f} kept"
    return len(places)


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("base", ["fmt-16z", "pop-clean", "pop-journal", "gen-third-slot", "stale-trim"])
def test_mapper(base: str, part: int) -> None:
    workload = Workload(zx1.open_vector(FOLDER, base))
    workload.run(seed=part, operations=60)
    assert explore(workload, 40, seed=part) == 40


@pytest.mark.parametrize("part", range(6))
def test_reclaim(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied = []
    original = reclaim.empty_zone
    monkeypatch.setattr(reclaim, "empty_zone", lambda mapper, zone: (emptied.append(zone), original(mapper, zone)))
    workload = Workload(tight_drive())
    workload.run(seed=part, operations=40)
    assert emptied, "the workload is meant to run out of zones"
    assert explore(workload, 40, seed=part) == 40


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
    plan = plan_repair(target(drive), CheckReport("zdm", ("",)), RepairOptions())
    apply_plan([drive], plan.steps)


@pytest.mark.parametrize(("file", "name"), REPAIRED, ids=[name for _, name in REPAIRED])
def test_repair_can_be_cut_and_run_again(file: str, name: str) -> None:
    case: dict[str, Any] = next(c for c in facts(file)["cases"] if c["name"] == name)
    drive = zx1.open_case(FOLDER, case["base"], case)
    recorder = Recorder(Overlay(drive))
    repair_once(recorder)
    expected = digests(recorder.device)[:2]
    choose = random.Random(name)
    for cut in range(len(recorder.log) + 1):
        share = (1.0, 0.0, choose.random())[cut % 3]
        left = cut_drive(drive, recorder.log, cut, lambda index, share=share: choose.random() < share)
        repair_once(left)
        assert check_counts(left, notes=False) == {}
        if cut % 3 == 0:
            assert digests(left)[:2] == expected
