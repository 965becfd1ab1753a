"""One run of a command with something going wrong, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

from tests.device.faults import READING, Call, Killed, Syscalls
from tests.faults.commands import Command
from tests.programs import Program, Result
from tests.project.write_log_cases import _copy
from zoned_tools.device.base import Device
from zoned_tools.device.opening import open_device
from zoned_tools.errors import ZonedError

ABSENT = "absent"
UNREADABLE = "does not open"
LONG = "ZONED_FAULTS"
"""Environment variable: ``all`` tries every point and every kind of fault."""

UNDO = "undo"
"""Directory of undo files, beside the images."""

State: TypeAlias = dict[str, str]
"""Name of a drive or a file to what it holds: a digest, or why it cannot be opened."""

TEMPORARY = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{16}\.new(/|$)")
"""A file that is not complete, or a directory of such."""
PENDING = re.compile(r"\.zones\.for-\d+$")
"""A zone table that a new image does not have under its usual name yet."""
_CHUNK_BYTES = 64 << 10
_RANDOM = re.compile(r"[0-9a-f]{16}|for-\d+|\d{8}T[\d.]+Z")


def digest_of(path: Path) -> str:
    """What a drive shows: its zones and its content, holes and zeroes alike."""
    if not path.exists():
        return ABSENT
    try:
        with open_device(str(path)) as drive:
            found = hashlib.sha256(repr(drive.zones().tolist()).encode())
            for at in _chunks(drive):
                data = drive.read(at, min(_CHUNK_BYTES, drive.geometry.size_bytes - at))
                if data.count(0) != len(data):
                    found.update(at.to_bytes(8, "little") + data)
            return f"{drive.geometry.size_bytes} {found.hexdigest()[:16]}"
    except ZonedError as error:
        return f"{UNREADABLE}: {error.message}"


def _chunks(drive: Device) -> Iterator[int]:
    """Where the chunks begin that may hold anything."""
    last = -1
    for offset, length in drive.data_extents(0, drive.geometry.size_bytes):
        for chunk in range(max(offset // _CHUNK_BYTES, last + 1), -(-(offset + length) // _CHUNK_BYTES)):
            last = chunk
            yield chunk * _CHUNK_BYTES


def copy_folder(source: Path, target: Path) -> None:
    """A fresh copy, with holes."""
    shutil.rmtree(target, ignore_errors=True)
    for folder, _, names in os.walk(source):
        here = target / os.path.relpath(folder, source)
        here.mkdir(parents=True)
        for name in names:
            _copy(Path(folder) / name, here / name)


def names_in(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


@dataclass
class Bench:
    """A command and a folder in which it is run again and again.

    Attributes:
        start: the files as they are before the command; ``folder``: where it runs.
        before, after: states without any fault.
        calls: what the command does to the files.
        content: digest of the logical device after the command.
    """

    command: Command
    program: Program
    monkeypatch: pytest.MonkeyPatch
    start: Path
    folder: Path
    before: State = field(default_factory=dict)
    after: State = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    content: str = ""

    def run(self, line: str) -> Result:
        return self.program(*shlex.split(line))

    def enter(self, folder: Path) -> None:
        """Run commands in ``folder`` from now on, undo files included."""
        self.monkeypatch.chdir(folder)
        self.monkeypatch.setenv("ZONED_UNDO_DIR", str(folder / UNDO))

    def make(self, *, reads: bool = True) -> None:
        """Make the files, and learn what the command does when nothing goes wrong."""
        for name in ("fsync", "fdatasync"):  # seen and failed, but the disk need not be waited for
            self.monkeypatch.setattr(os, name, lambda fd: None)
        self.start.mkdir()
        self.enter(self.start)
        for step in self.command.made:
            if isinstance(step, str):
                done = self.run(step)
                assert done.status in (0, 1), (step, done)
            else:
                step()
        shutil.rmtree(self.start / UNDO, ignore_errors=True)
        self.before = self.state(self.start)
        copy_folder(self.start, self.folder)
        self.enter(self.folder)
        with self.monkeypatch.context() as patched:
            calls = Syscalls(patched, self.folder, reads=reads)
            calls.watching = True
            done = self.run(self.command.line)
            calls.watching = False
        assert done.status in self.command.success, done
        self.calls = calls.log
        self.after = self.state(self.folder)
        self.content = self.shown()
        self.names = names_in(self.start) | names_in(self.folder)
        assert self.before != self.after

    def state(self, folder: Path) -> State:
        found = {name: digest_of(folder / name) for name in self.command.drives}
        for name in self.command.results:
            path = folder / name
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ABSENT
        return found

    def faulted(
        self, before: Callable[[Call], None], shorten: Callable[[Call], int] | None = None, *, reads: bool = True
    ) -> Result | None:
        """Run the command in a fresh copy with ``before`` ahead of its calls; None when it was killed."""
        copy_folder(self.start, self.folder)
        self.enter(self.folder)
        with self.monkeypatch.context() as patched:
            calls = Syscalls(patched, self.folder, reads=reads)
            calls.watching, calls.before = True, before
            if shorten is not None:
                calls.shorten = shorten
            try:
                return self.run(self.command.line)
            except Killed:
                return None
            finally:
                calls.watching = False

    # -- what must hold

    def check_state(self, found: State) -> None:
        """What opened before opens, and is not half new where that cannot be undone or finished."""
        for name, state in found.items():
            known = (self.before[name], self.after[name])
            assert state in known or not state.startswith(UNREADABLE), state
            assert state in known or self.command.saves or self.command.gradual or self.command.adds, "half done"

    def undo_files(self) -> list[str]:
        found = (name for name in sorted(names_in(self.folder)) if name.startswith(f"{UNDO}/"))
        return [name for name in found if not TEMPORARY.search(name)]

    def check_undo(self) -> None:
        """Every undo file brings the drive back, in a copy of what is there now."""
        drives = [drive for drive in self.command.drives if drive not in self.command.kept]
        copied = self.before[(*self.command.kept, *drives)[0]]
        wanted = {drive: copied if self.before[drive] == ABSENT else self.before[drive] for drive in drives}
        for name in self.undo_files():
            back = self.folder.with_name("back")
            copy_folder(self.folder, back)
            self.enter(back)
            done = self.run(f"zoned undo {name} {' '.join(drives)}")
            assert done.status == 0, done
            assert {drive: digest_of(back / drive) for drive in drives} == wanted, "undone"
            self.enter(self.folder)

    def check_retry(self, found: State) -> None:
        """The command, run again, does what is left to do."""
        command = self.command
        if not (command.once and found == self.after):
            if command.mends:
                self.run(command.mends)
            again = command.line if found == self.before else command.again or command.line
            done = self.run(again)
            assert done.status in command.success, (again, done)
        if command.adds:
            where = command.where if command.where.endswith(".img") else command.where + " ".join(command.drives)
            assert self.run(f"zoned check {where}").status == 0
        else:
            assert self.state(self.folder) == self.after, "after another run"
        assert self.shown() == self.content, "the content"

    def shown(self) -> str:
        """Digest of the logical device of a command that says where it is."""
        if not self.command.shows:
            return ""
        raw = self.folder.with_name("content.raw")
        done = self.run(f"zoned export {self.command.shows} -o {raw} --force --quiet")
        assert done.status == 0, done
        return hashlib.sha256(raw.read_bytes()).hexdigest()

    def check_names(self, *, temporary: bool) -> None:
        """Nothing is left behind; a killed command, or one that could not remove them, leaves hidden files."""
        left = {name for name in names_in(self.folder) if not name.startswith(f"{UNDO}/")} - self.names
        left |= {name for name in self.undo_files() if not name.endswith(".undo")}
        if not temporary:
            left |= {name for name in names_in(self.folder) if TEMPORARY.search(name)}
        assert not {name for name in left if not TEMPORARY.search(name) and not PENDING.search(name)} or temporary, left
        assert temporary or not {name for name in left if TEMPORARY.search(name)}, left
        pending = {name for name in left if PENDING.search(name)}
        assert temporary or not pending or self.state(self.folder) == self.after, pending


class MakeBench(Protocol):
    """Makes the bench of a command; ``reads`` counts calls that read, too."""

    def __call__(self, name: str, *, reads: bool = True) -> Bench: ...


class Failures:
    """What failed at which point; all points are tried."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._tried = 0

    @contextmanager
    def at(self, point: str) -> Iterator[None]:
        """Runs a check at a point of a command."""
        self._tried += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this point
            self._found.append(f"{point}: {error!r:.600}")

    def report(self, record_property: Callable[[str, object], None], what: str) -> None:
        record_property(what, self._tried)
        assert not self._found, "\n".join(self._found)


def every_point() -> bool:
    """Whether this is the long mode."""
    return os.environ.get(LONG) == "all"


def is_change(call: Call) -> bool:
    """Whether a call changes anything; files that are made have names of their own."""
    return call.name not in (*READING, "read") and (call.name != "open" or bool(TEMPORARY.search(call.target)))


def normal(name: str) -> str:
    """A file's name without what is random in it."""
    return _RANDOM.sub("*", name)


def chosen(calls: Sequence[Call], limit: int | None, seed: str) -> list[int]:
    """Numbers of the calls to try: all, or ``limit`` of them, of each kind the first and the last before others."""
    if limit is None or len(calls) <= limit:
        return list(range(len(calls)))
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, call in enumerate(calls):
        kinds.setdefault((call.name, normal(call.target)), []).append(number)
    choose = random.Random(seed)
    ends = sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})
    others = sorted(set(range(len(calls))) - set(ends))
    first = choose.sample(ends, min(limit, len(ends)))
    return sorted(first + choose.sample(others, min(limit - len(first), len(others))))


def lines_of(result: Result) -> Iterator[str]:
    """What is said on standard error that is no note."""
    return (line for line in result.err.splitlines() if line and not line.startswith("note: "))
