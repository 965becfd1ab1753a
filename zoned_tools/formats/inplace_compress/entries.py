"""The bitmap's 5-bit entries as numpy arrays, in bulk.

Eight entries share five bytes, least significant bits first, without padding anywhere.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from zoned_tools.formats.inplace_compress.layout import BLOCK_SECTORS, NIBBLE, TAIL, WORD_BYTES

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

GROUP_ENTRIES = 8
GROUP_BYTES = 5
"""The smallest number of bytes that holds whole entries."""

UNKNOWN = 0x2F
"""Stands for an entry of which a bit cannot be read: a head with an impossible nibble, and a bit that no entry has."""

ALIGNED_ENTRIES = 32
ALIGNED_BYTES = 20
"""The smallest number of bytes that holds whole entries and whole 32-bit words."""


def swap_words(raw: bytes) -> bytes:
    """Every aligned 4 bytes reversed: what a host of the other byte order stores. Length: a multiple of 4."""
    return np.frombuffer(raw, f"<u{WORD_BYTES}").byteswap().tobytes()


def unpack_entries(raw: bytes) -> Array:
    """Entries (uint8, 0 to 31) of packed bytes; shape ``(len(raw) * 8 / 5,)``, length a multiple of 5."""
    columns = np.frombuffer(raw, np.uint8).reshape(-1, GROUP_BYTES)
    a, b, c, d, e = (np.ascontiguousarray(columns[:, i]) for i in range(GROUP_BYTES))
    entries = np.empty((len(columns), GROUP_ENTRIES), np.uint8)
    entries[:, 0] = a & 31
    entries[:, 1] = (a >> 5) | ((b & 3) << 3)
    entries[:, 2] = (b >> 2) & 31
    entries[:, 3] = (b >> 7) | ((c & 15) << 1)
    entries[:, 4] = (c >> 4) | ((d & 1) << 4)
    entries[:, 5] = (d >> 1) & 31
    entries[:, 6] = (d >> 6) | ((e & 7) << 2)
    entries[:, 7] = e >> 3
    return entries.reshape(-1)


def mark_unknown(entries: Array, first: int, end: int) -> None:
    """Make the entries from ``first`` to before ``end`` one unknown extent; parts outside the array are left out."""
    first, end = max(first, 0), min(end, len(entries))
    if first < end:
        entries[first] = UNKNOWN
        entries[first + 1 : end] = UNKNOWN | TAIL


def is_unknown(entries: Array) -> Array:
    """Mask of the entries that :func:`mark_unknown` marked."""
    return np.asarray(entries > (NIBBLE | TAIL))


def starts_unknown(entries: Array) -> bool:
    """Whether the first entry, if there is one, is unknown."""
    return bool(is_unknown(entries[:1]).any())


def pack_entries(entries: Array) -> bytes:
    """Packed bytes of entries (uint8, 0 to 31) whose number is a multiple of 8."""
    columns = entries.reshape(-1, GROUP_ENTRIES)
    e0, e1, e2, e3, e4, e5, e6, e7 = (np.ascontiguousarray(columns[:, i]) for i in range(GROUP_ENTRIES))
    packed = np.empty((len(columns), GROUP_BYTES), np.uint8)
    packed[:, 0] = e0 | (e1 << 5)
    packed[:, 1] = (e1 >> 3) | (e2 << 2) | (e3 << 7)
    packed[:, 2] = (e3 >> 1) | (e4 << 4)
    packed[:, 3] = (e4 >> 4) | (e5 << 1) | (e6 << 6)
    packed[:, 4] = (e6 >> 2) | (e7 << 3)
    return packed.tobytes()


def extent_entries(blocks: int, payload_sectors: int) -> Array:
    """Entries of one extent: the payload's sectors filled in greedily from the head."""
    number = np.arange(blocks) * BLOCK_SECTORS
    entries = np.clip(payload_sectors - number, 0, BLOCK_SECTORS).astype(np.uint8)
    entries[1:] |= TAIL
    return entries


def fill_extents(heads: Array, blocks: Array, payload_sectors: Array, total: int, origin: int = 0) -> Array:
    """Entries of blocks ``origin .. origin + total``: the given extents, holes elsewhere."""
    entries = np.zeros(total, np.uint8)
    if not len(heads):
        return entries
    inside = np.arange(int(blocks.sum())) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    left = np.repeat(payload_sectors, blocks) - inside * BLOCK_SECTORS
    values = np.clip(left, 0, BLOCK_SECTORS).astype(np.uint8)
    values[inside > 0] |= TAIL
    entries[np.repeat(heads - origin, blocks) + inside] = values
    return entries
