"""Verifying the CRC-32C of many super blocks with one checksum over all their bytes.

One call per 4 KiB block costs as much as the checksum itself. A CRC is linear over GF(2):
the checksum of a run of blocks is the exclusive or of what every block adds to it, and what
a sound block adds depends on its stored checksum alone, if the rest of its 32-byte field is
zero. So the checksum that a run of sound blocks has to have follows from their stored ones
by table lookups. A single damaged block always changes it; two or more hide from it as
seldom as one does from its own checksum (once in 2^32). Only a run that does not match has
to be looked at block by block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.btrfs.layout import CSUM_BYTES, SUPER_BYTES

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer

_ALL_ONES = 0xFFFFFFFF
_BODY_BYTES = SUPER_BYTES - CSUM_BYTES

Words: TypeAlias = npt.NDArray[np.uint32]


def _advance(state: int, data: Buffer) -> int:
    """The CRC register after ``data``, without the inversions at both ends."""
    from crc32c import crc32c  # its import is slow, and many commands need no checksum

    return crc32c(data, state ^ _ALL_ONES) ^ _ALL_ONES


def _lookup_tables(basis: Words) -> Words:
    """``[..., 4, 256]`` tables of linear maps whose images of the 32 single bits are ``basis[..., 32]``."""
    bits = basis.reshape(*basis.shape[:-1], 4, 8)
    tables = np.zeros((*bits.shape[:-1], 256), np.uint32)
    for bit in range(8):
        tables[..., 1 << bit : 2 << bit] = tables[..., : 1 << bit] ^ bits[..., bit : bit + 1]
    return tables


def _apply(tables: Words, values: Words) -> Words:
    """The linear map of one set of tables, of every value."""
    result: Words = (
        tables[0][values & 0xFF]
        ^ tables[1][values >> 8 & 0xFF]
        ^ tables[2][values >> 16 & 0xFF]
        ^ tables[3][values >> 24]
    )
    return result


def _repeat_advance(last: Words, count: int) -> tuple[Words, Words]:
    """``last`` moved on by 0 to ``count - 1`` blocks, and the map of ``count`` blocks.

    The last row is ``last`` itself. ``count`` is a power of two; the rows double in every round.
    """
    single_bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    moves = np.array([_advance(int(bit), bytes(SUPER_BYTES)) for bit in single_bits], np.uint32)
    rows = last[np.newaxis]
    while len(rows) < count:
        tables = _lookup_tables(moves)
        rows = np.concatenate([_apply(tables, rows), rows])
        moves = _apply(tables, moves)
    return rows, moves


class SoundRuns:
    """Tells whether all super blocks of a run of fixed length have a good CRC-32C.

    Args:
        blocks: length of the run, a power of two.
    """

    def __init__(self, blocks: int) -> None:
        zeroes = bytes(CSUM_BYTES - 4 + _BODY_BYTES)
        # what one set bit of the stored checksum adds, as a part of the block and as its body's checksum
        stored = [_advance(0, (1 << bit).to_bytes(4, "little") + zeroes) ^ (1 << bit) for bit in range(32)]
        body = _advance(_ALL_ONES, bytes(_BODY_BYTES)) ^ _ALL_ONES
        rows, moves = _repeat_advance(np.array([*stored, body], np.uint32), blocks)
        self._tables = _lookup_tables(np.ascontiguousarray(rows[:, :32])).ravel()
        self._first = np.arange(blocks * 4, dtype=np.intp) * 256
        start = _apply(_lookup_tables(moves), np.array([_ALL_ONES], np.uint32))[0]
        self._constant = int(np.bitwise_xor.reduce(rows[:, 32]) ^ start) ^ _ALL_ONES

    def sound(self, fields: npt.NDArray[np.uint64], checksums: Words) -> npt.NDArray[np.bool_]:
        """Which runs have only sound blocks; False also when a checksum field has more than four bytes in use.

        Args:
            fields: ``[runs, blocks, 4]`` 64-bit words: the checksum field of every block.
            checksums: CRC-32C of all bytes of every run.
        """
        used_more = (fields[:, :, 0] >> np.uint64(32)).any(axis=1) | fields[:, :, 1:].any(axis=(1, 2))
        stored = fields[:, :, 0].astype("<u4").view(np.uint8)
        wanted = np.bitwise_xor.reduce(self._tables[self._first + stored], axis=1) ^ np.uint32(self._constant)
        result: npt.NDArray[np.bool_] = (wanted == checksums) & ~used_more
        return result


@lru_cache(maxsize=1)
def sound_runs(blocks: int) -> SoundRuns:
    """The tables for runs of ``blocks``, made once (a millisecond or two)."""
    return SoundRuns(blocks)
