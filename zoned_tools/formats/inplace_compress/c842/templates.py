"""Tables of the 842 templates, and the CRC.

A group of 8 output bytes is four units of 2 bytes. For every template code and unit the
tables say where the unit comes from: :data:`KIND`, the bits of its argument inside the
64 bits that follow the code (:data:`SHIFT`, :data:`MASK`), and for an index the unit
inside the value (:data:`SUB_UNIT`), the value's size (:data:`VALUE_UNITS`) and its ring
(:data:`RING_UNITS`). One table lookup serves decoder and encoder.
"""

from __future__ import annotations

import zlib
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

CODE_BITS = 5
REPEAT, ZEROS, SHORT_DATA, END = 0x1B, 0x1C, 0x1D, 0x1E
REPEAT_BITS = 6
REPEAT_MAX = 64
SHORT_COUNT_BITS = 3
CRC_BITS = 32
GROUP_BYTES = 8
GROUP_UNITS = 4

LITERAL, INDEX2, INDEX4, INDEX8, PREVIOUS_GROUP = range(5)

INDEX_BITS = {INDEX2: 8, INDEX4: 9, INDEX8: 8}
RING = {INDEX2: 256, INDEX4: 1024, INDEX8: 1024}
"""Units (2 bytes) of output that the indexes of a size can reach."""

TEMPLATES: dict[int, tuple[str, ...]] = {
    0x00: ("D8",),
    0x01: ("D4", "D2", "I2"),
    0x02: ("D4", "I2", "D2"),
    0x03: ("D4", "I2", "I2"),
    0x04: ("D4", "I4"),
    0x05: ("D2", "I2", "D4"),
    0x06: ("D2", "I2", "D2", "I2"),
    0x07: ("D2", "I2", "I2", "D2"),
    0x08: ("D2", "I2", "I2", "I2"),
    0x09: ("D2", "I2", "I4"),
    0x0A: ("I2", "D2", "D4"),
    0x0B: ("I2", "D4", "I2"),
    0x0C: ("I2", "D2", "I2", "D2"),
    0x0D: ("I2", "D2", "I2", "I2"),
    0x0E: ("I2", "D2", "I4"),
    0x0F: ("I2", "I2", "D4"),
    0x10: ("I2", "I2", "D2", "I2"),
    0x11: ("I2", "I2", "I2", "D2"),
    0x12: ("I2", "I2", "I2", "I2"),
    0x13: ("I2", "I2", "I4"),
    0x14: ("I4", "D4"),
    0x15: ("I4", "D2", "I2"),
    0x16: ("I4", "I2", "D2"),
    0x17: ("I4", "I2", "I2"),
    0x18: ("I4", "I4"),
    0x19: ("I8",),
}

PREFERENCE = bytes.fromhex("191817131216150e0911100d0814040f0c0b0706030a05020100")
"""The order in which an encoder tries the templates."""


class _Tables:
    """Filled once at import: 32 codes by 4 units."""

    def __init__(self) -> None:
        shape = (32, GROUP_UNITS)
        self.kind = np.zeros(shape, np.uint8)
        self.shift = np.zeros(shape, np.uint64)
        self.mask = np.zeros(shape, np.uint64)
        self.sub_unit = np.zeros(shape, np.int64)
        self.value_units = np.ones(shape, np.int64)
        self.ring_units = np.full(shape, RING[INDEX2], np.int64)
        self.token_bits = np.zeros(32, np.uint8)
        for code, arguments in TEMPLATES.items():
            self._add(code, arguments)
        self.kind[REPEAT] = PREVIOUS_GROUP
        self.token_bits[REPEAT] = CODE_BITS + REPEAT_BITS
        self.token_bits[ZEROS] = CODE_BITS

    def _add(self, code: int, arguments: tuple[str, ...]) -> None:
        bit = unit = 0
        for argument in arguments:
            units = int(argument[1]) // 2
            if argument[0] == "D":
                for _ in range(units):
                    self._set(code, unit, LITERAL, bit, 16)
                    bit += 16
                    unit += 1
                continue
            kind = {1: INDEX2, 2: INDEX4, 4: INDEX8}[units]
            for sub in range(units):
                self._set(code, unit, kind, bit, INDEX_BITS[kind])
                self.sub_unit[code, unit] = sub
                self.value_units[code, unit] = units
                self.ring_units[code, unit] = RING[kind]
                unit += 1
            bit += INDEX_BITS[kind]
        self.token_bits[code] = CODE_BITS + bit

    def _set(self, code: int, unit: int, kind: int, bit: int, width: int) -> None:
        self.kind[code, unit] = kind
        self.shift[code, unit] = 64 - bit - width
        self.mask[code, unit] = (1 << width) - 1


_TABLES = _Tables()
KIND: Array = _TABLES.kind
SHIFT: Array = _TABLES.shift
MASK: Array = _TABLES.mask
SUB_UNIT: Array = _TABLES.sub_unit
VALUE_UNITS: Array = _TABLES.value_units
RING_UNITS: Array = _TABLES.ring_units
TOKEN_BITS: Array = _TABLES.token_bits
"""Bits of a code and its arguments; 0 for the codes that end the run of ordinary tokens."""

_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def crc32_msb(data: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, most significant bit first, initial value 0, no final xor.

    It is zlib's reflected CRC over bytes whose bits are reversed, reversed again.
    """
    reflected = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED_BITS), "big")
