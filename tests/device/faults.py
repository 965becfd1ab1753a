"""System calls below a folder: recorded, failed, cut, cut short; and what a power cut leaves of them."""

from __future__ import annotations

import builtins
import ctypes
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned_tools.device import filestore

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from _typeshed import ReadableBuffer, WriteableBuffer

CHANGING = (
    *("pwrite", "write", "fdatasync", "fsync", "ftruncate", "fchmod", "fchown", "open"),
    *("link", "replace", "rename", "unlink", "mkdir", "rmdir", "truncate"),
)
READING = ("pread", "preadv")


class Killed(BaseException):
    """The process ends here: no handler can write anything any more."""


@dataclass(frozen=True)
class Call:
    """One call that changes files or makes changes durable; ``target`` is relative to the folder."""

    name: str
    target: str
    offset_bytes: int = 0
    data: bytes = b""
    length_bytes: int = 0


class Syscalls:
    """Watches the changing calls of this process to files in ``folder``; with ``reads`` those that read and open, too.

    ``before`` sees each call ahead of it and may raise; after :class:`Killed` was raised
    once, every call raises it. ``shorten`` says how much of a ``pwrite`` or ``write`` is done.
    Buffered files are seen where ``os.fdopen`` or (with ``reads``) ``open`` makes them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, reads: bool = False) -> None:
        self.reads = reads
        self.folder = os.path.realpath(folder)
        self.log: list[Call] = []
        self.before: Callable[[Call], None] = lambda _call: None
        self.shorten: Callable[[Call], int] = lambda call: len(call.data)
        self.watching = False
        self._dead = False
        for name in CHANGING + (READING if reads else ()):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))
        monkeypatch.setattr(os, "fdopen", self._buffered(os.fdopen))
        if reads:
            monkeypatch.setattr(builtins, "open", self._buffered(open))
        fallocate = filestore.libc_fallocate()
        assert fallocate is not None
        monkeypatch.setattr(filestore, "libc_fallocate", lambda: self._punch(fallocate))

    def target(self, file: int | str | bytes, dir_fd: int | None = None) -> str | None:
        """Name of a file below the folder, None for any other and while nothing is watched."""
        if not self.watching:
            return None
        if isinstance(file, int):
            path = os.readlink(f"/proc/self/fd/{file}")
        elif dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(file))
        else:
            path = os.path.abspath(os.fsdecode(file))
        return os.path.relpath(path, self.folder) if path.startswith(self.folder) else None

    def see(self, call: Call) -> None:
        if self._dead:
            raise Killed
        try:
            self.before(call)
        except Killed:
            self._dead = True
            raise
        self.log.append(call)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            target = self.target(args[0], options.get("dir_fd"))
            if target is None or (name == "open" and not args[1] & os.O_CREAT and not self.reads):
                return real(*args, **options)
            if name in ("pwrite", "write"):
                call = Call(name, target, args[2] if name == "pwrite" else 0, bytes(args[1]))
                self.see(call)
                return real(args[0], args[1][: self.shorten(call)], *args[2:])
            length = args[1] if name in ("ftruncate", "truncate") else 0
            self.see(Call(name, target, args[2] if name in READING else 0, length_bytes=length))
            return real(*args, **options)

        return wrapper

    def _buffered(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: int | str, mode: str = "r", *args: Any, **options: Any) -> Any:
            target = self.target(os.fspath(file) if not isinstance(file, int) else file)
            if target is None or "b" not in mode:
                return real(file, mode, *args, **options)
            if not isinstance(file, int):
                self.see(Call("open", target))
            raw = _Raw(self, target, file, mode)
            if "+" in mode:
                return io.BufferedRandom(raw)
            return io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)

        return opened

    def _punch(self, real: Callable[..., object]) -> Callable[[int, int, int, int], int]:
        def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
            target = self.target(fd)
            if target is not None:
                try:
                    self.see(Call("fallocate", target, offset, length_bytes=length))
                except OSError:
                    return -1
            return -1 if real(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) else 0

        return fallocate

    def names(self) -> list[tuple[str, str]]:
        return [(call.name, call.target) for call in self.log]


class _Raw(io.FileIO):
    """What is below a buffered file."""

    def __init__(self, calls: Syscalls, target: str, file: int | str, mode: str) -> None:
        super().__init__(file, mode.replace("b", ""))
        self._calls = calls
        self._target = target

    def write(self, data: ReadableBuffer, /) -> int:
        call = Call("write", self._target, self.tell(), bytes(data))
        self._calls.see(call)
        return super().write(call.data[: self._calls.shorten(call)]) or 0

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        if self._calls.reads:
            self._calls.see(Call("read", self._target, self.tell()))
        return super().readinto(buffer)


def nth(number: int, error: BaseException, *names: str, target: str = "") -> Callable[[Call], None]:
    """A ``before`` that raises ``error`` ahead of call ``number`` (from 0) of those named."""
    count = 0

    def before(call: Call) -> None:
        nonlocal count
        if (not names or call.name in names) and target in call.target:
            count += 1
            if count == number + 1:
                raise error

    return before


def power_cut(folder: Path, log: list[Call], rng: random.Random) -> None:
    """Apply to ``folder`` (a copy from before) what a power cut after ``log`` can leave: each call that no
    sync of its file followed is done, torn at a sector, or lost."""
    for number, call in enumerate(log):
        synced = any(later.target == call.target and "sync" in later.name for later in log[number:])
        kept = 1.0 if synced else rng.choice([0.0, 0.5, 1.0])
        path = folder / call.target
        match call.name:
            case "pwrite":
                sectors = len(call.data) // 512
                size = len(call.data) if kept == 1.0 or sectors < 2 else int(sectors * kept) * 512
                if kept:
                    with path.open("r+b") as file:
                        file.seek(call.offset_bytes)
                        file.write(call.data[:size])
            case "fallocate" if kept:
                with path.open("r+b") as file:
                    file.seek(call.offset_bytes)
                    file.write(bytes(call.length_bytes))
            case "ftruncate" if kept:
                os.truncate(path, call.length_bytes)
