"""Real processes, ended by SIGKILL: what :mod:`tests.faults.test_kills` does inside this process is what happens."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.commands import all_commands
from tests.faults.journey import Bench, Failures, MakeBench, chosen, copy_folder, every_point

SAMPLE = ("image create --force", "dmzadm --format --force", "undo of zone reset", "btrfs check --repair", "zonefs put")
POINTS = 1
LONG_POINTS = 8
ROOT = Path(__file__).parents[2]


def run_killed(bench: Bench, number: int) -> int:
    """Exit status of the command as a process; negative when a signal ended it."""
    copy_folder(bench.start, bench.folder)
    bench.enter(bench.folder)
    killed = [sys.executable, "-m", "tests.faults.killed", str(bench.folder), str(number)]
    words = [*killed, *shlex.split(bench.command.line)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    return done.returncode


@pytest.mark.parametrize("name", all_commands(heavy=False) if every_point() else SAMPLE)
def test_a_killed_process(name: str, bench: MakeBench, record_property: Callable[[str, object], None]) -> None:
    at = bench(name, reads=False)
    failures = Failures()
    for number in chosen(at.calls, LONG_POINTS if every_point() else POINTS, f"process {name}"):
        with failures.at(f"killed ahead of call {number} ({at.calls[number].name} {at.calls[number].target})"):
            assert run_killed(at, number) == -signal.SIGKILL
            found = at.state(at.folder)
            at.check_state(found)
            at.check_names(temporary=True)
            at.check_undo()
            at.check_retry(found)
    failures.report(record_property, "killed processes")
