"""Every state that a power cut can leave, from a recorded log of device changes.

A drive may lose any of the changes that no later flush of it made durable; inside a
sequential zone it loses a suffix only (:func:`zoned_tools.device.overlay.replay_cut`).
:func:`explore` builds such states one after the other and hands each to a callback.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from zoned_tools.device.overlay import LogEntry, LoggedFlush, LoggedWrite, Overlay, apply_entry, replay_cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from zoned_tools.device.base import Device

Log: TypeAlias = list[tuple[int, LogEntry]]
"""``(device number, entry)``, in the order in which the changes were issued."""

TEAR_BYTES = 4096
"""A drive writes this much atomically."""


class Loss(StrEnum):
    """Which of the changes that were not flushed a power cut takes."""

    NONE = "none"
    ALL = "all"
    SOME = "some"


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut after the first ``position`` entries of a log; ``seed`` chooses for :attr:`Loss.SOME`."""

    position: int
    loss: Loss = Loss.NONE
    seed: int = 0


def split_writes(log: Log) -> Log:
    """The log with every write in pieces that a drive writes atomically, so that cuts can tear it."""
    pieces: Log = []
    for number, entry in log:
        if not isinstance(entry, LoggedWrite):
            pieces.append((number, entry))
            continue
        at = 0
        while at < len(entry.data):
            stop = min(at + TEAR_BYTES - (entry.offset_bytes + at) % TEAR_BYTES, len(entry.data))
            pieces.append((number, LoggedWrite(entry.offset_bytes + at, entry.data[at:stop])))
            at = stop
    return pieces


def cut_positions(log: Log, *, flushes_only: bool = False, sample: int | None = None, seed: int = 0) -> list[int]:
    """Where to cut: everywhere, or right before and after each flush, or at ``sample`` of these places."""
    positions = range(len(log) + 1)
    chosen: Sequence[int] = positions
    if flushes_only:
        near = {p for index, (_, entry) in enumerate(log) if isinstance(entry, LoggedFlush) for p in (index, index + 1)}
        chosen = sorted(near | {len(log)})
    if sample is not None and sample < len(chosen):
        chosen = sorted(random.Random(seed).sample(chosen, sample))  # noqa: S311 - reproducible choice, no secret
    return list(chosen)


def cuts_at(positions: Iterable[int], *, random_losses: int = 1, seed: int = 0) -> Iterator[Cut]:
    """For each position: nothing lost, everything unflushed lost, and ``random_losses`` random subsets."""
    for position in positions:
        yield Cut(position, Loss.NONE)
        yield Cut(position, Loss.ALL)
        for number in range(random_losses):
            yield Cut(position, Loss.SOME, (seed * 1_000_003 + position) * 101 + number)


def explore(
    base: Sequence[Device],
    log: Log,
    cuts: Iterable[Cut],
    check: Callable[[list[Device], Cut], None],
) -> int:
    """Hand what each power cut can have left to ``check``; returns the number of cuts.

    Args:
        base: the devices as they were before the log; only read.
        cuts: in ascending order of position, which keeps the work linear in the log.
        check: may change the devices it gets, they are copies; raises when it is not content.
    """
    settled: list[Device] = [Overlay(device) for device in base]
    done = 0
    count = 0
    for cut in cuts:
        if cut.position < done:
            raise ValueError("cuts must come in ascending order")
        stop = _durable_prefix(log, done, cut.position, len(base))
        for number, entry in log[done:stop]:
            apply_entry(settled[number], entry)
        done = stop
        state: list[Device] = [Overlay(device) for device in settled]
        replay_cut(state, log[done : cut.position], cut.position - done, _keeper(cut))
        check(state, cut)
        count += 1
    return count


def _keeper(cut: Cut) -> Callable[[int], bool]:
    match cut.loss:
        case Loss.NONE:
            return lambda _: True
        case Loss.ALL:
            return lambda _: False
        case Loss.SOME:
            choose = random.Random(cut.seed)  # noqa: S311 - reproducible choice, no secret
            return lambda _: choose.random() < 0.5


def _durable_prefix(log: Log, start: int, stop: int, nr_devices: int) -> int:
    """End of the run of entries from ``start`` on that are all durable at a cut at ``stop``."""
    last_flush = [-1] * nr_devices
    for index in range(start, stop):
        number, entry = log[index]
        if isinstance(entry, LoggedFlush):
            last_flush[number] = index
    for index in range(start, stop):
        if index > last_flush[log[index][0]]:
            return index
    return stop
