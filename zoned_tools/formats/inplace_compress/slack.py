"""What bits behind the last entry of the bitmap are: dirt, or the entries of blocks that the super block left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress import layout, verify
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, ENTRY_BITS, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.payload import read_sectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.open import Volume


class Meaning(Enum):
    """Of the bits behind the last entry."""

    DIRT = auto()
    ENTRIES = auto()
    DOUBTFUL = auto()


@dataclass(frozen=True, slots=True)
class Slack:
    """What the bits mean; ``volume`` has the blocks whose entries they are."""

    meaning: Meaning
    volume: Volume


def judge_slack(volume: Volume, known_blocks: int | None) -> Slack:
    """Judge the bits behind the last entry, of which some are set.

    They are entries when the user knows that size (``known_blocks``), when a payload of theirs
    verifies, or when they make the largest volume that the device holds. They are doubtful
    when they only may account for raw data, which nothing verifies.
    """
    if known_blocks == volume.data_blocks:
        return Slack(Meaning.DIRT, volume)
    likely = (known_blocks, layout.max_data_blocks(volume.device_blocks))
    doubtful = False
    for data_blocks in sorted(_sizes(volume), key=lambda blocks: (blocks not in likely, blocks)):
        grown = replace(volume, data_blocks=data_blocks)
        extents = _extents_behind(grown, volume.data_blocks)
        if extents is None:
            continue
        judged = list(verify.judge(grown, extents))
        if any(np.isin(part.rule, verify.UNREADABLE).any() for part in judged):
            continue
        if data_blocks in likely or any(part.good_compressed for part in judged):
            return Slack(Meaning.ENTRIES, grown)
        doubtful |= _has_content(grown, volume.data_blocks)
    return Slack(Meaning.DOUBTFUL if doubtful else Meaning.DIRT, volume)


def _sizes(volume: Volume) -> Iterator[int]:
    """Numbers of data blocks that fit, and whose entries take all the bits that are set."""
    room = 8 * layout.bitmap_bytes_for(volume.data_blocks) // ENTRY_BITS
    least = volume.data_blocks + -(-volume.slack_bits().bit_length() // ENTRY_BITS)
    for data_blocks in range(least, room + 1):
        fits = 1 + volume.meta_blocks + data_blocks <= volume.device_blocks
        if fits and layout.sizes_fit(volume.meta_blocks, data_blocks, volume.device_blocks):
            yield data_blocks


def _extents_behind(volume: Volume, first_block: int) -> Extents | None:
    """The extents from that of ``first_block`` on; None when their entries cannot be meant."""
    bitmap = Bitmap(volume, SECTOR_BYTES)
    extents = bitmap.extents(first_block, volume.data_blocks - first_block)
    if extents.bad_nibble.any() or extents.uneven.any() or (extents.payload == 0).any():
        return None
    return extents if (extents.blocks <= layout.WINDOW_MAX_BLOCKS).all() else None


def _has_content(volume: Volume, first_block: int) -> bool:
    length = (volume.data_blocks - first_block) * BLOCK_BYTES
    content, unread = read_sectors(volume, first_block * BLOCK_BYTES, length)
    return any(content) or len(unread) > 0
