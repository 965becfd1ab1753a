"""Decoding and encoding over several processes.

Workers open the device themselves, by path and for reading; they are started afresh
(never forked), so threads and locks of the caller do not matter. Where the device cannot
be opened a second time, or the work is small, everything runs here.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.device.block import BlockDevice
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.opening import open_device
from zoned_tools.device.overlay import Overlay
from zoned_tools.formats.inplace_compress import verify
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.layout import SECTOR_BYTES
from zoned_tools.formats.inplace_compress.open import volume_of
from zoned_tools.formats.inplace_compress.payload import payloads_present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future, ProcessPoolExecutor

    from zoned_tools.device.base import Device
    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.layout import SuperBlock
    from zoned_tools.formats.inplace_compress.open import Volume
    from zoned_tools.formats.inplace_compress.survey import Judge

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

WORTHWHILE_BYTES = {Compressor.C842: 24 << 20, Compressor.LZO: 1 << 30, Compressor.LZ4: 24 << 20}
"""Payload from which starting processes pays: they take about 0.2 s to start."""

_PART_EXTENTS = 512


def process_count(wanted: int) -> int:
    """A number of processes; 0 means one for every core that this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def can_reopen(device: Device) -> bool:
    """Whether another process sees the same content under the device's path; it would not know of a map file."""
    return (
        not len(known_bad_areas(device))
        and not device.writable
        and isinstance(device, EmulatedDrive | BlockDevice)
        and not isinstance(device, Overlay)
    )


@contextmanager
def pool(processes: int, volume: Volume | None = None) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes that are gone at the end, also after an error; each opens ``volume`` anew, if one is given."""
    import multiprocessing  # a command that needs no further process starts without it
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    if volume is None:
        executor = ProcessPoolExecutor(processes, context)
    else:
        where = volume.device.path, volume.start_bytes, volume.super_block
        executor = ProcessPoolExecutor(
            processes, context, functools.partial(_open_in_worker, reversed_words=volume.reversed_words), where
        )
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


def _open_in_worker(path: str, start_bytes: int, super_block: SuperBlock, *, reversed_words: bool) -> None:
    """Remember the volume of this process."""
    global _volume  # noqa: PLW0603 - a worker process has one volume for its whole life
    _volume = replace(volume_of(open_device(path), start_bytes, super_block), reversed_words=reversed_words)


def worker_volume() -> Volume:
    """The volume that this worker process opened when it started."""
    if _volume is None:
        raise RuntimeError("this process was not set up as a worker")
    return _volume


def _judge_part(job: tuple[Extents, bool]) -> list[verify.Judged]:
    extents, find_others = job
    return list(verify.judge(worker_volume(), extents, find_others=find_others))


def _parts(extents: Extents) -> Iterator[Extents]:
    for start in range(0, len(extents), _PART_EXTENTS):
        yield extents.select(np.arange(start, min(start + _PART_EXTENTS, len(extents))))


@contextmanager
def judging(volume: Volume, processes: int) -> Iterator[Judge]:
    """A judge of this volume's payloads that uses processes once there is enough work."""
    count = process_count(processes)
    compressor = volume.compressor
    if count == 1 or compressor is None or not can_reopen(volume.device):
        yield verify.judge
        return
    executor: ProcessPoolExecutor | None = None

    def judge(volume: Volume, extents: Extents, *, find_others: bool) -> Iterator[verify.Judged]:
        nonlocal executor
        present = payloads_present(volume, extents)
        if not present.all():
            yield from verify.judge(volume, extents.select(~present), find_others=find_others)
            extents = extents.select(present)
        work = int(extents.payload[extents.is_compressed].sum()) * SECTOR_BYTES
        if executor is None and work < WORTHWHILE_BYTES[compressor]:
            yield from verify.judge(volume, extents, find_others=find_others)
            return
        if executor is None:
            executor = stack.enter_context(pool(count, volume))
        jobs = ((part, find_others) for part in _parts(extents))
        for judged in ordered(executor, _judge_part, jobs, 4 * count):
            yield from judged

    with ExitStack() as stack:
        yield judge
