"""Decoding and encoding over several processes.

Workers open the device themselves, by path and for reading; they are started afresh
(never forked), so threads and locks of the caller do not matter. Where the device cannot
be opened a second time, or the work is small, everything runs here.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.device.block import BlockDevice
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.opening import open_device
from zoned_tools.device.overlay import Overlay
from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress import verify
from zoned_tools.formats.inplace_compress.analysis import Judge, judge_here
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.extents import Extents
from zoned_tools.formats.inplace_compress.payload import payloads_present
from zoned_tools.formats.inplace_compress.volume import Volume

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

PROCESSES_MAX = 256

WORTHWHILE_BYTES = {Compressor.C842: 24 << 20, Compressor.LZO: 1 << 30, Compressor.LZ4: 24 << 20}
"""Payload from which starting processes pays: they take about 0.2 s to start."""

_PART_EXTENTS = 512


def process_count(text: str) -> int:
    """A number of processes; 0 means one for every core that this process may use.

    Raises:
        UsageError: not such a number.
    """
    if not text.isdecimal() or int(text[:9]) > PROCESSES_MAX:
        raise UsageError(f"{text!r} is not a number of processes", hint=f"0 to {PROCESSES_MAX}")
    return int(text) or len(os.sched_getaffinity(0))


def can_reopen(device: Device) -> bool:
    """Whether another process sees the same content under the device's path."""
    return not device.writable and isinstance(device, EmulatedDrive | BlockDevice) and not isinstance(device, Overlay)


@contextmanager
def pool(
    processes: int, initializer: Callable[[Volume], None] | None = None, volume: Volume | None = None
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes that are gone at the end, also after an error."""
    context = multiprocessing.get_context("spawn")
    if initializer is None or volume is None:
        executor = ProcessPoolExecutor(processes, context)
    else:
        executor = ProcessPoolExecutor(processes, context, initializer, (volume,))
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def ordered(
    executor: ProcessPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Results in the order of the items, with at most ``ahead`` of them under way."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(executor.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_volume: Volume | None = None


def open_in_worker(volume: Volume) -> None:
    """Remember the volume of this process, its device opened anew (it arrives without one)."""
    global _volume  # noqa: PLW0603 - a worker process has one volume for its whole life
    path = str(volume.device)
    _volume = replace(volume, device=open_device(path))


def worker_volume() -> Volume:
    """The volume that :func:`open_in_worker` opened."""
    if _volume is None:
        raise RuntimeError("this process was not set up as a worker")
    return _volume


def portable(volume: Volume) -> Volume:
    """The volume with its device replaced by the path, for the way to a worker."""
    return replace(volume, device=volume.device.path)  # type: ignore[arg-type] # undone by open_in_worker


def _judge_part(job: tuple[Extents, bool]) -> list[verify.Judged]:
    extents, find_others = job
    return list(verify.judge(worker_volume(), extents, find_others=find_others))


def _parts(extents: Extents) -> Iterator[Extents]:
    for start in range(0, len(extents), _PART_EXTENTS):
        yield extents.select(np.arange(start, min(start + _PART_EXTENTS, len(extents))))


@contextmanager
def judging(volume: Volume, processes: str) -> Iterator[Judge]:
    """A judge of payloads for :func:`.analysis.analyse` that uses processes once there is enough work."""
    count = process_count(processes)
    compressor = volume.compressor
    if count == 1 or compressor is None or not can_reopen(volume.device):
        yield judge_here
        return
    executor: ProcessPoolExecutor | None = None

    def judge(on: Volume, extents: Extents, find_others: bool) -> Iterator[verify.Judged]:
        nonlocal executor
        present = payloads_present(on, extents)
        if not present.all():
            yield from judge_here(on, extents.select(~present), find_others)
            extents = extents.select(present)
        work = int(extents.payload[extents.is_compressed].sum()) * 512
        if executor is None and (on is not volume or work < WORTHWHILE_BYTES[compressor]):
            yield from judge_here(on, extents, find_others)
            return
        if executor is None:
            executor = stack.enter_context(pool(count, open_in_worker, portable(volume)))
        jobs = ((part, find_others) for part in _parts(extents))
        for judged in ordered(executor, _judge_part, jobs, 4 * count):
            yield from judged

    with ExitStack() as stack:
        yield judge
