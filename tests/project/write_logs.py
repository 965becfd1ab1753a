"""What the programs write and print, as digests that changes of the code can be compared with.

A case (:mod:`write_log_cases`) runs a few command lines inside this process, on images in a directory of its own.
Recorded are exit statuses, what is printed, each change of a file in the order in which it is made, and what is in
the files in the end. Time, UUIDs and random bytes are the same in every run, nothing is really synced, and programs of
this machine (blkid) are out of reach. Of the code nothing is used but ``run(program, arguments)``.

    python -m tests.project.write_logs --case NAME --show     all that is recorded of the cases NAME (a pattern)
    python -m tests.project.write_logs --list [--all]         names of the cases
    python -m tests.project.write_logs --compare [FILE]       run the cases of the tests; --all: the slow ones, too
    python -m tests.project.write_logs --record [FILE]        the same, and keep the digests in FILE
    python -m tests.project.write_logs --accept-wording       keep what ``zoned`` prints now, if nothing else changed

FILE is write_logs.json beside this program. ``--processes N`` uses several cores.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import io
import json
import os
import random
import re
import shlex
import shutil
import stat
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

from zoned_tools.cli.run import run

GOLDEN = Path(__file__).with_name("write_logs.json")
ZONED = "zoned"
"""The one program whose wording may change; the others print what their originals print."""

CHUNK_BYTES = 1 << 16
ENVIRONMENT = {"PATH": "/nonexistent", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "120",
               "TZ": "UTC"}  # fmt: skip

Step: TypeAlias = str | Callable[[], None]
"""A command line, or something done to the files behind the programs' backs, which is not recorded."""


@dataclass(frozen=True, slots=True)
class Case:
    """Steps in an empty directory, the first ones make the images; ``slow`` ones run with ``--all`` only."""

    name: str
    steps: tuple[Step, ...]
    slow: bool = False


def digest(*parts: bytes) -> str:
    return hashlib.sha1(b"".join(parts)).hexdigest()[:12]


@dataclass
class Record:
    """What is known of a case that has run."""

    statuses: list[str] = field(default_factory=list)
    printed: dict[str, list[str]] = field(
        default_factory=lambda: {f"{whose} {stream}": [] for whose in ("zoned", "clones") for stream in ("out", "err")}
    )
    writes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    """All of it, in order, for people."""

    @property
    def digests(self) -> dict[str, str]:
        """The five values that are compared; ``-`` where there is nothing."""
        whole = {**self.printed, "files": self.files}
        found = {
            name: digest("\0".join(parts).encode(errors="surrogateescape")) if any(parts) else "-"
            for name, parts in whole.items()
        }
        changes = [line for line in self.writes if not line.startswith("$")]
        return {
            "statuses": " ".join(self.statuses),
            "zoned": f"{found['zoned out']} {found['zoned err']}",
            "clones": f"{found['clones out']} {found['clones err']}",
            "writes": f"{len(changes)} {digest(chr(10).join(self.writes).encode())}" if changes else "-",
            "files": found["files"],
        }


FIELDS = ("statuses", "zoned", "clones", "writes", "files")


