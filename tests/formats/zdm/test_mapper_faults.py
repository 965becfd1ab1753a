"""A drive that fails one request, once or from then on: blocks keep old or get new content, and check stays clean."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, check_counts, errors, reader, tight_drive, writer
from zoned_tools.device.overlay import Overlay, Recorder
from zoned_tools.errors import DeviceError, ZonedError
from zoned_tools.formats.zdm import pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.base import Device
    from zoned_tools.device.overlay import LogEntry
    from zoned_tools.formats.zdm.mapper.write import ZdmMapper

SPAN = 6000
PLACES = int(os.environ.get("ZDM_FAULT_PLACES", "12"))
"""How many requests of each session fail, each in a run of its own."""
ZERO = bytes(BLOCK)


class Failing(Recorder):
    """Passes through, but request ``fails_at`` of a kind fails: reads, or changes and flushes.

    ``forever``: so does every later read of the same place, or every later change.
    """

    def __init__(self, device: Device, kind: str, fails_at: int, *, forever: bool) -> None:
        super().__init__(device, before=self._change)
        self._kind = kind
        self._fails_at = fails_at
        self._forever = forever
        self._bad = range(0)
        self.armed = False
        self.count = 0

    def _due(self) -> bool:
        self.count += 1
        return self.count - 1 == self._fails_at or (self._forever and self.count > self._fails_at)

    def _change(self, _: LogEntry) -> None:
        if self.armed and self._kind == "change" and self._due():
            raise DeviceError("injected", device=self.path, errno=errno.EIO)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        buffer = bytearray(length_bytes)
        self.read_into(offset_bytes, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        if self.armed and self._kind == "read":
            if not self._bad and self._due():
                self._bad = range(offset_bytes, offset_bytes + len(buffer))
                raise DeviceError("medium error", device=self.path, errno=errno.EIO)
            if self._forever and self._bad:
                low, high = max(self._bad.start, offset_bytes), min(self._bad.stop, offset_bytes + len(buffer))
                if low < high:
                    raise DeviceError("medium error", device=self.path, errno=errno.EIO)
        super().read_into(offset_bytes, buffer)


@dataclass
class Session:
    """Requests to a mapper, and what each block may hold after those that failed.

    Attributes:
        old: content before the session.
        values: for each block that was touched, what it may hold now.
        since_flush: the same, and everything that it may have held since the last flush that worked.
        failures: requests that failed.
    """

    mapper: ZdmMapper
    old: bytes
    values: dict[int, set[bytes]] = field(default_factory=dict)
    since_flush: dict[int, set[bytes]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def write(self, block: int, fill: int, count: int, stream: int = 0) -> None:
        data = bytes([fill]) * (count * BLOCK)
        self._change(block, [data[:BLOCK]] * count, lambda: self.mapper.write(block, data, stream))

    def discard(self, block: int, count: int) -> None:
        self._change(block, [ZERO] * count, lambda: self.mapper.discard(block, count))

    def flush(self) -> None:
        if self._attempt(self.mapper.flush):
            self.since_flush = {b: set(v) for b, v in self.values.items()}

    def reclaim(self) -> None:
        self._attempt(self.mapper.reclaim)

    def close(self) -> bool:
        if self._attempt(self.mapper.close):
            self.since_flush = {b: set(v) for b, v in self.values.items()}
            return True
        return False

    def _change(self, block: int, new: list[bytes], change: Callable[[], None]) -> None:
        done = self._attempt(change)
        for at, value in enumerate(new, block):
            before = self.values.get(at, {self.old[at * BLOCK : (at + 1) * BLOCK]})
            self.values[at] = {value} if done else before | {value}
            self.since_flush[at] = self.since_flush.get(at, before) | {value}

    def _attempt(self, request: Callable[[], object]) -> bool:
        try:
            request()
        except ZonedError as error:
            self.failures.append(str(error))
            return False
        return True


def everyday(session: Session) -> None:
    """Overwrites of cached and of tabled blocks, small and large discards, syncs."""
    cached = [int(b) for b in session.mapper.cache.arrays()[0] if b < SPAN - 3]
    for number, block in enumerate(cached[:: max(len(cached) // 6, 1)]):
        session.write(block, 112 + number, 3)
        session.discard(block + 1, 1)
    for turn in range(3):
        session.write(10 + turn, 16 + turn, 40)
        session.write(1020, 32 + turn, 10, 7)
        session.discard(30, 5)
        session.write(2040 + turn, 48 + turn, 20)
        session.write(3, 64 + turn, 1)
        if turn == 1:
            session.flush()
    session.discard(0, 200)
    session.write(100, 80, 20)
    session.discard(1000, 1100)
    session.write(5100, 96, 2)
    session.flush()
    session.write(1500, 97, 3)


def crowded(session: Session) -> None:
    """Streams run out of zones, so that some are reclaimed, under discards too."""
    for number in range(1, 24):
        session.write(number * 97 % 3000, number, 60, number % 3 + 1)
        if number == 8:
            session.discard(0, 900)
    session.reclaim()
    session.write(10, 99, 30)


def started(session: Session) -> None:
    """A format that was never started: its zones are emptied first."""
    session.write(10, 1, 30)
    session.discard(12, 3)
    session.flush()
    session.write(11, 2, 30)


def used_format() -> zx1.VectorDrive:
    """A fresh format on zones that were used before."""
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    table = drive.zones()
    for zone in (8, 9, 13):
        table["wp_sector"][zone] += 800
        table["condition"][zone] = 4
    return zx1.VectorDrive("used", drive.geometry, table, drive.store, writable=True)


DRIVES: dict[str, tuple[Callable[[Session], None], Callable[[], zx1.VectorDrive]]] = {
    "everyday": (everyday, lambda: zx1.open_vector(FOLDER, "pop-clean")),
    "journal": (everyday, lambda: zx1.open_vector(FOLDER, "pop-journal")),
    "crowded": (crowded, tight_drive),
    "started": (started, used_format),
}


def run(name: str, kind: str, fails_at: int, *, forever: bool) -> int:
    """One session with one failure; the number of requests of the kind that it made."""
    work, make = DRIVES[name]
    drive = make()
    left = Overlay(drive)
    device = Failing(left, kind, fails_at, forever=forever)
    session = Session(writer(device), reader(drive).read(0, SPAN))
    device.armed = True
    work(session)
    device.armed = False
    found = session.mapper.read(0, SPAN)
    where = f"{name}, {kind} {fails_at}: {session.failures}"
    for block, values in session.values.items():
        assert found[block * BLOCK : (block + 1) * BLOCK] in values, f"logical block {block}, {where}"
    device.armed = True
    closed = session.close() or (not forever and session.close())
    device.armed = False
    assert closed or forever, where
    found = reader(left).read(0, SPAN)
    for block in range(SPAN):
        old = {session.old[block * BLOCK : (block + 1) * BLOCK]}
        assert found[block * BLOCK : (block + 1) * BLOCK] in session.since_flush.get(block, old), (
            f"logical block {block} after the session, {where}"
        )
    assert errors(left) == [], where
    if closed:
        assert check_counts(left, notes=False) == {}, where
    return device.count


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("kind", ["read", "change"])
@pytest.mark.parametrize("name", DRIVES)
def test_a_request_that_fails(name: str, kind: str, forever: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_CLEAN_PAGES", 2)  # what was read a moment ago has to be read again
    requests = run(name, kind, -1, forever=False)
    assert requests > 3
    for fails_at in sorted(random.Random(f"{name} {kind}").sample(range(requests), min(requests, PLACES))):
        run(name, kind, fails_at, forever=forever)
