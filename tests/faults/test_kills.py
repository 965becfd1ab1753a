"""Killed ahead of every call that changes a file: what is there afterwards opens, and the rest can be finished."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.device.faults import Killed, nth
from tests.faults.commands import all_commands
from tests.faults.journey import Bench, Failures, MakeBench, chosen, every_point, is_change

COMMANDS = all_commands(heavy=every_point())
POINTS = 5


def check_kill(bench: Bench, number: int) -> None:
    assert bench.faulted(nth(number, Killed())) is None
    found = bench.state(bench.folder)
    bench.check_state(found)
    bench.check_names(temporary=True)
    bench.check_undo()
    bench.check_retry(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill(name: str, bench: MakeBench, record_property: Callable[[str, object], None]) -> None:
    at = bench(name)
    changes = [number for number, call in enumerate(at.calls) if is_change(call)]
    limit = None if every_point() else POINTS
    failures = Failures()
    for index in chosen([at.calls[number] for number in changes], limit, name):
        call = at.calls[changes[index]]
        with failures.at(f"killed ahead of call {changes[index]} ({call.name} {call.target})"):
            check_kill(at, changes[index])
    failures.report(record_property, "kills of commands")
