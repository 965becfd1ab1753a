"""The power fails at every point of generated workloads, and the drive loses what it may lose."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.formats.dm_zoned.crash_model import (
    TARGETS,
    Change,
    CutSeries,
    History,
    Log,
    aged,
    content,
    error_findings,
    logical,
    run_workload,
    seeds_of,
    split_writes,
)
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LoggedWrite, Overlay, Recorder
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper

WORKLOADS_EACH = 4
AGEING_REQUESTS = 20
REQUESTS = 16
MIN_CUTS = 2000 // (WORKLOADS_EACH * len(TARGETS))
"""Of one workload, so that all of them make 2,000."""


@pytest.mark.parametrize("number", range(WORKLOADS_EACH))
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_acknowledged_is_lost(name: str, number: int, record_property: Callable[[str, object], None]) -> None:
    chance = random.Random(f"{name} {number}")
    base = aged(TARGETS[name](), chance, AGEING_REQUESTS)
    history = History(seeds_of(open_mapper(Target("dm-zoned", tuple(base)), writable=False, settings=logical())))
    starts: list[int] = []
    pieces: Log = []
    while len(starts) <= MIN_CUTS:
        log, history = run_workload(base, chance, REQUESTS)
        pieces, starts = split_writes(log)
    history = History(
        history.initial,
        [Change(c.block, c.count, c.seed, starts[c.log_start]) for c in history.changes],
        [(starts[end], count) for end, count in history.flushes],
    )
    series = CutSeries(base, pieces)
    for point in starts:
        devices = series.cut(point, losing(chance))
        verify_cut(devices, history, point)
    record_property("dm-zoned power cuts", len(starts))


def losing(chance: random.Random) -> Callable[[int], bool]:
    """Which of the writes that were not flushed survive."""
    share = chance.choice((0.0, 0.3, 0.7, 1.0))
    return lambda index: chance.random() < share


@pytest.mark.parametrize("name", TARGETS)
def test_recovery_can_be_cut_too(name: str, record_property: Callable[[str, object], None]) -> None:
    chance = random.Random(name)
    base = aged(TARGETS[name](), chance, AGEING_REQUESTS)
    log, _history = run_workload(base, chance, REQUESTS)
    series = CutSeries(base, log)
    cuts = 0
    for point in range(0, len(log) + 1, 3):
        devices = series.cut(point, losing(chance))
        found = seeds_of(open_mapper(Target("dm-zoned", tuple(devices)), writable=False, settings=logical()))
        recovery: Log = []
        recorders = [Recorder(Overlay(device), recovery, number) for number, device in enumerate(devices)]
        open_mapper(Target("dm-zoned", tuple(recorders)), writable=True, settings=logical())
        if not any(isinstance(entry, LoggedWrite) for _, entry in recovery):
            continue
        pieces = CutSeries(devices, recovery)
        for second in sorted(chance.sample(range(len(recovery) + 1), 2)):
            again = pieces.cut(second, losing(chance))
            assert error_findings(again) == []
            target = Target("dm-zoned", tuple(again))
            assert (seeds_of(open_mapper(target, writable=False, settings=logical())) == found).all()
            assert (seeds_of(open_mapper(target, writable=True, settings=logical())) == found).all()
            assert error_findings(again) == []
            cuts += 1
    assert cuts > 20
    record_property("dm-zoned power cuts", cuts)


def verify_cut(devices: list[Device], history: History, point: int) -> None:
    """Check, read as found, recover and write, check and read again."""
    target = Target("dm-zoned", tuple(devices))
    assert error_findings(devices) == []
    found = seeds_of(open_mapper(target, writable=False, settings=logical()))
    history.verify(found, point)
    mapper = open_mapper(target, writable=True, settings=logical())
    block = point % len(found)
    mapper.write(block, content(block, 1, 999))
    found[block] = 999
    mapper.close()
    assert error_findings(devices) == []
    assert (seeds_of(open_mapper(target, writable=False, settings=logical())) == found).all()
