"""Entries and validity bits that no metadata set has: what a reader knows of the blocks that they are about.

Source: section 1.5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.dm_zoned.layout import BLOCK_BITS, BLOCK_BYTES, MAP_ENTRIES
from zoned_tools.formats.dm_zoned.lost import lost_ranges, unknown_chunks, written_bits
from zoned_tools.formats.dm_zoned.media import letter_of
from zoned_tools.formats.shared.losses import Loss, Losses

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.dm_zoned.layout import MapArray
    from zoned_tools.formats.dm_zoned.open import SetView, Words


class MissingBits:
    """What is not known of a logical device.

    Args:
        table: the mapping table, with entries that were found out although their block is lost.
        guesses: validity bits that no set has are made up: blocks that were written are valid.
    """

    def __init__(self, view: SetView, table: MapArray, *, guesses: bool) -> None:
        self._view = view
        self._table = table
        self._guesses = guesses
        self._chunks = unknown_chunks(view, table)
        self._bitmaps = view.lost_bitmaps
        self._zones = set(np.flatnonzero(view.lost_zones).tolist())

    def __bool__(self) -> bool:
        return bool(self._zones) or bool(self._chunks.any())

    def __contains__(self, zone: int) -> bool:
        """Whether validity bits of a zone are neither known nor guessed."""
        return not self._guesses and zone in self._zones

    def is_unknown(self, chunk: int) -> bool:
        """Whether nobody knows the zones of a chunk."""
        return bool(self._chunks[chunk])

    def why_chunk(self, chunk: int) -> str:
        """Why nobody does."""
        return f"map block {chunk // MAP_ENTRIES} cannot be read in any metadata set"

    def why_zone(self, zone: int) -> str:
        """Why the validity bits of a zone are not known."""
        return f"the bitmap of zone {zone} cannot be read in any metadata set"

    def blocks(self, zone: int, offset: int, count: int) -> BoolArray:
        """Blocks of a zone whose validity bits are neither known nor guessed."""
        if zone not in self:
            return np.zeros(count, np.bool_)
        parts = (offset + np.arange(count)) // BLOCK_BITS
        mask: BoolArray = self._bitmaps[zone][parts]
        return mask

    # -- what it comes to

    def losses(self) -> Losses:
        """The ranges of the logical device that depend on it."""
        found, ranges = Losses(), lost_ranges(self._view, self._table)
        layout = self._view.layout
        place = layout.map_block(self._view.number)
        for first, end, source in zip(ranges.first.tolist(), ranges.end.tolist(), ranges.source.tolist(), strict=True):
            is_map = source < layout.nr_map_blocks
            zone = (source - layout.nr_map_blocks) // layout.bitmap_blocks_per_zone
            reason = self.why_chunk(source * MAP_ENTRIES) if is_map else self.why_zone(zone)
            letter = letter_of(self._view.blocks.media, place + source)
            loss = Loss(first * BLOCK_BYTES, (end - first) * BLOCK_BYTES, letter, reason)
            (found.guessed if self._guesses and not is_map else found.metadata).append(loss)
        return found

    # -- guessing

    def guess(self, first_zone: int, words: Words) -> None:
        """Make up the validity bits of the zones from ``first_zone`` on, where they are to be guessed."""
        if not self._guesses:
            return
        for zone in self._zones.intersection(range(first_zone, first_zone + len(words))):
            words[zone - first_zone] |= written_bits(self._view, self._table, zone)
