"""The read path: content of extents in bulk, and of any range of blocks."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import MapExtent
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS
from zoned_tools.formats.inplace_compress.open import Volume, known_compressor
from zoned_tools.formats.inplace_compress.payload import Span, decode_streams, failed_rules, read_sectors, spans
from zoned_tools.formats.inplace_compress.places import place
from zoned_tools.formats.inplace_compress.rejection import Rejected

if TYPE_CHECKING:
    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.formats.inplace_compress.bitmap import Bitmap
    from zoned_tools.formats.inplace_compress.compressors import Compressor
    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Extents

_CACHED_BYTES = 256 << 10
"""Content that is decoded before it is handed on: little enough to stay in the processor's cache."""

Content: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An extent whose content cannot be had, and why (the finding's code first)."""

    block: int
    blocks: int
    code: str
    reason: str


BadExtent: TypeAlias = Callable[[Unreadable], None]
"""Told of every extent that cannot be read; raises to stop, returns to have zeroes in its place."""


def fail(device_path: str) -> BadExtent:
    """The policy that stops at the first unreadable extent with EIO."""

    def stop(bad: Unreadable) -> None:
        which = place(bad.block, bad.blocks)
        raise DeviceError(f"{which} cannot be read: {bad.code}, {bad.reason}", device=device_path, errno=errno.EIO)

    return stop


def zeroes(_: Unreadable) -> None:
    """The policy that puts zeroes in the place of unreadable extents (export, never a write)."""


def contents(
    volume: Volume, extents: Extents, on_bad: BadExtent, first: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, Content]]:
    """``(block, blocks, content)`` of all extents with a payload; unreadable ones only reach ``on_bad``.

    The order is not always ascending. Contents may be views of a larger buffer.

    Args:
        first, end: the blocks that are wanted; a raw extent whose unreadable sectors are elsewhere is not a bad one.
    """
    invalid = extents.bad_nibble
    if invalid.any():
        columns = extents.head[invalid].tolist(), extents.blocks[invalid].tolist(), extents.unknown[invalid].tolist()
        for head, blocks, unknown in zip(*columns, strict=True):
            on_bad(Unreadable(head, blocks, *(_LOST if unknown else _INVALID)))
    stored = extents.select(~invalid & (extents.payload > 0))
    for span in spans(volume, stored):
        raw = span.extents.is_raw
        for block, blocks, content, unread in _raw_contents(volume, span, np.flatnonzero(raw)):
            low, high = max(block, first), block + blocks if end is None else min(block + blocks, end)
            for bad_block in _blocks_inside(unread, low, high):
                on_bad(Unreadable(bad_block, 1, *_UNREAD))
            yield block, blocks, content
        yield from _decoded_contents(volume, span, np.flatnonzero(~raw), on_bad)


def _blocks_inside(unread: BadAreas, first: int, end: int) -> Iterator[int]:
    """The blocks of a range of which a sector cannot be read."""
    if len(unread) and first < end:
        starts = np.arange(first, end) * BLOCK_BYTES
        yield from (np.flatnonzero(unread.touches(starts, BLOCK_BYTES)) + first).tolist()


def _raw_contents(volume: Volume, span: Span, indexes: Array) -> Iterator[tuple[int, int, Content, BadAreas]]:
    """Content with what of it cannot be read, in bytes of the volume's data; there it has zeroes."""
    if not len(indexes):
        return
    heads, blocks = span.extents.head[indexes].tolist(), span.extents.blocks[indexes].tolist()
    for head, count, start in zip(heads, blocks, span.start[indexes].tolist(), strict=True):
        if span.buffer and len(span.buffer) >= start + count * BLOCK_BYTES:
            yield head, count, span.buffer[start : start + count * BLOCK_BYTES], span.unread
        else:  # in a hole of the image, or longer than a span
            yield from _raw_pieces(volume, head, count)


def _raw_pieces(volume: Volume, head: int, count: int) -> Iterator[tuple[int, int, Content, BadAreas]]:
    step = 1024
    for block in range(head, head + count, step):
        blocks = min(step, head + count - block)
        offset = volume.block_offset_bytes(block)
        if next(iter(volume.device.data_extents(offset, blocks * BLOCK_BYTES)), None) is not None:
            yield block, blocks, *read_sectors(volume, block * BLOCK_BYTES, blocks * BLOCK_BYTES)


_INVALID = "MAP_NIBBLE", "its bitmap entries are invalid"
_LOST = "metadata-lost", "its bitmap entries cannot be read"
_UNFINISHED = "metadata-lost", "the bitmap entry behind it cannot be read, and its stream does not end there"
_UNREAD = "data-unreadable", "the device does not give its payload"
_TAG_FAULTS = {1: ("EXT_TAG", "its payload does not end in a tag"), 2: ("EXT_LEN", "its tag's length is impossible")}


