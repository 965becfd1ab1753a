"""CRC-16/MODBUS over many pages at once, and the CRC-64 of old identities.

A CRC is linear: the remainder of a page follows from those of its parts. Every page is cut
into 64-byte parts whose remainders are computed side by side, two bytes a step, and then
joined in pairs; so one page costs some forty numpy calls and a thousand pages hardly more
a page than their memory traffic.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer

Words: TypeAlias = npt.NDArray[np.uint16]

_PART_WORDS = 32
_LONGEST_BYTES = 8192
_FEW = 12
"""Rows up to which single look-ups are faster than parts side by side."""
_ALL_ONES_64 = 0xFFFFFFFFFFFFFFFF
_CRC16_POLYNOMIAL = 0xA001  # 0x8005 reflected
_CRC64_POLYNOMIAL = 0x42F0E1EBA9EA3693


@cache
def _word_table() -> Words:
    """Remainder after two more bytes, by state xor those bytes (low byte first)."""
    state = np.arange(0x10000, dtype=np.uint32)
    for _ in range(16):
        state = np.where(state & 1, (state >> 1) ^ _CRC16_POLYNOMIAL, state >> 1)
    return state.astype(np.uint16)


@cache
def _skip_table(level: int) -> Words:
    """Remainder after ``64 << level`` zero bytes, by state."""
    if level:
        half = _skip_table(level - 1)
        return half[half]
    table, state = _word_table(), np.arange(0x10000, dtype=np.uint16)
    for _ in range(_PART_WORDS):
        state = table[state]
    return state


@cache
def _byte_tables() -> Words:
    """What a byte adds to the remainder, by how many bytes follow it (a row) and its value."""
    steps = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        steps = np.where(steps & 1, (steps >> 1) ^ _CRC16_POLYNOMIAL, steps >> 1).astype(np.uint16)
    tables = np.empty((_LONGEST_BYTES, 256), np.uint16)
    tables[0] = steps
    for following in range(1, _LONGEST_BYTES):
        before = tables[following - 1]
        tables[following] = (before >> 8) ^ steps[before & 0xFF]
    return tables


def _crc16_few(pages: npt.NDArray[np.uint8]) -> Words:
    """:func:`crc16_pages` of a few rows: one look-up for each byte, and all of them joined at once."""
    length = pages.shape[1]
    tables = _byte_tables()
    start = tables[length - 1, 0xFF] ^ tables[length - 2, 0xFF]  # the remainder begins as 0xFFFF
    rows = np.arange((length - 1) << 8, -1, -256, dtype=np.int64)
    found: Words = np.bitwise_xor.reduce(tables.reshape(-1).take(rows + pages), axis=1) ^ start
    return found


def crc16_pages(pages: npt.NDArray[np.uint8]) -> Words:
    """CRC-16/MODBUS of each row of a 2-D byte array whose rows are ``64 << n`` bytes long."""
    count, length = pages.shape
    if count <= _FEW and length <= _LONGEST_BYTES:
        return _crc16_few(pages)
    words = np.ascontiguousarray(pages).view("<u2").reshape(count, -1, _PART_WORDS)
    table = _word_table()
    state = np.zeros(words.shape[:2], np.uint16)
    state[:, 0] = 0xFFFF
    for column in range(_PART_WORDS):
        state = table[state ^ words[:, :, column]]
    for level in range((length // (2 * _PART_WORDS)).bit_length() - 1):
        state = _skip_table(level)[state[:, 0::2]] ^ state[:, 1::2]
    return state[:, 0]


def crc16(data: Buffer) -> int:
    """CRC-16/MODBUS of ``64 << n`` bytes (a block, or two)."""
    return int(crc16_pages(np.frombuffer(data, np.uint8)[np.newaxis])[0])


def crc64_we(data: Buffer) -> int:
    """CRC-64/WE; only identities of 176 bytes have one, so bit by bit is fast enough."""
    remainder = _ALL_ONES_64
    for byte in bytes(data):
        remainder ^= byte << 56
        for _ in range(8):
            top = remainder >> 63
            remainder = (remainder << 1) & _ALL_ONES_64
            if top:
                remainder ^= _CRC64_POLYNOMIAL
    return remainder ^ _ALL_ONES_64
