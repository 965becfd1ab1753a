"""What a volume would save: the figures of an import, without writing anything.

Everything is compressed, or a sample of aligned units of 128 KiB: the units are cut into strata of one size, and one is
taken from each at random. The bounds are those of a simple random sample with the correction for a finite number of
units, which strata only make better. Source: section 13.1 of the specification.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.encoding import WORTHWHILE_BYTES, Choice, encode_part
from zoned_tools.formats.inplace_compress.extents import Extents
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.mapper.read import read_whole
from zoned_tools.formats.inplace_compress.source import PART_BLOCKS, Source, open_source
from zoned_tools.formats.inplace_compress.statistics import Statistics, StatisticsRow
from zoned_tools.formats.inplace_compress.workers import can_reopen, ordered, pool, worker_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import ProcessPoolExecutor

    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.open import Volume

UNIT_BLOCKS = layout.WINDOW_MAX_BLOCKS
UNIT_BYTES = UNIT_BLOCKS * BLOCK_BYTES
"""What a sample consists of: one window of 32 blocks, 16 of 2."""

SAMPLE_UNITS_MIN = 30
SAMPLE_BYTES = 256 << 20
"""How much is compressed unless more is wanted."""

_QUANTILE = 1.96
CONFIDENCE = 0.95
_UNITS_AT_A_TIME = PART_BLOCKS // UNIT_BLOCKS


class BoundRow(TypedDict):
    """How far a sampled figure may be from the true one, either way; the ratio's is null without content."""

    stored_bytes: int
    ratio: float | None
    confidence: float


class ResultRow(TypedDict):
    """What one compressor with one window would store; counts of a sample are scaled up to all of the content."""

    compressor: str
    window_blocks: int
    exact: bool
    extents: int
    raw_extents: int
    compressed_extents: int
    raw_blocks: int
    compressed_blocks: int
    hole_blocks: int
    content_bytes: int
    stored_bytes: int
    saved_bytes: int
    ratio: float | None
    extents_by_blocks: dict[str, int]
    blocks_by_payload_sectors_per_block: dict[str, int]
    bitmap_bytes: int
    device_bytes: int
    error: BoundRow | None
    seconds: float


