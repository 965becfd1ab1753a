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


def crc16_pages(pages: npt.NDArray[np.uint8]) -> Words:
    """CRC-16/MODBUS of each row of a 2-D byte array whose rows are ``64 << n`` bytes long."""
    count, length = pages.shape
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
