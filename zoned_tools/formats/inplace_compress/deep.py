"""The deep check: payloads behind entries that say something else.

One pass over the data area finds every sector that ends in a tag. The stream's length
fixes the payload's size and so its start; only candidates that start at a block are
decoded, and only where the bitmap calls the block raw or a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.layout import (
    BLOCK_BYTES,
    BLOCK_SECTORS,
    NIBBLE,
    SECTOR_BYTES,
    TAG_MAGIC,
    TAIL,
)
from zoned_tools.formats.inplace_compress.open import CHUNK_ENTRIES, Volume
from zoned_tools.formats.inplace_compress.verify import (
    PAYLOAD_MAX_SECTORS,
    Payloads,
    VerifyingPayload,
    minimal_sectors,
    verifying_payload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.formats.inplace_compress.entries import Array

_PASS_BYTES = 4 << 20
_OVERLAP = 512
"""Entries in front of and behind a chunk that its extents may reach over."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A verifying payload where the bitmap says raw (``RAW_SHADOW``) or hole (``HOLE_SHADOW``).

    ``blocks`` is the raw extent's length, or the payload's for a hole.
    """

    code: str
    block: int
    blocks: int
    payload: VerifyingPayload


@dataclass(frozen=True, slots=True)
class Shadows:
    """Shadows as columns, ascending by block.

    Attributes:
        payloads: what verifies.
        blocks: length of the raw extent, or of the payload in a hole (int64).
        is_raw: RAW_SHADOW, else HOLE_SHADOW (bool).
    """

    payloads: Payloads
    blocks: Array
    is_raw: Array

    @classmethod
    def of(cls, shadows: Iterable[Shadow]) -> Shadows:
        """Columns of shadows that come in ascending order."""
        found = list(shadows)
        return cls(
            Payloads.of(shadow.payload for shadow in found),
            np.array([shadow.blocks for shadow in found], np.int64),
            np.array([shadow.code == "RAW_SHADOW" for shadow in found], bool),
        )

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Shadow]:
        rows = zip(self.payloads, self.blocks.tolist(), self.is_raw.tolist(), strict=True)
        for payload, blocks, is_raw in rows:
            yield Shadow("RAW_SHADOW" if is_raw else "HOLE_SHADOW", payload.block, blocks, payload)


def _candidate_blocks(volume: Volume, first_block: int, end_block: int) -> Array:
    """Blocks at which a payload could start whose tag lies in the range, ascending and unique."""
    base = volume.data_offset_bytes
    found: list[Array] = []
    begin, length = base + first_block * BLOCK_BYTES, (end_block - first_block) * BLOCK_BYTES
    for offset, size in volume.device.data_extents(begin, length):
        start = (offset - base) // SECTOR_BYTES * SECTOR_BYTES
        stop = -(-(offset + size - base) // SECTOR_BYTES) * SECTOR_BYTES
        stop = min(stop, end_block * BLOCK_BYTES)
        for at in range(start, stop, _PASS_BYTES):
            buffer = volume.device.read(base + at, min(_PASS_BYTES, stop - at))
            words = np.frombuffer(buffer, "<u4").reshape(-1, SECTOR_BYTES // 4)
            tagged = np.flatnonzero((words[:, -2] == TAG_MAGIC) & (words[:, -1] >= 1))
            sectors = minimal_sectors(words[tagged, -1])
            first = tagged + at // SECTOR_BYTES + 1 - sectors
            fits = (sectors <= PAYLOAD_MAX_SECTORS) & (first >= 0) & (first % BLOCK_SECTORS == 0)
            found.append(first[fits] // BLOCK_SECTORS)
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def find_shadows(volume: Volume, mistagged: frozenset[int] = frozenset()) -> Shadows:
    """All shadows of a volume; reads its whole data area.

    Args:
        mistagged: heads of raw extents that are reported as EXT_MISTAG already.
    """
    return Shadows.of(_shadows(volume, mistagged))


def _shadows(volume: Volume, mistagged: frozenset[int]) -> Iterator[Shadow]:
    end_of_last = 0
    for start in range(0, volume.data_blocks, CHUNK_ENTRIES):
        end = min(start + CHUNK_ENTRIES, volume.data_blocks)
        # a payload that starts in this chunk can have its tag in the next one
        blocks = _candidate_blocks(
            volume, start, min(end + PAYLOAD_MAX_SECTORS // BLOCK_SECTORS + 1, volume.data_blocks)
        )
        blocks = blocks[(blocks >= start) & (blocks < end)]
        if not len(blocks):
            continue
        for block, raw_blocks in _suspects(volume, blocks, start, end):
            if block < end_of_last or block in mistagged:
                continue
            shadow = _shadow(volume, block, raw_blocks)
            if shadow is not None:
                if shadow.code == "HOLE_SHADOW":
                    end_of_last = block + shadow.blocks
                yield shadow


def _suspects(volume: Volume, blocks: Array, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(block, length of the raw extent, or 0 for a hole)`` of the candidates whose entries say raw or hole."""
    stop = min(end + _OVERLAP, volume.data_blocks)
    entries = volume.read_entries(start, stop - start)
    if start == 0:
        entries[0] &= NIBBLE
    at = blocks - start
    following = np.append(entries, np.uint8(0))[at + 1]
    is_hole = (entries[at] == 0) & (following & TAIL == 0)
    suspects = dict.fromkeys(blocks[is_hole].tolist(), 0)
    heads = blocks[entries[at] & TAIL == 0]
    for batch in scan([(start, entries)]):
        raw = batch.select(batch.is_raw & np.isin(batch.head, heads))
        suspects.update(zip(raw.head.tolist(), raw.blocks.tolist(), strict=True))
    yield from sorted(suspects.items())


def raw_shadow(volume: Volume, block: int, blocks: int) -> Shadow | None:
    """The shadow of a raw extent of ``blocks`` blocks, None when nothing shorter than it verifies at its start."""
    payload = verifying_payload(volume, block) if blocks > 0 else None
    if payload is None or payload.payload_sectors >= blocks * BLOCK_SECTORS:
        return None
    return Shadow("RAW_SHADOW", block, blocks, payload)


def _shadow(volume: Volume, block: int, raw_blocks: int) -> Shadow | None:
    if raw_blocks:
        return raw_shadow(volume, block, raw_blocks)
    payload = verifying_payload(volume, block)
    if payload is None:
        return None
    aligned = block // 32 * 32
    count = min(block + payload.blocks + 1, volume.data_blocks) - aligned
    entries = volume.read_entries(aligned, count)[block - aligned :]
    if entries[: payload.blocks].any() or (len(entries) > payload.blocks and entries[payload.blocks] & TAIL):
        return None
    return Shadow("HOLE_SHADOW", block, payload.blocks, payload)
