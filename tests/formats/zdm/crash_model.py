"""A recorded workload, and what may be on the logical device after a power cut anywhere in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.formats.zdm.images import BLOCK, START, reader, writer
from zoned_tools.device.overlay import LogEntry, Overlay, Recorder, replay_cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.base import Device

ZERO = bytes(BLOCK)


@dataclass(frozen=True)
class Moment:
    """After log entry ``entries``: what is durable, and what may be there instead."""

    entries: int
    durable: dict[int, bytes]
    pending: dict[int, list[bytes]]


@dataclass
class Workload:
    """Random writes, discards and flushes on blocks 0 to ``span``.

    ``before`` is what the blocks held at the start; ``moments`` follow each operation.
    """

    drive: Device
    span: int = 1200
    log: list[tuple[int, LogEntry]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    before: bytes = b""

    def run(self, seed: int, operations: int) -> None:
        choose = random.Random(seed)
        self.before = reader(self.drive).read(0, self.span)
        recorder = Recorder(Overlay(self.drive), self.log)
        mapper = writer(recorder)
        durable: dict[int, bytes] = {}
        pending: dict[int, list[bytes]] = {}

        def remember() -> None:
            self.moments.append(Moment(len(self.log), dict(durable), {b: list(v) for b, v in pending.items()}))

        def settle() -> None:
            durable.update({b: values[-1] for b, values in pending.items()})
            pending.clear()

        remember()
        for number in range(1, operations + 1):
            kind, count = choose.random(), choose.choice([1, 1, 2, 5, 20, 160])
            block = choose.randrange(self.span - count)
            if kind < 0.6:
                values = [(number * 1000 + i).to_bytes(4, "little") * (BLOCK // 4) for i in range(count)]
                mapper.write(block, b"".join(values), choose.choice([0, 1, 2, 7, 254]))
                for index, value in enumerate(values):
                    pending.setdefault(block + index, []).append(value)
            elif kind < 0.8:
                mapper.discard(block, count)
                for index in range(count):
                    pending.setdefault(block + index, []).append(ZERO)
            else:
                remember()
                mapper.flush()
                settle()
            remember()
        mapper.close()
        settle()
        remember()

    def allowed(self, cut: int) -> dict[int, set[bytes]]:
        """What each block that was ever touched may hold after a cut behind ``cut`` entries."""
        last = [m for m in self.moments if m.entries <= cut][-1]
        following = next(m for m in self.moments if m.entries >= cut)
        allowed: dict[int, set[bytes]] = {}
        for block in {*last.durable, *last.pending, *following.pending, *following.durable}:
            before = self.before[block * BLOCK : (block + 1) * BLOCK]
            values = {last.durable.get(block, before)}
            values.update(last.pending.get(block, []), following.pending.get(block, []))
            if block in following.durable:
                values.add(following.durable[block])
            allowed[block] = values
        return allowed


def cut_drive(drive: Device, log: list[tuple[int, LogEntry]], cut: int, keep: Callable[[int], bool]) -> Overlay:
    """A drive as a power cut left it."""
    left = Overlay(drive)
    replay_cut([left], log, cut, keep)
    return left


def go_on(drive: Device, allowed: dict[int, set[bytes]], span: int, choose: random.Random) -> dict[int, set[bytes]]:
    """Another session, closed, on what a cut left; what the blocks may hold now."""
    mapper, now = writer(drive), dict(allowed)
    for number in range(1, 13):
        count = choose.choice([1, 1, 3, 20, 160])
        block = choose.randrange(span - count)
        value = ZERO if choose.random() < 0.4 else bytes([number]) * BLOCK
        if value == ZERO:
            mapper.discard(block, count)
        else:
            mapper.write(block, value * count, choose.choice([0, 1, 2, 7]))
        now.update({at: {value} for at in range(block, block + count)})
    mapper.close()
    return now


def assert_content(drive: Device, allowed: dict[int, set[bytes]], span: int) -> None:
    found = reader(drive, START).read(0, span)
    for block, values in allowed.items():
        assert found[block * BLOCK : (block + 1) * BLOCK] in values, f"logical block {block}"
