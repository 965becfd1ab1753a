"""What of the logical device depends on metadata that no set has.

Source: section 1.5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import mask_runs
from zoned_tools.formats.dm_zoned.layout import BLOCK_BITS, MAP_ENTRIES, UNMAPPED
from zoned_tools.formats.dm_zoned.payload import stored_blocks, unpacked
from zoned_tools.formats.dm_zoned.survey import keep_below, take_beyond

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.layout import MapArray
    from zoned_tools.formats.dm_zoned.open import SetView, Words


def _none() -> IntArray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class LostRanges:
    """Ranges of the logical device, ascending and disjoint, as columns.

    Attributes:
        first, end: logical blocks.
        source: the lost map or bitmap block that each depends on, counted from the map.
    """

    first: IntArray = field(default_factory=_none)
    end: IntArray = field(default_factory=_none)
    source: IntArray = field(default_factory=_none)

    def __len__(self) -> int:
        return len(self.first)


def lost_ranges(view: SetView, table: MapArray | None = None) -> LostRanges:
    """What depends on the blocks of a set that are lost.

    Args:
        table: the mapping table, where it has entries that were found out although their block is lost.
    """
    if view.lost is None:
        return LostRanges()
    whole = view.read_map() if table is None else table
    entries = whole[: view.layout.nr_chunks].astype(np.int64)
    rows = [*_of_map(view, entries), *_of_bitmaps(view, entries)]
    first, end, source = np.array(sorted(rows), np.int64).reshape(-1, 3).T
    return LostRanges(first, end, source)


def unknown_chunks(view: SetView, table: MapArray | IntArray) -> BoolArray:
    """Chunks of which nobody knows where they are, shape (chunks,)."""
    if view.lost is None:
        return np.zeros(view.layout.nr_chunks, np.bool_)
    mask: BoolArray = view.lost_chunks & (table[: view.layout.nr_chunks] == UNMAPPED).all(axis=1)
    return mask


def _of_map(view: SetView, entries: IntArray) -> list[tuple[int, int, int]]:
    """Whole chunks, cut where another map block begins."""
    blocks = view.layout.zone_blocks
    unknown = unknown_chunks(view, entries)
    rows = []
    for block in np.flatnonzero(view.lost_map).tolist():
        first = block * MAP_ENTRIES
        runs = mask_runs(unknown[first : first + MAP_ENTRIES]) + first
        rows += [(start * blocks, end * blocks, block) for start, end in runs.tolist()]
    return rows


def _of_bitmaps(view: SetView, entries: IntArray) -> list[tuple[int, int, int]]:
    lost = view.lost_zones
    if not lost.any():
        return []
    nr_zones = view.layout.nr_zones
    hit = [
        (entries[:, role] < nr_zones) & lost[np.where(entries[:, role] < nr_zones, entries[:, role], 0)]
        for role in (0, 1)
    ]
    return [row for chunk in np.flatnonzero(hit[0] | hit[1]).tolist() for row in _of_chunk(view, chunk, entries[chunk])]


def _of_chunk(view: SetView, chunk: int, entry: IntArray) -> list[tuple[int, int, int]]:
    """The blocks of a chunk that lost bitmap blocks describe, but for those that are valid in its other zone."""
    layout = view.layout
    zones = [int(zone) if zone < layout.nr_zones else None for zone in entry]
    data, buffer = zones
    if data is None:
        return []  # what is on no device cannot be read anyway
    rows = []
    done = np.zeros(layout.zone_blocks, np.bool_)
    for zone, other in ((data, buffer), (buffer, data)):
        if zone is None:
            continue
        for part in np.flatnonzero(view.lost_bitmaps[zone]).tolist():
            described = np.zeros(layout.zone_blocks, np.bool_)
            described[part * BLOCK_BITS : min((part + 1) * BLOCK_BITS, readable_blocks(view, zone))] = True
            if other is not None:
                described &= ~valid_blocks(view, other)
            described &= ~done
            done |= described
            source = layout.nr_map_blocks + zone * layout.bitmap_blocks_per_zone + part
            base = chunk * layout.zone_blocks
            rows += [(base + start, base + end, source) for start, end in mask_runs(described).tolist()]
    return rows


def readable_blocks(view: SetView, zone: int) -> int:
    """Blocks of a zone below its write pointer, or its length."""
    geometry = view.blocks.geometry
    length = geometry.zone_length_blocks(zone)
    wp = int(geometry.wp_blocks[zone])
    return min(wp, length) if wp >= 0 else length


def valid_blocks(view: SetView, zone: int) -> BoolArray:
    """Blocks of a zone that are known to be valid and below its write pointer, shape (zone blocks,)."""
    words = view.rows(np.array([zone]))
    take_beyond(words, view.layout.zone_blocks)
    keep_below(words, np.array([readable_blocks(view, zone)]))
    mask: BoolArray = unpacked(words, view.layout.zone_blocks)[0]
    return mask


# -- guessing


def written_bits(view: SetView, table: MapArray, zone: int) -> Words:
    """Validity bits that no set has, made up: what was written is valid, unless the chunk's other zone has it.

    A sequential zone was written below its write pointer, another one where it is not all zero.

    Returns:
        Shape (words per zone,); 0 where the bits are known.
    """
    geometry, layout = view.blocks.geometry, view.layout
    described = np.repeat(view.lost_bitmaps[zone], BLOCK_BITS)
    described[readable_blocks(view, zone) :] = False
    for other in _others(view, table, zone):
        described[: layout.zone_blocks] &= ~valid_blocks(view, other)
    if not geometry.sequential[zone]:
        for start, end in mask_runs(described).tolist():
            described[start:end] = stored_blocks(view.blocks, zone, start, end)
    bits: Words = np.packbits(described, bitorder="little").view("<u8")
    return bits


def _others(view: SetView, table: MapArray, zone: int) -> list[int]:
    """The other zone of the chunk that a zone belongs to."""
    entries = table[: view.layout.nr_chunks].astype(np.int64)
    zones = np.unique(entries[(entries == zone).any(axis=1)])
    return [other for other in zones.tolist() if other != zone and other < view.layout.nr_zones]
