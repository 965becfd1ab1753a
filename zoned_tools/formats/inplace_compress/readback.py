"""Reading back what an import made: every block is that of the source, and zeroes behind it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress.encoding import WORTHWHILE_BYTES
from zoned_tools.formats.inplace_compress.entries import ALIGNED_ENTRIES
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES
from zoned_tools.formats.inplace_compress.mapper.read import read_whole
from zoned_tools.formats.inplace_compress.open import Volume, known_compressor
from zoned_tools.formats.inplace_compress.workers import can_reopen, ordered, pool, worker_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.formats.inplace_compress.source import Source


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Compares parts of the source with the volume, here or in a worker process (``volume`` None)."""

    source: Source
    volume: Volume | None = None

    def __call__(self, part: tuple[int, int]) -> int | None:
        """The first block that differs."""
        volume = worker_volume() if self.volume is None else self.volume
        return _first_difference(read_whole(volume, *part), self.source.read(*part), part[0])


def _first_difference(found: bytes, wanted: bytes, first_block: int) -> int | None:
    if found == wanted:
        return None
    differs = np.flatnonzero(np.frombuffer(found, np.uint8) != np.frombuffer(wanted, np.uint8))
    return first_block + int(differs[0]) // BLOCK_BYTES


def verify_import(
    volume: Volume, source: Source, *, processes: int = 1, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Compare the logical content with the source; holes of a sparse source are holes of the volume.

    Raises:
        DeviceError: it is not the same (``EIO``), or one of them cannot be read.
    """
    done = 0
    for (first, blocks), bad in _compared(volume, source, processes):
        hole = _first_stored(volume, done, first)
        if hole is not None or bad is not None:
            raise _difference(volume, min(block for block in (hole, bad) if block is not None))
        done = first + blocks
        progress(min(done * BLOCK_BYTES, source.size_bytes))
    stored = _first_stored(volume, done, volume.data_blocks)
    if stored is not None:
        raise _difference(volume, stored)


def _difference(volume: Volume, block: int) -> DeviceError:
    return DeviceError(
        f"block {block} does not read back as it was written", device=volume.device.path, errno=errno.EIO
    )


def _compared(volume: Volume, source: Source, processes: int) -> Iterator[tuple[tuple[int, int], int | None]]:
    parts = list(source.data_parts())
    enough = source.size_bytes >= WORTHWHILE_BYTES[known_compressor(volume)]
    if processes == 1 or not enough or not can_reopen(volume.device):
        yield from zip(parts, map(_Comparison(source, volume), parts), strict=True)
        return
    with pool(processes, volume) as executor:
        yield from zip(parts, ordered(executor, _Comparison(source), parts, 2 * processes), strict=True)


def _first_stored(volume: Volume, first: int, end: int) -> int | None:
    """The first block of a range that is no hole."""
    aligned = first // ALIGNED_ENTRIES * ALIGNED_ENTRIES
    for start, entries in volume.entry_chunks(aligned, end) if first < end else ():
        stored = np.flatnonzero(entries) + start
        stored = stored[stored >= first]
        if len(stored):
            return int(stored[0])
    return None
