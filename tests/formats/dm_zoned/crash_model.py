"""What a block may contain after a power cut, and small targets to cut the power of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.formats.dm_zoned.images import BLOCK, drive, regular
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LogEntry, LoggedFlush, LoggedWrite, Overlay, Recorder, apply_entry, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import Model
from zoned_tools.formats.contract import CheckOptions, Journey, Settings, Severity, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.check import check
from zoned_tools.formats.dm_zoned.format import FormatOptions, format_target
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

KIB = 1024
Log = list[tuple[int, LogEntry]]
Seeds = npt.NDArray[np.uint64]


def logical(**given: str) -> Settings:
    """Settings of a mapper."""
    return LAYOUT.parse_settings(given, Journey.LOGICAL)


def formatted(devices: list[Device], reserved: int, version: int = 2) -> list[Device]:
    """``devices`` with an empty target on them."""
    target = Target("dm-zoned", tuple(devices))
    label = "test" if version == 2 else ""
    plan = format_target(target, FormatOptions(reserved=reserved, label=label, metadata_version=version)).plan
    apply_plan(devices, plan.steps)
    return devices


def single() -> list[Device]:
    """20 zones of 16 blocks; 8 conventional, 4 of them metadata."""
    return formatted([drive(20, 8, 64 * KIB)], reserved=3)


def single_large_zones() -> list[Device]:
    """16 zones of 64 blocks; 5 conventional, 2 of them metadata; metadata version 1."""
    return formatted([drive(16, 5, 256 * KIB)], reserved=2, version=1)


def host_aware() -> list[Device]:
    """16 zones of 32 blocks, the sequential ones write-preferred."""
    return formatted([drive(16, 5, 128 * KIB, model=Model.HOST_AWARE)], reserved=2)


def dual() -> list[Device]:
    """A regular device of 6 zones and half a one, and 14 sequential zones."""
    return formatted([regular(6 * 128 * KIB + 64 * KIB), drive(14, 0, 128 * KIB)], reserved=3)


def triple() -> list[Device]:
    """A regular device and two zoned ones, the second with conventional zones."""
    return formatted([regular(6 * 128 * KIB), drive(8, 0, 128 * KIB), drive(8, 2, 128 * KIB)], reserved=4)


TARGETS: dict[str, Callable[[], list[Device]]] = {
    "single": single,
    "single-large-zones": single_large_zones,
    "host-aware": host_aware,
    "dual": dual,
    "triple": triple,
}


def content(first: int, count: int, seed: int) -> bytes:
    """Blocks that tell their own number and ``seed``; zeroes for seed 0."""
    if not seed:
        return bytes(count * BLOCK)
    pairs = np.empty((count, BLOCK // 16, 2), "<u8")
    pairs[:, :, 0] = np.arange(first, first + count)[:, None]
    pairs[:, :, 1] = seed
    return pairs.tobytes()


def seeds_of(mapper: DmZonedMapper) -> Seeds:
    """Seed of every block; fails on a block that nobody wrote like that."""
    raw = bytearray(mapper.size_blocks * BLOCK)
    mapper.read_into(0, memoryview(raw))
    pairs = np.frombuffer(raw, "<u8").reshape(mapper.size_blocks, BLOCK // 16, 2)
    seeds: Seeds = pairs[:, 0, 1].copy()
    expected = np.where(seeds > 0, np.arange(mapper.size_blocks, dtype=np.uint64), np.uint64(0))
    garbage = (pairs[:, :, 0] != expected[:, None]).any(axis=1) | (pairs[:, :, 1] != seeds[:, None]).any(axis=1)
    assert not garbage.any(), f"garbage in blocks {np.flatnonzero(garbage).tolist()}"
    return seeds


@dataclass(frozen=True, slots=True)
class Change:
    """Blocks that were written (or discarded: seed 0), and the log entries that this caused."""

    block: int
    count: int
    seed: int
    log_start: int


@dataclass(slots=True)
class History:
    """Every change and every completed flush of a workload, in order."""

    initial: Seeds
    changes: list[Change] = field(default_factory=list)
    flushes: list[tuple[int, int]] = field(default_factory=list)  # (log length when done, changes before it)

    def acknowledged(self, cut: int) -> tuple[Seeds, list[Change]]:
        """Content at the last flush that was complete at ``cut``, and the changes since that had begun."""
        done = max((count for end, count in self.flushes if end <= cut), default=0)
        state = self.initial.copy()
        for change in self.changes[:done]:
            state[change.block : change.block + change.count] = change.seed
        return state, [c for c in self.changes[done:] if c.log_start < cut]

    def verify(self, found: Seeds, cut: int) -> None:
        """Each block is as acknowledged, or as a later request wrote it."""
        state, later = self.acknowledged(cut)
        fine = found == state
        for change in later:
            part = slice(change.block, change.block + change.count)
            fine[part] |= found[part] == change.seed
        wrong = np.flatnonzero(~fine)
        assert not len(wrong), f"blocks {wrong.tolist()} have {found[wrong].tolist()}, not {state[wrong].tolist()}"


class Workload:
    """Random requests to a target; few enough cache zones that reclaim is needed all the time."""

    def __init__(self, devices: list[Device], chance: random.Random, log: Log) -> None:
        self._chance = chance
        self._target = Target("dm-zoned", tuple(devices))
        self._settings = logical(rlow=str(chance.choice((0, 30, 60))))
        self._log = log
        self.mapper = self._opened()
        self.history = History(seeds_of(self.mapper))
        self._cursor = 0
        self._zone_blocks = devices[-1].geometry.zone_bytes // BLOCK

    def _opened(self) -> DmZonedMapper:
        return open_mapper(self._target, writable=True, settings=self._settings)

    def request(self, seed: int) -> None:
        """One random request; what it writes carries ``seed``."""
        choice = self._chance.random()
        if choice < 0.76:
            self._change(choice, seed)
            return
        if choice < 0.8:
            self.mapper.reclaim()
        elif choice < 0.84:
            self.mapper.close()
            self.mapper = self._opened()
        else:
            self.mapper.flush()
        self.history.flushes.append((len(self._log), len(self.history.changes)))

    def _change(self, choice: float, seed: int) -> None:
        size = self.mapper.size_blocks
        block = self._chance.randrange(size)
        count = self._chance.choice((1, 1, 2, 5, self._zone_blocks // 2, self._zone_blocks + 3))
        if choice < 0.3:  # sequential streams reach the write pointers of sequential zones
            block = self._cursor
            self._cursor = (block + count) % size
        count = min(count, size - block)
        if choice < 0.62:
            self.history.changes.append(Change(block, count, seed, len(self._log)))
            self.mapper.write(block, content(block, count, seed))
        else:
            self.history.changes.append(Change(block, count, 0, len(self._log)))
            self.mapper.discard(block, count)


def aged(base: list[Device], chance: random.Random, requests: int) -> list[Device]:
    """The devices after some requests and a clean stop."""
    devices: list[Device] = [Overlay(device) for device in base]
    workload = Workload(devices, chance, [])
    for number in range(requests):
        workload.request(1000 + number)
    workload.mapper.close()
    return devices


def run_workload(base: list[Device], chance: random.Random, requests: int) -> tuple[Log, History]:
    """Random requests on a copy of ``base``, and everything that they did to the devices."""
    log: Log = []
    recorders: list[Device] = [Recorder(Overlay(device), log, number) for number, device in enumerate(base)]
    workload = Workload(recorders, chance, log)
    for seed in range(1, requests + 1):
        workload.request(seed)
    return log, workload.history


def split_writes(log: Log) -> tuple[Log, list[int]]:
    """The log with every write cut into blocks, and where each entry of ``log`` begins in it.

    A power cut may tear a large write; only single blocks are written whole or not at all.
    """
    pieces: Log = []
    starts = []
    for number, entry in log:
        starts.append(len(pieces))
        if isinstance(entry, LoggedWrite):
            for done in range(0, len(entry.data), BLOCK):
                pieces.append((number, LoggedWrite(entry.offset_bytes + done, entry.data[done : done + BLOCK])))
        else:
            pieces.append((number, entry))
    starts.append(len(pieces))
    return pieces, starts


class CutSeries:
    """Devices after a power cut at ascending points of a log."""

    def __init__(self, base: list[Device], log: Log) -> None:
        self._log = log
        self._durable: list[Device] = [Overlay(device) for device in base]
        self._applied = 0

    def cut(self, at: int, keep: Callable[[int], bool]) -> list[Device]:
        """Copies of the devices after a cut before log entry ``at``; ``at`` must not go back."""
        certain = self._certain(at)
        for number, entry in self._log[self._applied : certain]:
            apply_entry(self._durable[number], entry)
        self._applied = max(certain, self._applied)
        devices: list[Device] = [Overlay(device) for device in self._durable]
        replay_cut(devices, self._log[self._applied : at], at - self._applied, keep)
        return devices

    def _certain(self, at: int) -> int:
        """Entries before this one are durable whatever is lost."""
        waiting = dict.fromkeys(range(len(self._durable)))
        for index in range(at - 1, self._applied - 1, -1):
            number, entry = self._log[index]
            if isinstance(entry, LoggedFlush):
                waiting.pop(number, None)
            if not waiting:
                return index
        return self._applied


def error_findings(devices: list[Device]) -> list[str]:
    """Error-grade findings of a check."""
    found = check(Target("dm-zoned", tuple(devices)), CheckOptions()).findings
    return [f"{f.code}: {f.message}" for f in found if f.severity is Severity.ERROR]
