"""Metadata blocks that cannot be read: which ones, found without reading where the device knows, else by reading.

What is behind such a block is never decoded, whatever an image holds there.

Source: sections 1.3 and 1.4 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import BAD_SECTOR, known_bad_areas, salvage_into
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry

_PIECE_BLOCKS = (4 << 20) // BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Media:
    """Unreadable blocks of the metadata.

    Attributes:
        blocks: absolute blocks, ascending.
        letters: code point of ddrescue's letter for each.
    """

    blocks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    letters: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __bool__(self) -> bool:
        return bool(len(self.blocks))

    def mask(self, block: int, count: int) -> BoolArray:
        """Which of ``count`` blocks from absolute block ``block`` on cannot be read."""
        mask = np.zeros(count, np.bool_)
        mask[self._inside(block, count) - block] = True
        return mask

    def _inside(self, block: int, count: int) -> IntArray:
        first, end = np.searchsorted(self.blocks, (block, block + count))
        return self.blocks[first:end]

    def touches(self, block: int, count: int) -> bool:
        """Whether one of them cannot be read."""
        return bool(len(self._inside(block, count)))

    def letter(self, block: int) -> str:
        """ddrescue's letter for one that cannot be read."""
        return chr(self.letters[np.searchsorted(self.blocks, block)])


def known_media(devices: tuple[Device, ...], geometry: TargetGeometry, ranges: Iterable[tuple[int, int]]) -> Media:
    """What the devices know of some ranges, ``(absolute block, blocks)``, without reading."""
    return _media(
        (first, known_bad_areas(device, at, length)) for first, device, at, length in _placed(devices, geometry, ranges)
    )


def read_media(devices: tuple[Device, ...], geometry: TargetGeometry, ranges: Iterable[tuple[int, int]]) -> Media:
    """What of some ranges cannot be read, found by reading them all.

    Raises:
        DeviceError: a read failed otherwise than at the medium.
    """
    buffer = memoryview(bytearray(_PIECE_BLOCKS * BLOCK_BYTES))
    pieces = (
        (block, min(_PIECE_BLOCKS, first + count - block))
        for first, count in ranges
        for block in range(first, first + count, _PIECE_BLOCKS)
    )
    return _media(
        (first, salvage_into(device, at, buffer[:length]))
        for first, device, at, length in _placed(devices, geometry, pieces)
    )


def _placed(
    devices: tuple[Device, ...], geometry: TargetGeometry, ranges: Iterable[tuple[int, int]]
) -> Iterable[tuple[int, Device, int, int]]:
    """``(absolute block of the device's first byte, device, byte offset, bytes)`` of ranges inside one device."""
    for block, count in ranges:
        index, at = geometry.locate(block)
        length = min(count * BLOCK_BYTES, devices[index].geometry.size_bytes - at)
        if length > 0:
            yield block - at // BLOCK_BYTES, devices[index], at, length


def _media(found: Iterable[tuple[int, BadAreas]]) -> Media:
    blocks: list[IntArray] = [np.zeros(0, np.int64)]
    letters: list[npt.NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
    for origin, areas in found:
        for start, end, letter in areas:
            numbers = np.arange(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))
            blocks.append(origin + numbers)
            letters.append(np.full(len(numbers), ord(letter), np.uint8))
    every, kinds = np.concatenate(blocks), np.concatenate(letters)
    numbers, first = np.unique(every, return_index=True)
    return Media(numbers, kinds[first])


def letter_of(media: Media, block: int) -> str:
    """ddrescue's letter for a block; that of a bad sector where nobody knows."""
    return media.letter(block) if media.touches(block, 1) else BAD_SECTOR
