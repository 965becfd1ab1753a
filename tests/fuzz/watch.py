"""Watching journeys: what they raise, how long they take, how much memory they need."""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from zoned_tools.errors import ZonedError

MAX_SECONDS = 2.0
MAX_BYTES = 300 << 20
GIVE_UP_SECONDS = 30.0
_PAGE = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A property that does not hold.

    Attributes:
        kind: which property.
        where: what is the same for every input with this fault: places in the code, or finding codes.
    """

    journey: str
    kind: str
    where: str
    detail: str = field(default="", compare=False)

    @property
    def signature(self) -> str:
        return f"{self.journey}: {self.kind}: {self.where}"

    def __str__(self) -> str:
        return f"{self.signature}{f' ({self.detail})' if self.detail else ''}"


class TooSlowError(Exception):
    """A journey was given up."""


@dataclass
class Watch:
    """Collects failures of the journeys of one input.

    System calls can cost more than a journey, so that time is the wall clock's unless ``precise``; a journey that seems
    too slow makes the input a :attr:`suspect`, to be run again with the clock of the processor.
    """

    precise: bool = False
    failures: list[Failure] = field(default_factory=list)
    error: ZonedError | None = None
    suspect: bool = False

    def fail(self, journey: str, kind: str, where: str, detail: str = "") -> None:
        failure = Failure(journey, kind, where, detail)
        if failure not in self.failures:
            self.failures.append(failure)

    def call(self, journey: str, work: Callable[[], T]) -> T | None:
        """What ``work`` returns; None when it raised, :attr:`error` has the project's own error then."""
        self.error = None
        clock = time.process_time if self.precise else time.perf_counter
        start = clock()
        result: T | None = None
        try:
            result = work()
        except ZonedError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - the property is that nothing else comes out
            self.fail(journey, "exception", *_place(error))
        seconds = clock() - start
        if seconds > MAX_SECONDS:
            self.suspect = True
            if self.precise:
                self.fail(journey, "slow", f"more than {MAX_SECONDS:g} s", f"{seconds:.1f} s")
        return result

    @contextmanager
    def bounds(self) -> Iterator[None]:
        """Limits of a whole input: it is given up when it never ends, and its memory is measured."""
        rss, peak = _resident_bytes(), _peak_bytes()
        with _given_up_after(GIVE_UP_SECONDS):
            yield
        now = _peak_bytes()
        if now > peak and now - rss > MAX_BYTES:
            self.fail("input", "memory", f"more than {MAX_BYTES >> 20} MiB", f"{(now - rss) >> 20} MiB")


def _place(error: Exception) -> tuple[str, str]:
    """The innermost line of the project that an exception went through, and its text."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/zoned_tools/" in f.filename] or list(frames)
    last = ours[-1]
    name = last.filename.rpartition("/zoned_tools/")[2]
    path = " < ".join(f"{f.filename.rpartition('/zoned_tools/')[2]}:{f.lineno}" for f in reversed(ours[-4:]))
    return f"{type(error).__name__} in {name} {last.name}", f"{error}"[:200] + f" at {path}"


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def _given_up_after(seconds: float) -> Iterator[None]:
    """Raise in the middle of work that takes more CPU time than ``seconds``."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"given up after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
