"""What is stored in blocks whose validity bits a decision is about.

Bits alone do not say whether anything would be lost: blocks that are all zero read the same without their bits.
Reading ends at the first block that is not zero, so what holds data costs one small read a zone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.badareas import salvage_into
from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.open import TargetBlocks, Words

Blocks = npt.NDArray[np.uint64]
"""Content: shape (blocks, 512)."""

_PIECE_BLOCKS = 256
_BLOCK_WORDS = BLOCK_BYTES // 8


def unpacked(words: Words, zone_blocks: int) -> BoolArray:
    """Validity bits as booleans: shape (zones, words) to (zones, blocks of a zone)."""
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=zone_blocks, bitorder="little")
    mask: BoolArray = bits.view(np.bool_)
    return mask


def read_masked(blocks: TargetBlocks, zone: int, mask: BoolArray) -> Iterator[tuple[IntArray, Blocks]]:
    """``(block numbers in the zone, their content)`` of the blocks in ``mask``, in small pieces.

    Raises:
        DeviceError: a block cannot be read.
    """
    first_block = zone * blocks.geometry.zone_blocks
    for start, end in mask_runs(mask).tolist():
        for first in range(start, end, _PIECE_BLOCKS):
            count = min(_PIECE_BLOCKS, end - first)
            content = np.frombuffer(blocks.read(first_block + first, count), "<u8").reshape(count, _BLOCK_WORDS)
            yield np.arange(first, first + count), content


def holds_data(blocks: TargetBlocks, zone: int, mask: BoolArray) -> bool:
    """Whether a block in ``mask`` of a zone is not all zero; what cannot be read counts as data."""
    if blocks.geometry.offline[zone]:
        return True
    try:
        return any(bool(content.any()) for _, content in read_masked(blocks, zone, mask))
    except DeviceError:
        return True


def stored_blocks(blocks: TargetBlocks, zone: int, start: int, end: int) -> BoolArray:
    """Which blocks of a range of a zone are not all zero, or cannot be read: shape (end - start,)."""
    mask = np.zeros(end - start, np.bool_)
    for first in range(start, end, _PIECE_BLOCKS):
        count = min(_PIECE_BLOCKS, end - first)
        content = np.empty((count, _BLOCK_WORDS), "<u8")
        index, offset_bytes = blocks.geometry.locate(zone * blocks.geometry.zone_blocks + first)
        bad = salvage_into(blocks.devices[index], offset_bytes, content.data.cast("B"))
        unreadable = bad.touches(offset_bytes + np.arange(count) * BLOCK_BYTES, BLOCK_BYTES)
        mask[first - start : first - start + count] = content.any(axis=1) | unreadable
    return mask