class Log:
    """Writes down what happens to the files of a directory, through the functions of :mod:`os` and libc's fallocate."""

    def __init__(self, directory: Path, write: Callable[[str], None]) -> None:
        self._prefix = f"{directory}/"
        self._write = write

    def _name(self, file: int | str | os.PathLike[str]) -> str | None:
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(file)
        path += "/" if path + "/" == self._prefix else ""
        return path.removeprefix(self._prefix) or "." if path.startswith(self._prefix) else None

    def note(self, what: str, file: int | str | os.PathLike[str], *details: object) -> None:
        name = self._name(file)
        if name is not None:
            self._write(" ".join((what, name, *map(str, details))))

    def data(self, what: str, fd: int, data: bytes, *where: object) -> None:
        self.note(what, fd, *where, len(data), digest(data))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Patches every function that changes a file; the syncs only leave their line."""
        with contextlib.ExitStack() as stack:
            for patch in self._patches():
                stack.enter_context(patch)
            _active.append(self)
            stack.callback(_active.remove, self)
            yield

    def _patches(self) -> Iterator[Any]:

        def noted(function: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                before(*arguments, **named)
                return function(*arguments, **named)

            return call

        def rename(source: Any, target: Any, **_: Any) -> None:
            self.note("rename", source, self._name(target), content_digest(Path(source)))

        before: dict[str, Callable[..., None]] = {
            "pwrite": lambda fd, data, at: self.data("write", fd, bytes(data), at),
            "pwritev": lambda fd, data, at, *_: self.data("write", fd, b"".join(data), at),
            "write": lambda fd, data: self.data("append", fd, bytes(data)),
            "writev": lambda fd, data: self.data("append", fd, b"".join(data)),
            "ftruncate": lambda fd, size: self.note("truncate", fd, size),
            "truncate": lambda path, size: self.note("truncate", path, size),
            "posix_fallocate": lambda fd, at, size: self.note("allocate", fd, at, size),
            "copy_file_range": lambda source, fd, *more: self.note("copy", fd, *more),
            "sendfile": lambda fd, source, *more: self.note("copy", fd, *more),
            "replace": rename,
            "rename": rename,
            "unlink": lambda path, **_: self.note("unlink", path),
            "remove": lambda path, **_: self.note("unlink", path),
        }
        for name, hook in before.items():
            yield mock.patch.object(os, name, noted(getattr(os, name), hook))
        for name in ("fsync", "fdatasync"):
            yield mock.patch.object(os, name, lambda fd: self.note("sync", fd))
        yield mock.patch.object(ctypes, "CDLL", _with_noted_fallocate(ctypes.CDLL))


_active: list[Log] = []
"""The log of the command that runs; a function of libc that was looked up in an earlier one finds it here."""


def _with_noted_fallocate(load: Callable[..., Any]) -> Callable[..., Any]:
    """``ctypes.CDLL`` whose libc notes each fallocate (which punches holes)."""

    def loaded(name: str | None, *arguments: Any, **named: Any) -> Any:
        library = load(name, *arguments, **named)
        if name is None:
            real = library.fallocate
            real.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

            def fallocate(fd: int, mode: int, at: int, size: int) -> int:
                for log in _active:
                    log.note("fallocate", fd, mode, at, size)
                return int(real(fd, mode, at, size))

            library.fallocate = fallocate
        return library

    return loaded


def content_digest(path: Path) -> str:
    """Size and content of a file, however its holes lie; an archive is its members, however they are compressed."""
    if path.is_dir():
        return "directory"
    size = path.stat().st_size
    found = hashlib.sha1()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                member = _CREATED.sub(b"", archive.read(name))
                found.update(f"{name}\0".encode() + hashlib.sha1(member).digest())
        return f"archive {found.hexdigest()[:12]}"
    with path.open("rb", buffering=0) as file:
        for at, data in _chunks(file.fileno(), size):
            if data == _ONES:  # half a gigabyte of them is in each ZDM
                found.update(b"%d ones\0" % at)
            elif data != _ZEROES[: len(data)]:
                found.update(b"%d\0" % at + data)
    return f"{size} {found.hexdigest()[:12]}"


_CREATED = re.compile(rb'"created": "[^"]*"')
_INODE = re.compile(r"\.for-\d+")
_UNDO_FILE = re.compile(r"/[^ \n\"]*/write-log-undo-[^ \n\"]*")


def _masked(text: str) -> str:
    """Without what differs from run to run: inodes, the process number, the time in the names of undo files."""
    return _INODE.sub(".for-INODE", _UNDO_FILE.sub("/undo-file", text))


_ZEROES, _ONES = bytes(CHUNK_BYTES), b"\xff" * CHUNK_BYTES


def _chunks(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Chunks that are not all hole, at multiples of the chunk size."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // CHUNK_BYTES * CHUNK_BYTES
        except OSError:  # nothing but a hole is left
            return
        yield at, os.pread(fd, CHUNK_BYTES, at)
        at += CHUNK_BYTES


@contextlib.contextmanager
def _same_every_time() -> Iterator[None]:
    """Time, randomness and environment that no machine changes; undo files that nobody names are thrown away."""
    numbers, octets, which = count(1), random.Random(1), shutil.which
    with contextlib.ExitStack() as stack:
        undo = stack.enter_context(tempfile.TemporaryDirectory(prefix="write-log-undo-"))
        for patch in (
            mock.patch.dict(os.environ, ENVIRONMENT | {"ZONED_UNDO_DIR": undo}, clear=True),
            mock.patch.object(uuid, "uuid4", side_effect=lambda: uuid.UUID(int=next(numbers), version=4)),
            mock.patch.object(os, "urandom", octets.randbytes),
            mock.patch.object(time, "time", return_value=1.7e9),
            mock.patch.object(os, "sched_getaffinity", return_value={0}),
            mock.patch.object(os, "cpu_count", return_value=1),
            mock.patch.object(shutil, "which", lambda name, *a, **k: None if name == "blkid" else which(name, *a, **k)),
        ):
            stack.enter_context(patch)
        time.tzset()
        stack.callback(os.umask, os.umask(0o022))
        try:
            yield
        finally:
            stack.close()
            time.tzset()


def _run_line(line: str, directory: Path, record: Record) -> None:
    program, *arguments = shlex.split(line)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", write_through=True) for _ in range(2))
    record.story.append(f"$ {line}")
    record.writes.append("$")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(program, arguments)
    record.statuses.append(str(status))
    for name, stream in (("out", out), ("err", err)):
        stream.seek(0)
        text = _masked(stream.read().replace(str(directory), "/directory"))
        record.printed[f"{'zoned' if program == ZONED else 'clones'} {name}"].append(text)
        record.story += [f"{name}: {part}" for part in text.splitlines()]
    record.story.append(f"status: {status}")


def run_case(case: Case) -> Record:
    """Run a case in a new directory below that of temporary files."""
    record = Record()

    def wrote(line: str) -> None:
        line = _masked(line)
        record.writes.append(line)
        record.story.append(f"file: {line}")

    with tempfile.TemporaryDirectory(prefix="write-log-") as name:
        directory = Path(name).resolve()
        with contextlib.chdir(directory), _same_every_time():
            for step in case.steps:
                if not isinstance(step, str):
                    step()
                    continue
                with Log(directory, wrote).listening():
                    _run_line(step, directory, record)
            for path in sorted(directory.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                record.files.append(f"{path.relative_to(directory)} {mode:o} {content_digest(path)}")
        record.story += [f"left: {line}" for line in record.files]
    return record


@cache
def cases() -> Mapping[str, Case]:
    """All cases by name."""
    from tests.project.write_log_cases import all_cases

    found: dict[str, Case] = {}
    for case in all_cases():
        assert case.name not in found, case.name
        found[case.name] = case
    return found


def chosen(*, slow: bool, pattern: str = "*") -> list[str]:
    return [name for name, case in cases().items() if (slow or not case.slow) and fnmatchcase(name, pattern)]


def digests_of(name: str) -> tuple[str, dict[str, str]]:
    return name, run_case(cases()[name]).digests


_kept: list[Path] = []


@contextlib.contextmanager
def keeping_vectors() -> Iterator[Path]:
    """Keeps the vectors that the cases unpack until the end; needed around every run."""
    with tempfile.TemporaryDirectory(prefix="write-log-vectors-") as name:
        use_vectors(Path(name))
        try:
            yield Path(name)
        finally:
            _kept.pop()


def use_vectors(directory: Path) -> None:
    """Keep them in a directory that another process removes."""
    _kept.append(directory)


def kept_directory() -> Path:
    """Where this process keeps unpacked vectors."""
    return _kept[-1] / str(os.getpid())


def run_all(names: Iterable[str], processes: int = 1) -> Iterator[tuple[str, dict[str, str]]]:
    with keeping_vectors():
        if processes == 1:
            yield from map(digests_of, names)
            return
        with ProcessPoolExecutor(processes) as pool:
            yield from pool.map(digests_of, names, chunksize=4)


Golden: TypeAlias = dict[str, dict[str, str]]


def read_golden(path: Path = GOLDEN) -> Golden:
    document = json.loads(path.read_text(encoding="utf-8"))
    every = {**document["cases"], **document["slow cases"]}
    return {name: dict(zip(document["fields"], values, strict=True)) for name, values in every.items()}


def write_golden(found: Golden, path: Path = GOLDEN) -> None:
    """A line for each case; those that only ``--all`` runs stand apart."""
    sections = []
    for title, slow in (("cases", False), ("slow cases", True)):
        rows = [name for name in sorted(found) if cases()[name].slow is slow]
        lines = [f"  {json.dumps(n)}: {json.dumps([found[n][f] for f in FIELDS])}" for n in rows]
        sections.append(f"{json.dumps(title)}: {{\n" + ",\n".join(lines) + "\n}")
    text = ",\n".join([f'"fields": {json.dumps(FIELDS)}', *sections])
    path.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def differences(golden: Golden, name: str, found: Mapping[str, str]) -> list[str]:
    """What differs from the golden digests, one of :data:`FIELDS` each."""
    return [f for f in FIELDS if name not in golden or golden[name][f] != found[f]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", nargs="?", const=GOLDEN, type=Path, metavar="FILE")
    what.add_argument("--compare", nargs="?", const=GOLDEN, type=Path, metavar="FILE")
    what.add_argument("--accept-wording", nargs="?", const=GOLDEN, type=Path, metavar="FILE")
    what.add_argument("--show", action="store_true")
    what.add_argument("--list", action="store_true")
    parser.add_argument("--case", default="*", metavar="PATTERN")
    parser.add_argument("--all", action="store_true", help="slow cases, too")
    parser.add_argument("--processes", "-j", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    names = chosen(slow=arguments.all or arguments.show, pattern=arguments.case)
    if not names:
        parser.error(f"no case is named {arguments.case}")
    if arguments.list:
        print("\n".join(names))
        return 0
    if arguments.show:
        with keeping_vectors():
            for name in names:
                print("\n".join((f"== {name}", *run_case(cases()[name]).story)))
        return 0
    path: Path = arguments.record or arguments.compare or arguments.accept_wording
    golden = read_golden(path) if path.exists() else {}
    changed = 0
    for name, found in run_all(names, arguments.processes):
        differing = differences(golden, name, found)
        if arguments.record or (arguments.accept_wording and differing == ["zoned"]):
            golden[name] = found
        elif differing:
            changed += 1
            print(f"{name}: {', '.join(differing)}")
    if not arguments.compare:
        write_golden({name: found for name, found in golden.items() if name in cases()}, path)
    print(f"{len(names)} cases, {changed} differ", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.modules["tests.project.write_logs"] = sys.modules["__main__"]  # the cases import it
    sys.exit(main())
