"""The volume as a repair will leave it, on a view; and the steps to it: data, bitmap, super block, each flushed.

After an interruption anywhere the volume can be checked and repaired again: what is not written
yet still stands as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.overlay import Overlay
from zoned_tools.device.runs import runs
from zoned_tools.formats.inplace_compress.compressors import Compressor, decode_many
from zoned_tools.formats.inplace_compress.entries import swap_words
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.rejection import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.inplace_compress.bitmap import Bitmap
    from zoned_tools.formats.inplace_compress.layout import SuperBlock
    from zoned_tools.formats.inplace_compress.open import Volume

_SWAP_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Changes:
    """What a repair decided, and the volume with it.

    Attributes:
        volume: with the sizes and the compressor that the super block shall name, on a copy-on-write view that
            has everything else that was decided.
        stored: the super block as it is; None where it cannot be read.
        swaps_words: the words of the whole bitmap are reversed.
        decoded: ``(block, content)`` of raw extents whose decoded content is stored in their place.
        sectors: those of the bitmap that change.
    """

    volume: Volume
    stored: SuperBlock | None
    swaps_words: bool = False
    decoded: list[tuple[int, bytes]] = field(default_factory=list)
    sectors: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, volume: Volume, stored: SuperBlock | None) -> Changes:
        """None yet."""
        return cls(replace(volume, device=Overlay(volume.device)), stored)

    @property
    def is_view_unchanged(self) -> bool:
        """True while the view reads as the device."""
        return not (self.swaps_words or self.decoded or self.sectors)

    def swap_words(self) -> None:
        """Reverse the words of the whole bitmap."""
        self.swaps_words = True
        for offset, raw, length in _bitmap_chunks(self.volume):
            self.volume.device.write(offset, swap_words(raw[:length]) + raw[length:])

    def take(self, bitmap: Bitmap) -> None:
        """Take over the changed entries of ``bitmap``, which is the volume's."""
        for first, last in bitmap.dirty_writes():
            content = bitmap.encoded(first * SECTOR_BYTES, (last - first + 1) * SECTOR_BYTES)
            self.volume.device.write(self.volume.bitmap_offset_bytes + first * SECTOR_BYTES, content)
        self.sectors |= bitmap.dirty_pages
        bitmap.written(set(bitmap.dirty_pages))

    def decode(self, block: int, blocks: int) -> None:
        """Store the content of the tagged stream of a raw extent in its place."""
        size, offset = blocks * BLOCK_BYTES, self.volume.block_offset_bytes(block)
        raw = self.volume.device.read(offset, size)
        length = int.from_bytes(raw[-4:], "little")
        outcome = decode_many(self.volume.compressor or Compressor.C842, [raw[:length]], [size])[0]
        if not isinstance(outcome, Rejected) and len(outcome) == size:
            self.volume.device.write(offset, outcome)
            self.decoded.append((block, outcome))


def write_changes(plan: Plan, changes: Changes) -> None:
    """Add the steps, in an order that a power cut does not harm."""
    volume = changes.volume
    for block, content in changes.decoded:
        plan.write(0, volume.block_offset_bytes(block), content, f"decoded content of block {block}")
    if changes.decoded:
        plan.flush(0)
    if changes.swaps_words:
        for offset, content, _ in _bitmap_chunks(volume):
            plan.write(0, offset, content, "bitmap")
    else:
        for first, end in runs(np.array(sorted(changes.sectors), np.int64)):
            offset = volume.bitmap_offset_bytes + first * SECTOR_BYTES
            plan.write(0, offset, volume.device.read(offset, (end - first) * SECTOR_BYTES), "bitmap")
    if changes.swaps_words or changes.sectors:
        plan.flush(0)
    if volume.super_block != changes.stored:
        _write_super_block(plan, volume, whole=changes.stored is None)


def _bitmap_chunks(volume: Volume) -> Iterator[tuple[int, bytes, int]]:
    """``(offset on the device, whole sectors of the bitmap, bytes of them that are the bitmap's)``."""
    for offset in range(0, volume.bitmap_bytes, _SWAP_CHUNK_BYTES):
        length = min(_SWAP_CHUNK_BYTES, volume.bitmap_bytes - offset)
        present = -(-length // SECTOR_BYTES) * SECTOR_BYTES
        at = volume.bitmap_offset_bytes + offset
        yield at, volume.device.read(at, present), length


def _write_super_block(plan: Plan, volume: Volume, *, whole: bool) -> None:
    """Its sector with what else stands there, or the ``whole`` block where that cannot be read."""
    raw = volume.super_block.pack()
    if whole:
        raw = raw.ljust(BLOCK_BYTES, b"\0")
    else:
        raw += volume.device.read(volume.start_bytes + len(raw), SECTOR_BYTES - len(raw))
    plan.write(0, volume.start_bytes, raw, "super block")
    plan.flush(0)
