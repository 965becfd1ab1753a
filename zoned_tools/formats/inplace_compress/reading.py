"""Content of extents in bulk: the read path of mapper and export."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress.extents import Extents
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES
from zoned_tools.formats.inplace_compress.metadata import Array
from zoned_tools.formats.inplace_compress.payload import Span, decode_streams, failed_rules, spans
from zoned_tools.formats.inplace_compress.rejection import Rejected
from zoned_tools.formats.inplace_compress.volume import Volume, known_compressor

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
        last = bad.block + bad.blocks - 1
        which = f"block {bad.block}" if bad.blocks == 1 else f"blocks {bad.block} to {last}"
        raise DeviceError(f"{which} cannot be read: {bad.code}, {bad.reason}", device=device_path, errno=errno.EIO)

    return stop


def contents(volume: Volume, extents: Extents, on_bad: BadExtent) -> Iterator[tuple[int, int, Content]]:
    """``(block, blocks, content)`` of all extents with a payload; unreadable ones only reach ``on_bad``.

    The order is not always ascending. Contents may be views of a larger buffer.
    """
    nibbles = extents.bad_nibble
    if nibbles.any():
        for head, blocks in zip(extents.head[nibbles].tolist(), extents.blocks[nibbles].tolist(), strict=True):
            on_bad(Unreadable(head, blocks, "MAP_NIBBLE", "its bitmap entries are invalid"))
    stored = extents.select(~nibbles & (extents.payload > 0))
    for span in spans(volume, stored):
        raw = span.extents.is_raw
        yield from _raw_contents(volume, span, np.flatnonzero(raw))
        yield from _decoded_contents(volume, span, np.flatnonzero(~raw), on_bad)


def _raw_contents(volume: Volume, span: Span, indexes: Array) -> Iterator[tuple[int, int, Content]]:
    if not len(indexes):
        return
    heads, blocks = span.extents.head[indexes].tolist(), span.extents.blocks[indexes].tolist()
    for head, count, start in zip(heads, blocks, span.start[indexes].tolist(), strict=True):
        if span.buffer and len(span.buffer) >= start + count * BLOCK_BYTES:
            yield head, count, span.buffer[start : start + count * BLOCK_BYTES]
        else:  # in a hole of the image, or longer than a span
            yield from _raw_pieces(volume, head, count)


def _raw_pieces(volume: Volume, head: int, count: int) -> Iterator[tuple[int, int, Content]]:
    step = 1024
    for block in range(head, head + count, step):
        blocks = min(step, head + count - block)
        offset = volume.block_offset_bytes(block)
        if next(iter(volume.device.data_extents(offset, blocks * BLOCK_BYTES)), None) is not None:
            yield block, blocks, volume.device.read(offset, blocks * BLOCK_BYTES)


_TAG_FAULTS = {1: ("EXT_TAG", "its payload does not end in a tag"), 2: ("EXT_LEN", "its tag's length is impossible")}


def _decoded_contents(
    volume: Volume,
    span: Span,
    indexes: Array,
    on_bad: BadExtent,
) -> Iterator[tuple[int, int, Content]]:
    if not len(indexes):
        return
    faults = failed_rules(span)[indexes]
    good = indexes[faults == 0].tolist()
    heads, blocks = span.extents.head, span.extents.blocks
    for index, fault in zip(indexes[faults != 0].tolist(), faults[faults != 0].tolist(), strict=True):
        on_bad(Unreadable(int(heads[index]), int(blocks[index]), *_TAG_FAULTS[fault]))
    compressor = known_compressor(volume)
    for part in _small_parts(good, (blocks[good] * BLOCK_BYTES).tolist()):
        outcomes = decode_streams(compressor, span, part)
        for head, count, outcome in zip(heads[part].tolist(), blocks[part].tolist(), outcomes, strict=True):
            if isinstance(outcome, Rejected):
                on_bad(Unreadable(head, count, "EXT_DECOMP", str(outcome)))
            elif len(outcome) != count * BLOCK_BYTES:
                on_bad(Unreadable(head, count, "EXT_SHORT", f"it decodes to {len(outcome)} bytes only"))
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
