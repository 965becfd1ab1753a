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
    SECTOR_BYTES,
    TAG_MAGIC,
    TAIL,
)
from zoned_tools.formats.inplace_compress.open import CHUNK_ENTRIES, Volume
from zoned_tools.formats.inplace_compress.payload import read_sectors
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


def tagged_blocks(volume: Volume) -> Array:
    """Blocks at which a payload could start, by the tags alone (int64), ascending; reads the whole data area."""
    base = volume.data_offset_bytes
    found: list[Array] = []
    length_bytes = volume.data_blocks * BLOCK_BYTES
    for offset, size in volume.device.data_extents(base, length_bytes):
        start = (offset - base) // SECTOR_BYTES * SECTOR_BYTES
        stop = -(-(offset + size - base) // SECTOR_BYTES) * SECTOR_BYTES
        stop = min(stop, length_bytes)
        for at in range(start, stop, _PASS_BYTES):
            buffer, _ = read_sectors(volume, at, min(_PASS_BYTES, stop - at))
            words = np.frombuffer(buffer, "<u4").reshape(-1, SECTOR_BYTES // 4)
            tagged = np.flatnonzero((words[:, -2] == TAG_MAGIC) & (words[:, -1] >= 1))
            sectors = minimal_sectors(words[tagged, -1])
            first = tagged + at // SECTOR_BYTES + 1 - sectors
            fits = (sectors <= PAYLOAD_MAX_SECTORS) & (first >= 0) & (first % BLOCK_SECTORS == 0)
            found.append(first[fits] // BLOCK_SECTORS)
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def find_shadows(
    volume: Volume, tagged: Array, mistagged: frozenset[int] = frozenset(), known: Payloads | None = None
) -> Shadows:
    """All shadows of a volume.

    Args:
        tagged: where payloads could start (:func:`tagged_blocks`), whatever the bitmap says.
        mistagged: heads of raw extents that are reported as EXT_MISTAG already.
        known: payloads that verify; they are not read again.
    """
    return Shadows.of(_shadows(volume, tagged, mistagged, known))


def _shadows(volume: Volume, tagged: Array, mistagged: frozenset[int], known: Payloads | None) -> Iterator[Shadow]:
    end_of_last = 0
    for start in range(0, volume.data_blocks, CHUNK_ENTRIES):
        end = min(start + CHUNK_ENTRIES, volume.data_blocks)
        first, last = np.searchsorted(tagged, (start, end))
        blocks = tagged[first:last]
        if not len(blocks):
            continue
        for block, raw_blocks in _suspects(volume, blocks, start, end):
            if block < end_of_last or block in mistagged:
                continue
            payload = (known.at(block) if known is not None else None) or verifying_payload(volume, block)
            shadow = _shadow(volume, raw_blocks, payload) if payload is not None else None
            if shadow is not None:
                if shadow.code == "HOLE_SHADOW":
                    end_of_last = block + shadow.blocks
                yield shadow


def _suspects(volume: Volume, blocks: Array, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(block, length of the raw extent, or 0 for a hole)`` of the candidates whose entries say raw or hole."""
    stop = min(end + _OVERLAP, volume.data_blocks)
    entries = volume.read_entries(start, stop - start)
    if start == 0:
        entries[0] &= ~TAIL & 0xFF
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
    return _shadow(volume, blocks, payload) if payload is not None else None


def _shadow(volume: Volume, raw_blocks: int, payload: VerifyingPayload) -> Shadow | None:
    """What a payload is the shadow of: a raw extent of ``raw_blocks`` blocks, or for 0 a hole."""
    block = payload.block
    if raw_blocks:
        is_shorter = payload.payload_sectors < raw_blocks * BLOCK_SECTORS
        return Shadow("RAW_SHADOW", block, raw_blocks, payload) if is_shorter else None
    aligned = block // 32 * 32
    count = min(block + payload.blocks + 1, volume.data_blocks) - aligned
    entries = volume.read_entries(aligned, count)[block - aligned :]
    if entries[: payload.blocks].any() or (len(entries) > payload.blocks and entries[payload.blocks] & TAIL):
        return None
    return Shadow("HOLE_SHADOW", block, payload.blocks, payload)
