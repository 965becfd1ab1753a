"""A system call fails, once or from then on, below a command: it says so, nothing is half done in silence, and what
is left of the work can be finished or undone."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.device.faults import READING, Call
from tests.faults.commands import all_commands
from tests.faults.journey import TEMPORARY, UNDO, Bench, Failures, MakeBench, chosen, every_point, lines_of
from tests.programs import Result
from zoned_tools.errors import FsckStatus

COMMANDS = all_commands(heavy=every_point())
POINTS = 5
_FAMILIES = (
    ("pwrite", "write"),
    ("fsync", "fdatasync"),
    ("pread", "preadv", "read"),
    ("link", "replace", "rename", "unlink"),
)


@dataclass(frozen=True)
class Fault:
    """``number`` counts the calls of a run; ``error`` 0 cuts writes short instead."""

    number: int
    error: int
    lasts: bool

    def __str__(self) -> str:
        what = errno.errorcode[self.error] if self.error else "short"
        return f"call {self.number}, {what} {'for ever' if self.lasts else 'once'}"


def family(name: str) -> tuple[str, ...]:
    """Names of the calls that fail together."""
    return next((names for names in _FAMILIES if name in names), (name,))


class Injector:
    """Lets the calls of one run fail, or cuts them short."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hit: list[Call] = []
        self._count = -1

    def _is_due(self, call: Call) -> bool:
        if self._count == self.fault.number:
            return True
        return self.fault.lasts and bool(self.hit) and call.name in family(self.hit[0].name)

    def before(self, call: Call) -> None:
        self._count += 1
        if self.fault.error and self._is_due(call):
            self.hit.append(call)
            raise OSError(self.fault.error, os.strerror(self.fault.error))

    def shorten(self, call: Call) -> int:
        if self.fault.error or not self._is_due(call):
            return len(call.data)
        self.hit.append(call)
        return max(1, len(call.data) // 3)


def faults_at(number: int, call: Call, *, all_kinds: bool) -> Iterator[Fault]:
    """What can go wrong with a call; one thing of it unless ``all_kinds``."""
    kinds: list[tuple[int, bool]] = [(errno.EIO, False), (errno.EIO, True)]
    if call.name in ("pwrite", "write"):
        kinds += [(errno.ENOSPC, True), (0, False), (0, True)]
    elif call.name not in ("pread", "preadv", "read", "unlink"):
        kinds += [(errno.ENOSPC, False)]
    if not all_kinds:
        kinds = [random.Random(f"{number} {call.name}").choice(kinds)]
    yield from (Fault(number, *kind) for kind in kinds)


def check_result(bench: Bench, result: Result, injector: Injector) -> None:
    """What a command may say after a fault."""
    found = bench.state(bench.folder)
    assert "Traceback" not in result.err
    if result.status in bench.command.success:
        assert found == bench.after, "it said success"
        failed_syncs = [call for call in injector.hit if call.name in ("fsync", "fdatasync") and injector.fault.error]
        assert not failed_syncs, "a failed sync was forgotten"
        return
    assert injector.fault.error, "a short write is no failure"
    if result.status == FsckStatus.UNCORRECTED and "check" in bench.command.line:
        assert bench.command.drives[-1] in result.out, "what cannot be read is a finding"
        return
    check_message(bench, list(lines_of(result)), injector)


def check_message(bench: Bench, said: list[str], injector: Injector) -> None:
    """One line names what failed; two where other files failed as well."""
    program = bench.command.line.split()[0]
    assert 1 <= len(said) <= (2 if injector.fault.lasts else 1), said
    for line in said:
        assert line.startswith(f"{program}: ") or program == "mkzonefs", line  # the original has no prefix
        assert "internal error" not in line, line
        assert any(name in line for name in (*bench.names, *bench.command.drives, f"run/{UNDO}")), line
        assert not TEMPORARY.search(line), line


def check_fault(bench: Bench, fault: Fault) -> None:
    injector = Injector(fault)
    result = bench.faulted(injector.before, injector.shorten)
    assert result is not None
    assert injector.hit, "the fault did not happen"
    found = bench.state(bench.folder)
    read_failed = injector.hit[0].name in READING and bool(fault.error)
    if not (bench.command.rescues and read_failed and result.status == 0):
        check_result(bench, result, injector)
        bench.check_state(found)
    cannot_remove = fault.lasts and any(call.name in ("open", "unlink", "rmdir") for call in injector.hit)
    bench.check_names(temporary=cannot_remove or injector.hit[0].name in ("unlink", "rmdir"))
    bench.check_undo()
    bench.check_retry(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_failing_system_call(name: str, bench: MakeBench, record_property: Callable[[str, object], None]) -> None:
    at = bench(name)
    limit = None if every_point() else POINTS
    failures = Failures()
    for number in chosen(at.calls, limit, name):
        call = at.calls[number]
        for fault in faults_at(number, call, all_kinds=every_point()):
            with failures.at(f"{fault} ({call.name} {call.target})"):
                check_fault(at, fault)
    failures.report(record_property, "faults of system calls below commands")
