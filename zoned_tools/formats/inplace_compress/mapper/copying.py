"""Copy the logical content to a file over several processes.

Every worker opens the volume's device for reading and the output for writing, decodes
ranges and writes them at their place; nothing but block numbers travels between processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES
from zoned_tools.formats.inplace_compress.mapper.read import Reader, Unreadable
from zoned_tools.formats.inplace_compress.open import Volume, known_compressor
from zoned_tools.formats.inplace_compress.workers import (
    WORTHWHILE_BYTES,
    can_reopen,
    ordered,
    pool,
    process_count,
    worker_volume,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANGE_BLOCKS = 4096
"""Blocks that one job copies (16 MiB); a multiple of every window."""


@dataclass(slots=True)
class Copied:
    """What one job, or all of them, did.

    Attributes:
        data_bytes: content that is stored, holes left out.
        lost: extents that could not be read, each whole.
    """

    data_bytes: int = 0
    lost: list[Unreadable] = field(default_factory=list)


def ranges(data_blocks: int) -> Iterator[tuple[int, int]]:
    """``(first block, blocks)`` of the jobs, ascending."""
    for first in range(0, data_blocks, RANGE_BLOCKS):
        yield first, min(RANGE_BLOCKS, data_blocks - first)


def copy_range(volume: Volume, first_block: int, blocks: int, output_fd: int, *, skip_errors: bool) -> Copied:
    """Write the stored content of a range at its place in an open file; holes are not touched.

    Raises:
        DeviceError: an extent cannot be read (unless ``skip_errors``), or the file not written.
    """
    done = Copied()
    reader = Reader(volume, Bitmap(volume), done.lost.append if skip_errors else None)
    for block, content in reader.stored(first_block, blocks):
        _write(output_fd, content, block * BLOCK_BYTES)
        done.data_bytes += len(content)
    return done


def _write(fd: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        try:
            count = os.pwrite(fd, view, offset)
        except OSError as error:
            raise DeviceError.from_os_error(error, "output", "cannot write") from None
        view, offset = view[count:], offset + count


@dataclass(frozen=True, slots=True)
class _Job:
    """Copies ranges of the worker's volume to a file."""

    output: str
    skip_errors: bool

    def __call__(self, part: tuple[int, int]) -> Copied:
        fd = os.open(self.output, os.O_WRONLY | os.O_CLOEXEC)
        try:
            return copy_range(worker_volume(), *part, fd, skip_errors=self.skip_errors)
        finally:
            os.close(fd)


def copy_volume(
    volume: Volume,
    output: str,
    *,
    processes: int,
    skip_errors: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Copy everything to the existing, empty file ``output``, whose length becomes that of the volume.

    Falls back to this process alone when the device cannot be opened a second time.

    Args:
        progress: told the bytes done, holes included.

    Raises:
        DeviceError: an extent cannot be read (unless ``skip_errors``), or the file not written.
    """
    total = Copied()
    os.truncate(output, volume.data_blocks * BLOCK_BYTES)
    job = _Job(output, skip_errors)
    parts = list(ranges(volume.data_blocks))
    if processes == 1 or len(parts) == 1 or not can_reopen(volume.device):
        results = _copy_here(volume, parts, job)
        _collect(results, parts, total, progress)
        return total
    with pool(min(processes, len(parts)), volume) as executor:
        _collect(ordered(executor, job, parts, 2 * processes), parts, total, progress)
    return total


def copy_if_worthwhile(
    volume: Volume, output: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
) -> Copied | None:
    """:func:`copy_volume` where more than one process pays for its start; None where it does not."""
    processes = process_count(processes)
    compressor = known_compressor(volume)
    enough = volume.data_blocks * BLOCK_BYTES >= WORTHWHILE_BYTES[compressor]
    if processes == 1 or not enough or not can_reopen(volume.device):
        return None
    return copy_volume(volume, output, processes=processes, skip_errors=skip_errors, progress=progress)


def _copy_here(volume: Volume, parts: list[tuple[int, int]], job: _Job) -> Iterator[Copied]:
    fd = os.open(job.output, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for first, blocks in parts:
            yield copy_range(volume, first, blocks, fd, skip_errors=job.skip_errors)
    finally:
        os.close(fd)


def _collect(
    results: Iterator[Copied], parts: list[tuple[int, int]], total: Copied, progress: Callable[[int], None]
) -> None:
    """Add results up; an extent that crosses two ranges is lost once."""
    for (first, blocks), done in zip(parts, results, strict=True):
        total.data_bytes += done.data_bytes
        total.lost += [bad for bad in done.lost if bad not in total.lost[-4:]]
        progress((first + blocks) * BLOCK_BYTES)