def _decoded_contents(
    volume: Volume,
    span: Span,
    indexes: Array,
    on_bad: BadExtent,
) -> Iterator[tuple[int, int, Content]]:
    if not len(indexes):
        return
    unread, cut = span.is_unread, span.extents.cut
    faults = failed_rules(span)[indexes]
    good = indexes[(faults == 0) & ~unread[indexes]].tolist()
    heads, blocks = span.extents.head, span.extents.blocks

    def bad(index: int, code: str, reason: str) -> None:
        why = _UNREAD if unread[index] else _UNFINISHED if cut[index] else (code, reason)
        on_bad(Unreadable(int(heads[index]), int(blocks[index]), *why))

    wrong = (faults != 0) | unread[indexes]
    for index, fault in zip(indexes[wrong].tolist(), faults[wrong].tolist(), strict=True):
        bad(index, *_TAG_FAULTS.get(fault, _UNREAD))
    compressor = known_compressor(volume)
    for part in _small_parts(good, (blocks[good] * BLOCK_BYTES).tolist()):
        outcomes = decode_streams(compressor, span, part)
        columns = part, heads[part].tolist(), blocks[part].tolist(), outcomes
        for index, head, count, outcome in zip(*columns, strict=True):
            if isinstance(outcome, Rejected):
                bad(index, "EXT_DECOMP", str(outcome))
            elif len(outcome) != count * BLOCK_BYTES:
                bad(index, "EXT_SHORT", f"it decodes to {len(outcome)} bytes only")
            else:
                yield head, count, outcome


def _small_parts(indexes: list[int], sizes: list[int]) -> Iterator[list[int]]:
    """Cut into parts of a few hundred KiB of content."""
    part: list[int] = []
    weight = 0
    for index, size in zip(indexes, sizes, strict=True):
        part.append(index)
        weight += size
        if weight >= _CACHED_BYTES:
            yield part
            part, weight = [], 0
    if part:
        yield part


_HOLE = "hole, never written"
_UNKNOWN = -1
"""Payload of an extent whose entries cannot be read."""


class Reader:
    """Content of a volume through its bitmap.

    Args:
        on_bad: told of every extent that cannot be read; None to fail with EIO.
    """

    def __init__(self, volume: Volume, bitmap: Bitmap, on_bad: BadExtent | None = None) -> None:
        self._volume = volume
        self._bitmap = bitmap
        self._on_bad = on_bad or fail(volume.device.path)
        self._compressor = known_compressor(volume)

    def stored(self, block: int, count: int) -> Iterator[tuple[int, Content]]:
        """``(block, content)`` of what is stored in a range, cut to it; holes are left out.

        Not always ascending; contents may be views that are only valid until the next one is asked for.
        """
        if not count:
            return
        end = block + count
        extents = self._bitmap.extents(block, count)
        for head, blocks, content in contents(self._volume, extents, self._on_bad, block, end):
            first, last = max(head, block), min(head + blocks, end)
            if first < last:
                yield first, content[(first - head) * BLOCK_BYTES : (last - head) * BLOCK_BYTES]

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer``, whole blocks from ``block`` on."""
        count = len(buffer) // BLOCK_BYTES
        missing = np.ones(count, bool)
        for at, piece in self.stored(block, count):
            start, size = at - block, len(piece)
            buffer[start * BLOCK_BYTES : start * BLOCK_BYTES + size] = piece
            missing[start : start + size // BLOCK_BYTES] = False
        for first, end in mask_runs(missing).tolist():
            buffer[first * BLOCK_BYTES : end * BLOCK_BYTES] = bytes((end - first) * BLOCK_BYTES)

    def salvage(self, block: int) -> tuple[Content, BadAreas] | None:
        """The sectors that can be read of a block that is stored raw, and the others; None for any other block."""
        if not self._bitmap.extents(block, 1).is_raw.any():
            return None
        content, unread = read_sectors(self._volume, block * BLOCK_BYTES, BLOCK_BYTES)
        return content, unread.shifted(-block * BLOCK_BYTES)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where blocks live: one run for each extent, neighbouring holes together."""
        at, end, base = block, block + count, self._volume.data_offset_bytes // BLOCK_BYTES
        extents = self._bitmap.extents(block, count)
        stored = extents.select((extents.payload > 0) | extents.bad_nibble)
        columns = (stored.head, stored.blocks, stored.payload, stored.bad_nibble, stored.unknown)
        for head, blocks, payload, invalid, unknown in zip(*(column.tolist() for column in columns), strict=True):
            first, last = max(head, block), min(head + blocks, end)
            if at < first:
                yield MapExtent(at, first - at, 0, None, _HOLE)
            physical = base + (first if unknown or payload == BLOCK_SECTORS * blocks else head)
            why = _describe(blocks, _UNKNOWN if unknown else None if invalid else payload, self._compressor)
            yield MapExtent(first, last - first, 0, physical, why if first == head else f"{why}, from block {head} on")
            at = last
        if at < end:
            yield MapExtent(at, end - at, 0, None, _HOLE)


@functools.lru_cache(maxsize=1024)
def _describe(blocks: int, payload: int | None, compressor: Compressor) -> str:
    """An extent in words; without a payload its entries are invalid."""
    if payload == _UNKNOWN:
        return "bitmap entries cannot be read"
    extent = f"extent of {blocks} block{'s' if blocks > 1 else ''}"
    if payload is None:
        return f"{extent}, invalid bitmap entries"
    if payload == BLOCK_SECTORS * blocks:
        return f"{extent}, stored raw"
    return f"{extent}, {compressor.label} payload of {payload} sector{'s' if payload > 1 else ''} at its start"


def read_whole(volume: Volume, first_block: int, blocks: int) -> bytes:
    """The content of a range.

    Raises:
        DeviceError: something of it cannot be read (``EIO``).
    """
    from zoned_tools.formats.inplace_compress.bitmap import Bitmap

    buffer = bytearray(blocks * BLOCK_BYTES)
    Reader(volume, Bitmap(volume)).read_into(first_block, memoryview(buffer))
    return bytes(buffer)
