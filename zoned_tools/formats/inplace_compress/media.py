"""What a volume loses where its device cannot be read: blocks of the bitmap, and payloads.

The bitmap has one copy. Without a block of it are lost the data blocks whose entry has a bit in it, the tails behind
them, and the extent in front of them unless its stream decodes to just the blocks up to there. Of a payload is lost
the whole extent where it is compressed, else the sectors; nothing where the hole behind it cannot be read.

Source: sections 1.3 and 1.5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import BadAreas, known_bad_areas, salvage_into
from zoned_tools.errors import MetadataError
from zoned_tools.formats.inplace_compress.extents import join, scan
from zoned_tools.formats.inplace_compress.layout import BITS_PER_META_BLOCK, BLOCK_BYTES, ENTRY_BITS, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.verify import UNFINISHED, judge
from zoned_tools.formats.shared.losses import Loss, Losses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.open import Volume

_READ_BYTES = 1 << 20


def unreadable_bitmap(volume: Volume) -> list[tuple[int, int, str]]:
    """``(first block, end, status)`` of the bitmap's blocks that cannot be read, ascending, runs joined.

    Reads the bitmap once; what is known to be unreadable is not tried.
    """
    base, found = volume.bitmap_offset_bytes, BadAreas()
    length = -(-volume.bitmap_bytes // BLOCK_BYTES) * BLOCK_BYTES
    for offset in range(0, length, _READ_BYTES):
        buffer = memoryview(bytearray(min(_READ_BYTES, length - offset)))
        found = found.joined(salvage_into(volume.device, base + offset, buffer))
    runs: list[tuple[int, int, str]] = []
    for start, end, status in found.shifted(-base):
        first, stop = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if runs and first <= runs[-1][1]:
            runs[-1] = (runs[-1][0], stop, runs[-1][2])
        else:
            runs.append((first, stop, status))
    return runs


def blocks_of_bitmap(volume: Volume, first: int, end: int) -> tuple[int, int]:
    """``(first, end)`` of the data blocks whose entry has a bit in blocks ``first`` to before ``end`` of the bitmap."""
    low, high = first * BITS_PER_META_BLOCK, end * BITS_PER_META_BLOCK
    return low // ENTRY_BITS, min(-(-high // ENTRY_BITS), volume.data_blocks)


def assumption(volume: Volume) -> str:
    """One sentence about a volume whose super block cannot be read."""
    name = volume.compressor.label if volume.compressor is not None else "unknown"
    return (
        f"the super block cannot be read: {volume.data_blocks} data blocks, {volume.meta_blocks} meta blocks and "
        f"compressor {name} are assumed"
    )


def require_whole_metadata(volume: Volume) -> None:
    """Refuse to write a volume of whose metadata a block cannot be read.

    Raises:
        MetadataError: it is one.
    """
    if volume.is_assumed or unreadable_bitmap(volume):
        what = "the super block" if volume.is_assumed else "a block of the bitmap"
        raise MetadataError(f"{what} cannot be read: only reading is possible", device=volume.device.path)


def find_losses(volume: Volume) -> Losses:
    """What of the logical device cannot be read, as far as that is known without reading payloads.

    Costs a scan of the bitmap where something is lost.
    """
    lost = Losses(payload=[])
    bad_blocks = unreadable_bitmap(volume)
    bad_data = known_bad_areas(volume.device, volume.data_offset_bytes, volume.data_blocks * BLOCK_BYTES)
    if bad_blocks:
        lost.metadata = list(_unknown(volume, bad_blocks))
    if len(bad_data):
        lost.payload = list(_unread(volume, bad_data.shifted(-volume.data_offset_bytes)))
    if volume.is_assumed:
        lost.guessed.append(Loss(0, volume.data_blocks * BLOCK_BYTES, "-", assumption(volume)))
    return lost


def _unknown(volume: Volume, bad_blocks: list[tuple[int, int, str]]) -> Iterator[Loss]:
    for first, end in unknown_ranges(volume):
        at = next((row for row in bad_blocks if blocks_of_bitmap(volume, *row[:2])[1] > first), bad_blocks[-1])
        reason = f"block {at[0]} of the bitmap cannot be read"
        yield Loss(first * BLOCK_BYTES, (end - first) * BLOCK_BYTES, at[2], reason)


def unknown_ranges(volume: Volume) -> list[tuple[int, int]]:
    """``(first, end)`` of the data blocks of which the bitmap does not tell enough, ascending, runs joined."""
    parts: list[Extents] = []
    for batch in scan(volume.entry_chunks()):
        parts.append(batch.select(batch.unknown))
        cut = batch.select(batch.cut & (batch.payload > 0))
        parts += (judged.extents.select(judged.rule == UNFINISHED) for judged in judge(volume, cut))
    return ranges_of(join(parts))


def ranges_of(extents: Extents) -> list[tuple[int, int]]:
    """``(first, end)`` of extents in any order, those that touch joined."""
    joined: list[tuple[int, int]] = []
    order = np.argsort(extents.head)
    for first, blocks in zip(extents.head[order].tolist(), extents.blocks[order].tolist(), strict=True):
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], first + blocks)
        else:
            joined.append((first, first + blocks))
    return joined


def _unread(volume: Volume, bad: BadAreas) -> Iterator[Loss]:
    """Of the extents that ``bad`` (in bytes of the data) touches: all of a compressed one, the sectors of others."""
    for batch in scan(volume.entry_chunks()):
        stored = batch.with_payload
        hit = stored.select(bad.touches(stored.head * BLOCK_BYTES, stored.payload * SECTOR_BYTES))
        columns = hit.head * BLOCK_BYTES, hit.payload * SECTOR_BYTES, hit.blocks * BLOCK_BYTES, hit.is_raw
        for start, stored_bytes, size, is_raw in zip(*(column.tolist() for column in columns), strict=True):
            areas = bad.within(start, stored_bytes)
            if is_raw:
                yield from _sectors(areas)
            else:
                status = chr(int(areas.status[0]))
                yield Loss(start, size, status, "a sector of its payload was not rescued")


def _sectors(areas: BadAreas) -> Iterator[Loss]:
    """Raw payload: the bad sectors, where they are."""
    for start, end, status in areas:
        first, stop = start // SECTOR_BYTES * SECTOR_BYTES, -(-end // SECTOR_BYTES) * SECTOR_BYTES
        yield Loss(first, stop - first, status, "not rescued")
