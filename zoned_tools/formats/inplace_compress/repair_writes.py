"""Turns decisions about a volume into steps: data, flush, bitmap, flush, super block, flush.

After an interruption anywhere the volume can be checked and repaired again: what is not written
yet still stands as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.formats.inplace_compress.compressors import Compressor, decode_many
from zoned_tools.formats.inplace_compress.entries import swap_words
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.rejection import Rejected

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.inplace_compress.bitmap import Bitmap
    from zoned_tools.formats.inplace_compress.open import Volume

_SWAP_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Changes:
    """What a repair decided.

    Attributes:
        volume: with the sizes and the compressor that the super block shall name.
        stored: the super block as it is.
        swaps_words: reverse the words of the whole bitmap.
        decoded: ``(block, blocks)`` of raw extents whose decoded content is stored in their place.
        bitmap: changed entries.
    """

    volume: Volume
    stored: SuperBlock
    swaps_words: bool = False
    decoded: list[tuple[int, int]] = field(default_factory=list)
    bitmap: Bitmap | None = None


def write_changes(plan: Plan, changes: Changes) -> None:
    """Add the steps, in an order that a power cut does not harm."""
    _write_decoded(plan, changes)
    if changes.swaps_words:
        _swap_words(plan, changes.volume)
    if changes.bitmap is not None:
        _write_bitmap(plan, changes.volume, changes.bitmap)
    if changes.volume.super_block != changes.stored:
        _write_super_block(plan, changes.volume)


def _write_decoded(plan: Plan, changes: Changes) -> None:
    volume = changes.volume
    for block, blocks in changes.decoded:
        size, offset = blocks * BLOCK_BYTES, volume.block_offset_bytes(block)
        raw = volume.device.read(offset, size)
        length = int.from_bytes(raw[-4:], "little")
        outcome = decode_many(volume.compressor or Compressor.C842, [raw[:length]], [size])[0]
        if not isinstance(outcome, Rejected) and len(outcome) == size:
            plan.write(0, offset, outcome, f"decoded content of block {block}")
    if plan.steps:
        plan.flush(0)


def _swap_words(plan: Plan, volume: Volume) -> None:
    for offset in range(0, volume.bitmap_bytes, _SWAP_CHUNK_BYTES):
        length = min(_SWAP_CHUNK_BYTES, volume.bitmap_bytes - offset)
        present = -(-length // SECTOR_BYTES) * SECTOR_BYTES
        raw = volume.device.read(volume.bitmap_offset_bytes + offset, present)
        plan.write(0, volume.bitmap_offset_bytes + offset, swap_words(raw[:length]) + raw[length:], "bitmap")
    plan.flush(0)


def _write_bitmap(plan: Plan, volume: Volume, bitmap: Bitmap) -> None:
    runs = bitmap.dirty_writes()
    for first, last in runs:
        length = (last - first + 1) * SECTOR_BYTES
        content = bitmap.encoded(first * SECTOR_BYTES, length)
        plan.write(0, volume.bitmap_offset_bytes + first * SECTOR_BYTES, content, "bitmap")
    if runs:
        plan.flush(0)


def _write_super_block(plan: Plan, volume: Volume) -> None:
    raw = volume.super_block.pack()
    rest = volume.device.read(volume.start_bytes + len(raw), SECTOR_BYTES - len(raw))
    plan.write(0, volume.start_bytes, raw + rest, "super block")
    plan.flush(0)
