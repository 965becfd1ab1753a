"""Fill a new volume from raw content: blocks of zeroes stay holes, the rest is compressed.

The super block is written last, so a power cut leaves a device without the magic, never
a volume with half of its content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Flush, Stream
from zoned_tools.errors import GeometryError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.encoding import WORTHWHILE_BYTES, Choice, Part, encode_part
from zoned_tools.formats.inplace_compress.entries import ALIGNED_BYTES, ALIGNED_ENTRIES, fill_extents, pack_entries
from zoned_tools.formats.inplace_compress.format import plan_volume, volume_sizes
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import Volume, volume_of
from zoned_tools.formats.inplace_compress.workers import ordered, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.inplace_compress.source import Source

_BITMAP_PART_ENTRIES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Reads and compresses parts, here or in a worker process."""

    source: Source
    choice: Choice

    def encode(self, part: tuple[int, int]) -> Part:
        return encode_part(self.source.read(*part), part[0], self.choice)


@dataclass(slots=True)
class ImportResult:
    """What an import made."""

    meta_blocks: int
    data_blocks: int
    source_bytes: int
    extents: int = 0
    raw_extents: int = 0
    content_bytes: int = 0
    stored_bytes: int = 0

    def add(self, part: Part) -> None:
        self.extents += len(part.head)
        self.raw_extents += sum(p == n * BLOCK_SECTORS for p, n in zip(part.sectors, part.length, strict=True))
        self.content_bytes += sum(part.length) * BLOCK_BYTES
        self.stored_bytes += sum(part.sectors) * SECTOR_BYTES


@dataclass(slots=True)
class _BitmapWriter:
    """Writes the bitmap front to back as parts arrive in ascending order; what has no part is holes already."""

    volume: Volume
    start: int = 0
    heads: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    sectors: list[int] = field(default_factory=list)

    def add(self, part: Part) -> None:
        chunk = part.first_block // _BITMAP_PART_ENTRIES * _BITMAP_PART_ENTRIES
        if chunk != self.start:
            self.finish()
            self.start = chunk
        self.heads += part.head
        self.lengths += part.length
        self.sectors += part.sectors

    def finish(self) -> None:
        """Write what has come together."""
        if not self.heads:
            return
        end = min(self.start + _BITMAP_PART_ENTRIES, self.volume.data_blocks)
        total = -(-(end - self.start) // ALIGNED_ENTRIES) * ALIGNED_ENTRIES
        entries = fill_extents(
            np.array(self.heads), np.array(self.lengths), np.array(self.sectors), total, origin=self.start
        )
        raw = pack_entries(entries)
        raw = raw.ljust(-(-len(raw) // SECTOR_BYTES) * SECTOR_BYTES, b"\0")
        offset = self.start // ALIGNED_ENTRIES * ALIGNED_BYTES
        self.volume.device.write(self.volume.bitmap_offset_bytes + offset, raw)
        self.heads, self.lengths, self.sectors = [], [], []


def plan_import(
    device: Device,
    source: Source,
    choice: Choice,
    *,
    data_blocks: int | None = None,
    start_bytes: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Plan, ImportResult]:
    """A plan that makes a volume with the content of ``source``; the result is filled in while it is carried out.

    The super block comes last: an import that is cut short leaves no volume.

    Args:
        data_blocks: size of the volume; as large as the device allows when None.
        processes: how many compress; 1 for this one alone.
        progress: told the bytes of the source that are done.

    Raises:
        GeometryError: the device cannot carry the content.
        UsageError: a choice is impossible.
    """
    meta_blocks, blocks = volume_sizes(device, start_bytes, data_blocks)
    if source.blocks > blocks:
        raise GeometryError(f"{source.size_bytes} bytes do not fit a volume of {blocks} blocks", device=device.path)
    super_block = SuperBlock(layout.MAGIC, meta_blocks, blocks, int(choice.compressor))
    plan = plan_volume(device, compressor=choice.compressor, start_bytes=start_bytes, data_blocks=blocks)
    volume = volume_of(device, start_bytes, super_block)
    result = ImportResult(meta_blocks, blocks, source.size_bytes)
    encoder = _Encoder(source, choice)

    def run() -> None:
        bitmap = _BitmapWriter(volume)
        for part in _encoded(encoder, processes):
            _write_payloads(volume, part)
            bitmap.add(part)
            result.add(part)
            progress(min((part.first_block + part.blocks) * BLOCK_BYTES, source.size_bytes))
        bitmap.finish()

    begin = start_bytes + BLOCK_BYTES
    content = Stream(0, begin, volume.data_offset_bytes + blocks * BLOCK_BYTES - begin, run, note="bitmap and payloads")
    plan.steps[-2:-2] = [content, Flush(0)]  # before the super block and its flush
    plan.title = f"import into {layout.NAME}"
    return plan, result


def rehearse_import(
    source: Source,
    choice: Choice,
    result: ImportResult,
    *,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Fill in what an import would make; nothing is written."""
    for part in _encoded(_Encoder(source, choice), processes):
        result.add(part)
        progress(min((part.first_block + part.blocks) * BLOCK_BYTES, source.size_bytes))


def _encoded(encoder: _Encoder, processes: int) -> Iterator[Part]:
    parts = encoder.source.data_parts()
    if processes == 1 or encoder.source.size_bytes < WORTHWHILE_BYTES[encoder.choice.compressor]:
        yield from map(encoder.encode, parts)
        return
    with pool(processes) as executor:
        yield from ordered(executor, encoder.encode, parts, 2 * processes)


def _write_payloads(volume: Volume, part: Part) -> None:
    base, write = volume.data_offset_bytes, volume.device.write
    for head, payload in zip(part.head, part.payloads, strict=True):
        write(base + head * BLOCK_BYTES, payload)
