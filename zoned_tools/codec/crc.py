"""Checksums of the layouts, all from kept libraries."""

from __future__ import annotations

import zlib

_ALL_ONES = 0xFFFFFFFF


def crc32_le(seed: int, data: bytes | bytearray | memoryview) -> int:
    """CRC-32 (reflected, 0xEDB88320) from ``seed`` without the final inversion, as the kernel's ``crc32_le``."""
    return zlib.crc32(data, (seed & _ALL_ONES) ^ _ALL_ONES) ^ _ALL_ONES


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Standard CRC-32C (Castagnoli, initial value and final xor all ones)."""
    import crc32c as library  # its import costs as much as a whole command's start

    return library.crc32c(data)


def crc32c_raw(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C without the final inversion."""
    return crc32c(data) ^ _ALL_ONES
