"""Payloads on the device: tags, bulk reading, decoding extents, encoding blocks.

A compressed payload of ``P`` sectors is the stream, padding, and a tag in its last 8
bytes (magic, stream length). Extents are read in spans of a few MiB and decoded in bulk.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import BadAreas, salvage_into
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor, decode_many, encode_many
from zoned_tools.formats.inplace_compress.layout import (
    BLOCK_BYTES,
    BLOCK_SECTORS,
    SECTOR_BYTES,
    TAG_BYTES,
    TAG_MAGIC,
)
from zoned_tools.formats.inplace_compress.rejection import Outcome, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.open import Volume

SPAN_BYTES = 4 << 20
"""Payloads that are read and decoded at a time."""

_GAP_BYTES = 128 << 10
"""Unused bytes between payloads that are cheaper to read than to seek over."""

_DATA_RANGES_MIN = 32
_BYTES_PER_DATA_RANGE = 1 << 20
"""Ranges of a sparse image that are looked at before every payload is simply read: 32, or one for every MiB."""

_TAG = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Span:
    """Payloads of neighbouring extents in one buffer.

    Attributes:
        extents: what is in it.
        start: byte of each extent's payload in ``buffer``.
        buffer: bytes read; empty when the image has a hole there.
        tag_magic, stream_bytes: the two words of every tag (uint32), whatever they are.
        unread: sectors that cannot be read, in bytes of the volume's data; ``buffer`` has zeroes there.
    """

    extents: Extents
    start: Array
    buffer: memoryview
    tag_magic: Array
    stream_bytes: Array
    unread: BadAreas

    @property
    def is_unread(self) -> Array:
        """Mask of the extents of whose payload a sector cannot be read."""
        return self.unread.touches(self.extents.head * BLOCK_BYTES, self.extents.payload * SECTOR_BYTES)

    def stream(self, index: int) -> memoryview:
        """The stream of one extent, as long as its tag says (at most the payload)."""
        start = int(self.start[index])
        length = min(int(self.stream_bytes[index]), int(self.extents.payload[index]) * SECTOR_BYTES)
        return self.buffer[start : start + length]


def spans(volume: Volume, extents: Extents) -> Iterator[Span]:
    """Read the payloads of ``extents`` (each with ``0 < P <= 8L``) in ascending spans.

    Parts of a sparse image without data are not read: their tags are zero.
    """
    if not len(extents):
        return
    begin = extents.head * BLOCK_BYTES
    end = begin + extents.payload * SECTOR_BYTES
    present = payloads_present(volume, extents)
    if not present.all():
        yield from _absent(extents.select(~present))
        extents, begin, end = extents.select(present), begin[present], end[present]
    long = end - begin > SPAN_BYTES
    for index in np.flatnonzero(long):
        yield _long_span(volume, extents.select(np.array([index])))
    if long.any():
        extents, begin, end = extents.select(~long), begin[~long], end[~long]
    for first, last in _cut(begin, end):
        yield _read_span(volume, extents.select(np.arange(first, last)), begin[first:last], int(end[last - 1]))


def payloads_present(volume: Volume, extents: Extents) -> Array:
    """Mask of the extents whose tag does not lie in a hole of the image."""
    if not len(extents):
        return np.empty(0, bool)
    positions = extents.head * BLOCK_BYTES + extents.payload * SECTOR_BYTES - TAG_BYTES
    base, begin = volume.data_offset_bytes, int(extents.head[0]) * BLOCK_BYTES
    length = int(positions[-1]) + TAG_BYTES - begin
    limit = max(_DATA_RANGES_MIN, length // _BYTES_PER_DATA_RANGE)
    ranges = list(itertools.islice(volume.device.data_extents(base + begin, length), limit))
    if len(ranges) == limit:
        return np.ones(len(positions), bool)
    if not ranges:
        return np.zeros(len(positions), bool)
    starts = np.array([r[0] - base for r in ranges], np.int64)
    stops = np.array([r[0] + r[1] - base for r in ranges], np.int64)
    index = np.searchsorted(starts, positions, "right") - 1
    return np.asarray((index >= 0) & (positions < stops[index]))


def _absent(extents: Extents) -> Iterator[Span]:
    """Extents whose tag lies in a hole of the image."""
    zeros = np.zeros(len(extents), np.uint32)
    yield Span(extents, np.zeros(len(extents), np.int64), memoryview(b""), zeros, zeros, BadAreas())


def read_sectors(volume: Volume, start_bytes: int, length_bytes: int) -> tuple[memoryview, BadAreas]:
    """Whole sectors from a byte of the volume's data on; those that cannot be read are zeroes, and listed.

    Source: section 1.3 of the specification of rescues (payload is lost by sectors).
    """
    buffer = memoryview(bytearray(length_bytes))
    base = volume.data_offset_bytes
    bad = salvage_into(volume.device, base + start_bytes, buffer, unit_bytes=SECTOR_BYTES)
    return buffer.toreadonly(), bad.shifted(-base)


def _long_span(volume: Volume, extents: Extents) -> Span:
    """One extent that is longer than a span: read whole only when its tag can be true."""
    length = int(extents.payload[0]) * SECTOR_BYTES
    offset = int(extents.head[0]) * BLOCK_BYTES
    last, unread = read_sectors(volume, offset + length - SECTOR_BYTES, SECTOR_BYTES)
    magic, stream_bytes = _TAG.unpack(last[-TAG_BYTES:])
    buffer = memoryview(b"")
    if magic == TAG_MAGIC and int(extents.blocks[0]) <= layout.EXTENT_MAX_BLOCKS:
        buffer, unread = read_sectors(volume, offset, length)
    words = np.array([magic], np.uint32), np.array([stream_bytes], np.uint32)
    return Span(extents, np.zeros(1, np.int64), buffer, *words, unread)


def _cut(begin: Array, end: Array) -> Iterator[tuple[int, int]]:
    """Index ranges of payloads that lie close together within :data:`SPAN_BYTES`."""
    far = np.flatnonzero(begin[1:] - end[:-1] > _GAP_BYTES) + 1
    edges = [0, *far.tolist(), len(begin)]
    for low, high in itertools.pairwise(edges):
        first = low
        while first < high:
            last = first + int(np.searchsorted(end[first:high], begin[first] + SPAN_BYTES, "right"))
            yield first, max(last, first + 1)
            first = max(last, first + 1)


def _read_span(volume: Volume, extents: Extents, begin: Array, end: int) -> Span:
    start = int(begin[0])
    buffer, unread = read_sectors(volume, start, end - start)
    words = np.frombuffer(buffer, "<u4")
    relative = begin - start
    tag = (relative + extents.payload * SECTOR_BYTES - TAG_BYTES) // 4
    return Span(extents, relative, buffer, words[tag], words[tag + 1], unread)


def failed_rules(span: Span) -> Array:
    """0 for a good tag, 1 for a violated EXT_TAG, 2 for EXT_LEN; only meaningful for compressed extents."""
    room = span.extents.payload * SECTOR_BYTES - TAG_BYTES
    bad_length = (span.stream_bytes < 1) | (span.stream_bytes > room)
    return np.where(span.tag_magic != TAG_MAGIC, 1, np.where(bad_length, 2, 0))


def decode_streams(compressor: Compressor, span: Span, indexes: Sequence[int]) -> list[Outcome]:
    """Decode the streams of extents whose tags are good; capacity is the extent's size."""
    wanted = [i for i in indexes if span.extents.blocks[i] <= layout.EXTENT_MAX_BLOCKS]
    outcomes = iter(
        decode_many(
            compressor,
            [span.stream(i) for i in wanted],
            (span.extents.blocks[wanted] * BLOCK_BYTES).tolist(),
        )
    )
    if len(wanted) == len(indexes):
        return list(outcomes)
    too_long = Rejected(f"an extent of more than {layout.EXTENT_MAX_BLOCKS} blocks")
    kept = set(wanted)
    return [next(outcomes) if i in kept else too_long for i in indexes]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is stored for one extent: ``data`` is whole sectors, raw when they fill the extent."""

    blocks: int
    payload_sectors: int
    data: bytes


def encode_extents(compressor: Compressor, contents: Sequence[bytes], *, exact: bool) -> list[Encoded]:
    """Payloads of extents with the given contents (whole blocks each); padding is zero."""
    streams = encode_many(compressor, contents, exact=exact)
    return [_store(content, stream) for content, stream in zip(contents, streams, strict=True)]


def _store(content: bytes, stream: bytes) -> Encoded:
    blocks = len(content) // BLOCK_BYTES
    sectors = layout.payload_sectors_for(len(stream), blocks)
    if sectors == blocks * BLOCK_SECTORS:
        return Encoded(blocks, sectors, content)
    padded = stream.ljust(sectors * SECTOR_BYTES - TAG_BYTES, b"\0")
    return Encoded(blocks, sectors, padded + _TAG.pack(TAG_MAGIC, len(stream)))
