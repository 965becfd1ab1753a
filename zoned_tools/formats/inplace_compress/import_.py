"""Fill a new volume from raw content: blocks of zeroes stay holes, the rest is compressed.

The super block is written last, so a power cut leaves a device without the magic, never
a volume with half of its content.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.files import next_data
from zoned_tools.device.plan import Flush, Stream
from zoned_tools.errors import DeviceError, GeometryError, UsageError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.entries import ALIGNED_BYTES, ALIGNED_ENTRIES, fill_extents, pack_entries
from zoned_tools.formats.inplace_compress.format import plan_volume, volume_sizes
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import Volume, volume_of
from zoned_tools.formats.inplace_compress.payload import encode_extents
from zoned_tools.formats.inplace_compress.workers import ordered, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan

PART_BLOCKS = 1024
"""Blocks of the source that are read, compressed and written at a time; a multiple of every window."""

_BITMAP_PART_ENTRIES = 1 << 20
WORTHWHILE_BYTES = {Compressor.C842: 16 << 20, Compressor.LZO: 1 << 30}
"""Source from which starting processes pays."""


@dataclass(frozen=True, slots=True)
class Source:
    """Raw content: a regular file or a block device.

    Attributes:
        path: its name.
        size_bytes: its length; the last block is filled up with zeroes.
    """

    path: str
    size_bytes: int

    @property
    def blocks(self) -> int:
        return -(-self.size_bytes // BLOCK_BYTES)

    def data_parts(self) -> Iterator[tuple[int, int]]:
        """``(first block, blocks)`` of the parts that may hold anything, ascending."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            part_bytes = PART_BLOCKS * BLOCK_BYTES
            at = 0
            while at < self.size_bytes:
                start = next_data(fd, at, self.size_bytes)
                if start >= self.size_bytes:
                    return
                first = start // part_bytes * PART_BLOCKS
                yield first, min(PART_BLOCKS, self.blocks - first)
                at = (first + PART_BLOCKS) * BLOCK_BYTES
        finally:
            os.close(fd)


def open_source(path: str) -> Source:
    """Look at the content to import.

    Raises:
        DeviceError: it cannot be opened, or is neither a regular file nor a block device.
        UsageError: it is empty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise DeviceError("neither a regular file nor a block device", device=path)
            size = os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if size == 0:
        raise UsageError("nothing to import: it is empty", device=path)
    return Source(path, size)


@dataclass(frozen=True, slots=True)
class _Part:
    """Compressed extents of one part of the source: lists of one length."""

    first_block: int
    blocks: int
    head: list[int]
    length: list[int]
    sectors: list[int]
    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Reads and compresses parts, here or in a worker process."""

    source: Source
    compressor: Compressor
    window_blocks: int
    exact: bool

    def encode(self, part: tuple[int, int]) -> _Part:
        first, blocks = part
        content = self._read(first * BLOCK_BYTES, blocks * BLOCK_BYTES)
        heads, lengths = _stored_runs(content, first, self.window_blocks)
        pieces = [
            content[(head - first) * BLOCK_BYTES : (head - first + length) * BLOCK_BYTES]
            for head, length in zip(heads, lengths, strict=True)
        ]
        encoded = encode_extents(self.compressor, pieces, exact=self.exact)
        sectors = [e.payload_sectors for e in encoded]
        return _Part(first, blocks, heads, lengths, sectors, [e.data for e in encoded])

    def _read(self, offset: int, length: int) -> bytes:
        try:
            fd = os.open(self.source.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = b""
                while len(content) < length and (more := os.pread(fd, length - len(content), offset + len(content))):
                    content = content + more if content else more
            finally:
                os.close(fd)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.source.path, f"cannot read at byte {offset}") from None
        return content.ljust(length, b"\0")


def _stored_runs(content: bytes, first_block: int, window: int) -> tuple[list[int], list[int]]:
    """Heads and lengths of the extents to make: in each window from the first to the last block that is not zero."""
    used = np.frombuffer(content, np.uint64).reshape(-1, BLOCK_BYTES // 8).any(axis=1)
    blocks = np.flatnonzero(used) + first_block
    if not len(blocks):
        return [], []
    number = blocks // window
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    ends = np.append(begins[1:], len(blocks)) - 1
    heads = blocks[begins]
    return heads.tolist(), (blocks[ends] - heads + 1).tolist()


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

    def add(self, part: _Part) -> None:
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

    def add(self, part: _Part) -> None:
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
    *,
    compressor: Compressor,
    window_blocks: int = layout.WINDOW_MAX_BLOCKS,
    data_blocks: int | None = None,
    start_bytes: int = 0,
    processes: int = 1,
    exact: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Plan, ImportResult]:
    """A plan that makes a volume with the content of ``source``; the result is filled in while it is carried out.

    The super block comes last: an import that is cut short leaves no volume.

    Args:
        window_blocks: longest extent, 2 or 32 blocks.
        data_blocks: size of the volume; as large as the device allows when None.
        processes: how many compress; 1 for this one alone.
        exact: store the very LZO streams that the kernel makes (slow).
        progress: told the bytes of the source that are done.

    Raises:
        GeometryError: the device cannot carry the content.
        UsageError: a choice is impossible.
    """
    if window_blocks not in layout.WINDOWS:
        raise UsageError(f"a window of {window_blocks} blocks does not exist", hint="2 or 32")
    meta_blocks, blocks = volume_sizes(device, start_bytes, data_blocks)
    if source.blocks > blocks:
        raise GeometryError(f"{source.size_bytes} bytes do not fit a volume of {blocks} blocks", device=device.path)
    super_block = SuperBlock(layout.MAGIC, meta_blocks, blocks, int(compressor))
    plan = plan_volume(device, compressor=compressor, start_bytes=start_bytes, data_blocks=blocks)
    volume = volume_of(device, start_bytes, super_block)
    result = ImportResult(meta_blocks, blocks, source.size_bytes)
    encoder = _Encoder(source, compressor, window_blocks, exact)

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


def _encoded(encoder: _Encoder, processes: int) -> Iterator[_Part]:
    parts = encoder.source.data_parts()
    if processes == 1 or encoder.source.size_bytes < WORTHWHILE_BYTES[encoder.compressor]:
        yield from map(encoder.encode, parts)
        return
    with pool(processes) as executor:
        yield from ordered(executor, encoder.encode, parts, 2 * processes)


def _write_payloads(volume: Volume, part: _Part) -> None:
    base, write = volume.data_offset_bytes, volume.device.write
    for head, payload in zip(part.head, part.payloads, strict=True):
        write(base + head * BLOCK_BYTES, payload)