class EstimateRow(TypedDict):
    """An estimate: what was looked at, and a result for each choice."""

    source: str
    source_kind: Literal["file", "block-device", "volume"]
    source_bytes: int
    blocks: int
    units: int
    sampled: bool
    sample_units: int
    sample_bytes: int
    seed: int
    seconds: float
    results: list[ResultRow]


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be compressed.

    Attributes:
        raw: a file or block device, or None for the logical content of ``volume``.
    """

    path: str
    kind: Literal["file", "block-device", "volume"]
    size_bytes: int
    raw: Source | None = None
    volume: Volume | None = None

    @property
    def blocks(self) -> int:
        return -(-self.size_bytes // BLOCK_BYTES)

    @property
    def units(self) -> int:
        return -(-self.blocks // UNIT_BLOCKS)

    def read(self, first_block: int, blocks: int) -> bytes:
        """Whole blocks of content.

        Raises:
            DeviceError: they cannot be read.
        """
        if self.raw is not None:
            return self.raw.read(first_block, blocks)
        if self.volume is None:
            raise RuntimeError("neither raw content nor a volume")
        return read_whole(self.volume, first_block, blocks)

    def data_parts(self) -> Iterator[tuple[int, int]]:
        """``(first block, blocks)`` of the parts that may hold anything, ascending."""
        if self.raw is not None:
            yield from self.raw.data_parts()
            return
        for first in range(0, self.blocks, PART_BLOCKS):
            yield first, min(PART_BLOCKS, self.blocks - first)


def _read_worker_volume(first_block: int, blocks: int) -> bytes:
    return read_whole(worker_volume(), first_block, blocks)


@contextmanager
def opened_content(path: str) -> Iterator[Content]:
    """Content of a file or block device; the logical content where that is a volume.

    Raises:
        DeviceError: it cannot be opened, or is neither.
        MetadataError: it begins with a volume's magic, but holds no usable one.
        UsageError: it is empty.
    """
    source = open_source(path)
    if not _has_magic(source):
        yield Content(path, "block-device" if source.is_block_device else "file", source.size_bytes, source)
        return
    from zoned_tools.device.opening import open_device
    from zoned_tools.formats.inplace_compress.open import open_volume

    with open_device(path) as device:
        volume = open_volume(device)
        yield Content(path, "volume", volume.data_blocks * BLOCK_BYTES, volume=volume)


def _has_magic(source: Source) -> bool:
    return int.from_bytes(source.read(0, 1)[:8], "little") == layout.MAGIC


@dataclass(frozen=True, slots=True)
class _Counts:
    """Extents of some parts of the content: arrays of one length."""

    head: Array
    length: Array
    sectors: Array
    seconds: float


@dataclass(frozen=True, slots=True)
class _Job:
    """Reads parts of the content and compresses them in every way that is asked for, here or in a worker process."""

    read: Callable[[int, int], bytes]
    choices: tuple[Choice, ...]

    def __call__(self, parts: Sequence[tuple[int, int]]) -> list[_Counts]:
        contents = [(self.read(first, blocks), first) for first, blocks in parts]
        return [_count(contents, choice) for choice in self.choices]


def _count(contents: Sequence[tuple[bytes, int]], choice: Choice) -> _Counts:
    begun = time.perf_counter()
    head: list[int] = []
    length: list[int] = []
    sectors: list[int] = []
    for content, first in contents:
        part = encode_part(content, first, choice)
        head += part.head
        length += part.length
        sectors += part.sectors
    return _Counts(
        np.array(head, np.int64), np.array(length, np.int64), np.array(sectors, np.int64), time.perf_counter() - begun
    )


@dataclass(slots=True)
class _Sums:
    """Sums over the units: of their stored bytes ``y`` and content bytes ``x``, as whole numbers without end."""

    y: int = 0
    x: int = 0
    yy: int = 0
    xx: int = 0
    xy: int = 0

    def add(self, y: Array, x: Array) -> None:
        self.y += int(y.sum())
        self.x += int(x.sum())
        self.yy += int((y * y).sum())
        self.xx += int((x * x).sum())
        self.xy += int((x * y).sum())

    def error(self, sampled: int, units: int) -> BoundRow:
        """The bounds for ``sampled`` of ``units`` units, of which those without content were not added."""
        left = (1 - sampled / units) / sampled
        ratio = self.y / self.x if self.x else 0
        of_y = (sampled * self.yy - self.y**2) / (sampled * (sampled - 1))
        of_rest = max(0.0, (self.yy - 2 * ratio * self.xy + ratio**2 * self.xx) / (sampled - 1))
        return {
            "stored_bytes": round(_QUANTILE * units * math.sqrt(left * of_y)),
            "ratio": round(_QUANTILE * math.sqrt(left * of_rest) * sampled / self.x, 6) if self.x else None,
            "confidence": CONFIDENCE,
        }


@dataclass(slots=True)
class _Tally:
    """What one choice stores of what was looked at so far."""

    choice: Choice
    statistics: Statistics
    sums: _Sums = field(default_factory=_Sums)
    seconds: float = 0

    def add(self, counts: _Counts) -> None:
        self.seconds += counts.seconds
        no = np.zeros(len(counts.head), bool)
        self.statistics.add(Extents(counts.head, counts.length, counts.sectors, no, no, no, no))
        units, unit = np.unique(counts.head // UNIT_BLOCKS, return_inverse=True)
        y = np.bincount(unit, counts.sectors, len(units)).astype(np.int64) * SECTOR_BYTES
        x = np.bincount(unit, counts.length, len(units)).astype(np.int64) * BLOCK_BYTES
        self.sums.add(y, x)

    def row(self, blocks: int, sampled: int, units: int) -> ResultRow:
        """The result for ``blocks`` of content, of whose ``units`` so many were looked at."""

        def scale(count: int) -> int:
            return (2 * count * units + sampled) // (2 * sampled)  # whole numbers: there may be more than a float has

        raw: StatisticsRow = self.statistics.as_json()
        content, stored = scale(raw["content_bytes"]), scale(raw["stored_bytes"])
        written = scale(raw["raw_blocks"]) + scale(raw["compressed_blocks"])
        extents = scale(raw["raw_extents"]) + scale(raw["compressed_extents"])
        bitmap_blocks = layout.meta_blocks_for(blocks)
        return {
            "compressor": self.choice.compressor.label,
            "window_blocks": self.choice.window_blocks,
            "exact": self.choice.exact,
            "extents": extents,
            "raw_extents": scale(raw["raw_extents"]),
            "compressed_extents": scale(raw["compressed_extents"]),
            "raw_blocks": scale(raw["raw_blocks"]),
            "compressed_blocks": scale(raw["compressed_blocks"]),
            "hole_blocks": max(0, blocks - written),
            "content_bytes": content,
            "stored_bytes": stored,
            "saved_bytes": content - stored,
            "ratio": raw["ratio"],
            "extents_by_blocks": {key: scale(n) for key, n in raw["extents_by_blocks"].items()},
            "blocks_by_payload_sectors_per_block": {
                key: scale(n) for key, n in raw["blocks_by_payload_sectors_per_block"].items()
            },
            "bitmap_bytes": bitmap_blocks * BLOCK_BYTES,
            "device_bytes": (1 + bitmap_blocks + blocks) * BLOCK_BYTES,
            "error": None if sampled == units else self.sums.error(sampled, units),
            "seconds": round(self.seconds, 3),
        }


def sample_units(units: int, wanted: int, seed: int) -> Array:
    """Which units a sample takes: one at random from each of ``wanted`` strata, ascending (int64)."""
    edges = np.arange(wanted + 1, dtype=np.int64) * units // wanted
    share = np.random.default_rng(seed).random(wanted)
    return np.asarray(edges[:-1] + (share * np.diff(edges)).astype(np.int64))


def _sampled_parts(content: Content, wanted: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    units = sample_units(content.units, wanted, seed)
    for start in range(0, len(units), _UNITS_AT_A_TIME):
        firsts = (units[start : start + _UNITS_AT_A_TIME] * UNIT_BLOCKS).tolist()
        yield [(first, min(UNIT_BLOCKS, content.blocks - first)) for first in firsts]


def _all_parts(content: Content) -> Iterator[list[tuple[int, int]]]:
    for part in content.data_parts():
        yield [part]


def estimate(
    content: Content,
    choices: Sequence[Choice],
    *,
    sample_bytes: int = SAMPLE_BYTES,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> EstimateRow:
    """What each of ``choices`` would store of the content.

    Args:
        sample_bytes: how much to compress, at least 30 units; 0 for everything.
        seed: of the sample; the same takes the same units.
        processes: how many compress; 1 for this one alone.
        progress: told the bytes of the content that are done.

    Raises:
        DeviceError: the content cannot be read.
    """
    begun = time.perf_counter()
    units, size = content.units, content.size_bytes
    wanted = units if not 0 < sample_bytes < size else min(units, max(SAMPLE_UNITS_MIN, sample_bytes // UNIT_BYTES))
    sampled = wanted < units
    parts = _sampled_parts(content, wanted, seed) if sampled else _all_parts(content)
    tallies = [_Tally(choice, Statistics(content.blocks)) for choice in choices]
    examined = 0
    for job, counted in _counted(content, parts, tuple(choices), wanted * UNIT_BYTES, processes):
        for tally, counts in zip(tallies, counted, strict=True):
            tally.add(counts)
        examined += sum(min(blocks * BLOCK_BYTES, size - first * BLOCK_BYTES) for first, blocks in job)
        progress(examined * units // wanted)
    rows = [tally.row(content.blocks, wanted, units) for tally in tallies]
    return {
        "source": content.path,
        "source_kind": content.kind,
        "source_bytes": size,
        "blocks": content.blocks,
        "units": units,
        "sampled": sampled,
        "sample_units": wanted,
        "sample_bytes": examined if sampled else size,
        "seed": seed,
        "seconds": round(time.perf_counter() - begun, 3),
        "results": rows,
    }


def _counted(
    content: Content,
    parts: Iterator[list[tuple[int, int]]],
    choices: tuple[Choice, ...],
    work_bytes: int,
    processes: int,
) -> Iterator[tuple[list[tuple[int, int]], list[_Counts]]]:
    """Each list of parts with its counts, in their order."""
    enough = work_bytes >= min(WORTHWHILE_BYTES[choice.compressor] for choice in choices)
    volume = content.volume
    if processes == 1 or not enough or (volume is not None and not can_reopen(volume.device)):
        job = _Job(content.read, choices)
        for some in parts:
            yield some, job(some)
        return
    with pool(processes, volume) as executor:
        yield from _over_processes(executor, _Job(_read_worker_volume if volume else content.read, choices), parts,
                                   2 * processes)  # fmt: skip


def _over_processes(
    executor: ProcessPoolExecutor, job: _Job, parts: Iterator[list[tuple[int, int]]], ahead: int
) -> Iterator[tuple[list[tuple[int, int]], list[_Counts]]]:
    given: list[list[tuple[int, int]]] = []

    def remembered() -> Iterator[list[tuple[int, int]]]:
        for some in parts:
            given.append(some)
            yield some

    for counted in ordered(executor, job, remembered(), ahead):
        yield given.pop(0), counted
