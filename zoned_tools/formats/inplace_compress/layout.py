"""What dm-inplace-compress stores: super block, sizes, the payload's tag.

Source: drivers/md/dm-inplace-compress.[ch] of the "v5" series (2017), which never reached
mainline. Positions below count from the start of the layout on its device::

    block 0            super block (25 bytes used, the rest is undefined)
    blocks 1 .. M      bitmap: 5 bits for every data block
    blocks 1+M ..      data blocks 0 .. D-1
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

NAME = "inplace-compress"
TARGET_TYPE = "inplacecompress"
"""The target's name in a device-mapper table."""

MAGIC = 0x106526C206506C09
SECTOR_BYTES = 512
BLOCK_BYTES = 4096
BLOCK_SECTORS = BLOCK_BYTES // SECTOR_BYTES

SUPER_BLOCK_BYTES = 25
VERSION_1_SUPER_BLOCK_BYTES = 33
"""The 2013 series (target ``insitu-comp``), recognised to be refused by name."""

ENTRY_BITS = 5
TAIL = 0x10
"""Entry bit: the block continues the extent of the block before it."""

NIBBLE = 0x0F
"""Entry bits: sectors of payload accounted to the block, 0 to 8."""

BITS_PER_META_BLOCK = 8 * BLOCK_BYTES
WORD_BYTES = 4

TAG_MAGIC = 0xFACEECAF
TAG_BYTES = 8

WINDOWS = (2, 32)
"""Alignment unit of requests in blocks, twice the host's page: 4 KiB and 64 KiB pages."""

WINDOW_MAX_BLOCKS = 32
EXTENT_MAX_BLOCKS = 8191
"""The driver counts an extent's sectors in 16 bits; a payload of a longer one is never decoded."""


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """The 25 defined bytes of block 0."""

    magic: int
    meta_blocks: int
    data_blocks: int
    comp_alg: int

    _FORMAT: ClassVar = struct.Struct("<QQQB")

    @classmethod
    def parse(cls, raw: bytes) -> SuperBlock:
        """Decode the first 25 bytes of ``raw``."""
        return cls(*cls._FORMAT.unpack_from(raw))

    def pack(self) -> bytes:
        """The 25 bytes as stored."""
        return self._FORMAT.pack(self.magic, self.meta_blocks, self.data_blocks, self.comp_alg)


@dataclass(frozen=True, slots=True)
class Version1SuperBlock:
    """The 33 defined bytes of block 0 of the 2013 series."""

    magic: int
    version: int
    meta_blocks: int
    data_blocks: int
    comp_alg: int

    _FORMAT: ClassVar = struct.Struct("<QQQQB")

    @classmethod
    def parse(cls, raw: bytes) -> Version1SuperBlock:
        """Decode the first 33 bytes of ``raw``."""
        return cls(*cls._FORMAT.unpack_from(raw))


def meta_blocks_for(data_blocks: int) -> int:
    """Blocks of bitmap that ``data_blocks`` entries need."""
    return -(-ENTRY_BITS * data_blocks // BITS_PER_META_BLOCK)


def bitmap_bytes_for(data_blocks: int) -> int:
    """Bytes of bitmap in use: whole 32-bit words."""
    return WORD_BYTES * -(-ENTRY_BITS * data_blocks // (8 * WORD_BYTES))


def max_data_blocks(device_blocks: int) -> int:
    """The most data blocks that fit a device of ``device_blocks`` blocks; 0 when none does."""
    low, high = 0, max(0, device_blocks - 2)
    while low < high:
        middle = (low + high + 1) // 2
        if 1 + meta_blocks_for(middle) + middle <= device_blocks:
            low = middle
        else:
            high = middle - 1
    return low


def solved_sizes(device_blocks: int) -> tuple[int, int]:
    """``(meta_blocks, data_blocks)`` that the 2016 series computed from the device's size."""
    rest = max(0, device_blocks - 1)
    quotient, remainder = divmod(rest, 32773)
    whole, part = divmod(remainder, 6554)
    return 5 * quotient + whole + 1, 32768 * quotient + 6553 * whole + part - 1


def sizes_fit(meta_blocks: int, data_blocks: int, device_blocks: int) -> bool:
    """Whether the two sizes of a super block belong together on this device."""
    if data_blocks <= 0:
        return False
    return meta_blocks == meta_blocks_for(data_blocks) or (meta_blocks, data_blocks) == solved_sizes(device_blocks)


def payload_sectors_for(stream_bytes: int, extent_blocks: int) -> int:
    """Sectors that a stream occupies with its tag; ``8 * extent_blocks`` when the extent is stored raw."""
    sectors = -(-(stream_bytes + TAG_BYTES) // SECTOR_BYTES)
    return min(sectors, BLOCK_SECTORS * extent_blocks)
