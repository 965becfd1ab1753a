"""How well a volume compresses: sums and histograms over its extents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from zoned_tools.formats.inplace_compress.layout import (
    BLOCK_BYTES,
    BLOCK_SECTORS,
    SECTOR_BYTES,
    WINDOW_MAX_BLOCKS,
    WINDOWS,
)

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Extents

_LENGTHS = WINDOW_MAX_BLOCKS + 2
"""Histogram of extent lengths: 0 to 32 blocks, and everything longer."""


def _eighths() -> Array:
    return np.zeros(BLOCK_SECTORS + 1, np.int64)


def _lengths() -> Array:
    return np.zeros(_LENGTHS, np.int64)


class StatisticsRow(TypedDict):
    """The sums as in the documents; histograms leave out what does not occur, the ratio is null without content."""

    written_blocks: int
    hole_blocks: int
    raw_blocks: int
    compressed_blocks: int
    raw_extents: int
    compressed_extents: int
    invalid_extents: int
    window_blocks: int
    foreign_extents: int
    content_bytes: int
    stored_bytes: int
    ratio: float | None
    extents_by_blocks: dict[str, int]
    blocks_by_payload_sectors_per_block: dict[str, int]


@dataclass(slots=True)
class Statistics:
    """Sums over the extents seen so far.

    Attributes:
        raw_extents, compressed_extents, invalid_extents, hole_blocks: counts.
        raw_blocks, compressed_blocks: logical blocks in them.
        payload_sectors: of raw and compressed extents.
        by_length: extents with a payload, by length in blocks.
        by_ratio: blocks in such extents by their share of payload, in eighths rounded up.
        window_blocks: the host's window; ``foreign_extents`` do not lie inside one, so such
            a host did not make them and rewrites them whole for every change.
    """

    data_blocks: int
    raw_extents: int = 0
    compressed_extents: int = 0
    invalid_extents: int = 0
    raw_blocks: int = 0
    compressed_blocks: int = 0
    payload_sectors: int = 0
    window_blocks: int = WINDOWS[0]
    foreign_extents: int = 0
    by_length: Array = field(default_factory=_lengths)
    by_ratio: Array = field(default_factory=_eighths)

    def add(self, extents: Extents) -> None:
        """Take in a batch."""
        self.invalid_extents += int((extents.bad_nibble & ~extents.unknown).sum())
        raw, compressed = extents.is_raw, extents.is_compressed
        self.raw_extents += int(raw.sum())
        self.compressed_extents += int(compressed.sum())
        self.raw_blocks += int(extents.blocks[raw].sum())
        self.compressed_blocks += int(extents.blocks[compressed].sum())
        stored = raw | compressed
        blocks, payload = extents.blocks[stored], extents.payload[stored]
        if not len(blocks):
            return
        self.payload_sectors += int(payload.sum())
        first = extents.head[stored]
        self.foreign_extents += int((first // self.window_blocks != (first + blocks - 1) // self.window_blocks).sum())
        self.by_length += np.bincount(np.minimum(blocks, _LENGTHS - 1), minlength=_LENGTHS)
        eighths = -(-payload // blocks)
        self.by_ratio += np.bincount(eighths, blocks, BLOCK_SECTORS + 1).astype(np.int64)

    @property
    def written_blocks(self) -> int:
        return self.raw_blocks + self.compressed_blocks

    @property
    def ratio(self) -> float | None:
        """Stored bytes per byte of content, None when nothing is stored."""
        if not self.written_blocks:
            return None
        return self.payload_sectors * SECTOR_BYTES / (self.written_blocks * BLOCK_BYTES)

    def as_json(self) -> StatisticsRow:
        """JSON values with units in their names."""
        lengths = {
            (str(n) if n < _LENGTHS - 1 else f">{WINDOW_MAX_BLOCKS}"): int(count)
            for n, count in enumerate(self.by_length)
            if count
        }
        return {
            "written_blocks": self.written_blocks,
            "hole_blocks": self.data_blocks - self.written_blocks,
            "raw_blocks": self.raw_blocks,
            "compressed_blocks": self.compressed_blocks,
            "raw_extents": self.raw_extents,
            "compressed_extents": self.compressed_extents,
            "invalid_extents": self.invalid_extents,
            "window_blocks": self.window_blocks,
            "foreign_extents": self.foreign_extents,
            "content_bytes": self.written_blocks * BLOCK_BYTES,
            "stored_bytes": self.payload_sectors * SECTOR_BYTES,
            "ratio": None if self.ratio is None else round(self.ratio, 6),
            "extents_by_blocks": lengths,
            "blocks_by_payload_sectors_per_block": {str(n): int(c) for n, c in enumerate(self.by_ratio) if n and c},
        }
