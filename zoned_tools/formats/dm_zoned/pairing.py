"""Zones without a chunk and chunks without a zone: which of them belong together.

Source: section 8.3 of the specification of the format (``docs/formats/dm-zoned.md``), whose words *orphan*, *could
belong*, (a) and (b) are used here. Pairs are certain; what is ambiguous is left to somebody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import UsageError
from zoned_tools.formats.dm_zoned.geometry import held_zones
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.lost import unknown_chunks
from zoned_tools.formats.dm_zoned.survey import any_from, keep_below, take_beyond

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.open import SetView, Words
    from zoned_tools.formats.dm_zoned.survey import SetSurvey

MOST_ORPHANS = MOST_CLAIMS = 512
"""With more than that a whole table is gone, and every pair would have rivals."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Damaged places of the mapping table, as columns: a chunk, the role of the zone, and what is written there.

    Attributes:
        chunk: the chunk.
        is_data: the data zone is damaged, else the buffer zone.
        zone: the id that the table has; that of the shared zone where it is one.
        is_shared: the zone exists, and another chunk names it too.
    """

    chunk: IntArray
    is_data: BoolArray
    zone: IntArray
    is_shared: BoolArray

    def __len__(self) -> int:
        return len(self.chunk)


class Pairing:
    """Who could belong to whom, and who certainly does.

    Attributes:
        claims: damaged places; those that share a zone with a rival first lose the ones that keep it.
        orphans: zones with valid bits that no chunk names and that are not metadata, ascending.
        could: which orphan that is not paired could belong to which claim, shape (claims, orphans); no row when
            there are too many.
        fits: claims on shared zones that the zone could belong to.
        zone: the orphan that certainly belongs to a claim, -1 for none.
        keeps: claims on shared zones that certainly stay as they are.
    """

    def __init__(self, survey: SetSurvey) -> None:
        self._survey = survey
        self.geometry = survey.view.blocks.geometry
        mapping = survey.map
        held = held_zones(self.geometry, survey.layout)
        self.orphans: IntArray = np.flatnonzero((survey.bits.weight > 0) & ~mapping.owners.named & ~held)
        self.claims = _claims(survey)
        self.zone = np.full(len(self.claims), -1, np.int64)
        self.fits, self.keeps = np.zeros((2, len(self.claims)), np.bool_)
        self._held = held
        # Zones whose bitmap is lost may be anybody's, and chunks whose entry is lost may have any zone.
        self._nr_unknown = int(np.count_nonzero(survey.view.lost_zones & ~mapping.owners.named & ~held))
        self._is_sure = not self._nr_unknown and not unknown_chunks(survey.view, mapping.table).any()
        is_exact = len(self.orphans) <= MOST_ORPHANS and len(self.claims) <= MOST_CLAIMS
        self.could = np.zeros((len(self.claims) if is_exact else 0, len(self.orphans)), np.bool_)
        if is_exact and len(self.claims):
            self._judge_shared()
            late = self._late(self.orphans, self._orphan_bits)
            for claim in range(len(self.claims)):
                self.could[claim] = self._could_belong(claim, self.orphans, self._orphan_bits, late)
            self._pair(~self.keeps & ~self._buffers_of_lost_chunks())

    @property
    def candidates(self) -> IntArray:
        """How many orphans that are not paired could belong to each claim."""
        if len(self.could) != len(self.claims):
            return np.full(len(self.claims), len(self.orphans))
        counts: IntArray = np.count_nonzero(self.could, axis=1) + self._nr_unknown
        return counts

    @cached_property
    def _orphan_bits(self) -> Words:
        return self._bits(self.orphans)

    def _bits(self, zones: IntArray) -> Words:
        """Bitmaps of some zones, without bits past the end of a zone, which mean nothing."""
        words = self._survey.view.rows(zones)
        take_beyond(words, self.geometry.zone_blocks)
        return words

    # -- could belong

    def _late(self, zones: IntArray, bits: Words) -> BoolArray:
        """Zones with a bit at or beyond their write pointer."""
        wp = self.geometry.wp_blocks[zones]
        limits = np.where(self.geometry.sequential[zones] & (wp >= 0), wp, self.geometry.zone_blocks)
        return any_from(bits, limits)

    def _could_belong(self, claim: int, zones: IntArray, bits: Words, late: BoolArray) -> BoolArray:
        """Which of some zones, whose bitmaps are ``bits``, could belong to a claim."""
        chunk, geometry = int(self.claims.chunk[claim]), self.geometry
        mapping = self._survey.map
        data, buffer = int(mapping.data[chunk]), int(mapping.buffer[chunk])
        if self.claims.is_data[claim]:
            fits = ~late
            if buffer != UNMAPPED:
                fits &= geometry.sequential[zones]
            if self._is_sound(buffer):
                fits &= self._disjoint(zones, bits, buffer)
            return fits
        fits = geometry.cache[zones].copy()
        if data < geometry.nr_zones and not self._held[data]:
            fits &= geometry.sequential[data]  # the only data zones that have buffers
        if self._is_sound(data):
            fits &= self._disjoint(zones, bits, data)
        return fits

    def _is_sound(self, zone: int) -> bool:
        """A zone that one chunk alone names, so that its bits are that chunk's."""
        return (
            zone < self.geometry.nr_zones and not self._held[zone] and zone not in self._survey.map.owners.shared.zones
        )

    def _disjoint(self, zones: IntArray, bits: Words, other: int) -> BoolArray:
        """Whether no block is valid in a zone and, below its write pointer, in ``other``."""
        row = self._survey.view.rows(np.array([other]))
        wp = int(self.geometry.wp_blocks[other])
        keep_below(row, np.array([wp if self.geometry.sequential[other] and wp >= 0 else self.geometry.zone_blocks]))
        disjoint: BoolArray = ~(bits & row).any(axis=1) & (zones != other)
        return disjoint

    # -- shared zones

    def _judge_shared(self) -> None:
        """A zone that fits one alone of the chunks that name it stays there; the others are the damaged ones."""
        shared = np.flatnonzero(self.claims.is_shared)
        for claim in shared.tolist():
            zone = self.claims.zone[claim : claim + 1]
            bits = self._bits(zone)
            self.fits[claim] = self._could_belong(claim, zone, bits, self._late(zone, bits))[0]
        zones = self.claims.zone[shared]
        alone = np.bincount(zones[self.fits[shared]], minlength=self.geometry.nr_zones) == 1
        self.keeps[shared] = self.fits[shared] & alone[zones]

    # -- pairs

    def _buffers_of_lost_chunks(self) -> BoolArray:
        """Buffer claims of chunks that no zone could be the data zone of: these are unmapped, and nobody's rivals."""
        alone = self.claims.is_data & ~self.claims.is_shared & (self.candidates == 0)
        lost: BoolArray = ~self.claims.is_data & np.isin(self.claims.chunk, self.claims.chunk[alone])
        self.could[lost] = False
        return lost

    def _pair(self, open_ones: BoolArray) -> None:
        free = np.ones(len(self.orphans), np.bool_)
        near = self._one_bit_apart()
        while True:
            matrix = self.could & open_ones[:, None] & free
            found = self._only_ones(near & matrix, near & open_ones[:, None] & free)
            if self._is_sure:
                found |= self._only_ones(matrix)
            rows, columns = np.nonzero(found)
            if not len(rows):
                self.could &= free
                return
            self.zone[rows] = self.orphans[columns]
            open_ones[rows] = False
            free[columns] = False
            self._settle_shared(open_ones)

    def _only_ones(self, matrix: BoolArray, rivals: BoolArray | None = None) -> BoolArray:
        """Cells that are alone in their row of ``matrix`` and in their column of ``rivals``."""
        single = np.count_nonzero(matrix, axis=1) == 1
        alone = np.count_nonzero(matrix if rivals is None else rivals, axis=0) == 1
        cells: BoolArray = matrix & single[:, None] & alone
        return cells

    def _one_bit_apart(self) -> BoolArray:
        """Orphans whose id differs in exactly one bit from a claim's."""
        near: BoolArray = np.bitwise_count(self.claims.zone[:, None] ^ self.orphans[None, :]) == 1
        return near

    def _settle_shared(self, open_ones: BoolArray) -> None:
        """The last claim on a shared zone, when all others have found theirs, keeps it."""
        left = np.flatnonzero(open_ones & self.claims.is_shared)
        taken = np.flatnonzero(self.keeps)
        zones = self.claims.zone[left]
        last = np.bincount(zones, minlength=self.geometry.nr_zones) == 1
        last[self.claims.zone[taken]] = False
        settled = left[last[zones]]
        self.keeps[settled] = True
        open_ones[settled] = False


def _claims(survey: SetSurvey) -> Claims:
    """Entries out of range, on metadata, without a data zone for a buffer in use, or sharing a zone; by chunk."""
    mapping = survey.map
    shared = np.zeros(survey.view.blocks.geometry.nr_zones, np.bool_)
    shared[mapping.owners.shared.zones] = True
    columns = []
    at_buffer = np.where(mapping.buffer_usable, mapping.buffer, 0)
    held = held_zones(survey.view.blocks.geometry, survey.layout)
    lost = mapping.buffer_without_data & (survey.bits.weight[at_buffer] > 0) & ~held[at_buffer]
    for zones, usable, damaged, is_data in (
        (mapping.data, mapping.data_usable, mapping.data_range | mapping.data_meta | lost, True),
        (mapping.buffer, mapping.buffer_usable, mapping.buffer_range | mapping.buffer_meta, False),
    ):
        common = usable & ~damaged & shared[np.where(usable, zones, 0)]
        if not is_data:
            common &= ~mapping.buffer_is_data
        chunks = np.flatnonzero(damaged | common)
        columns.append((chunks, np.full(len(chunks), is_data), zones[chunks], common[chunks]))
    chunk, data, zone, common = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.argsort(chunk, kind="stable")
    return Claims(chunk[order], data[order], zone[order], common[order])


def with_pairs(view: SetView, pairs: Mapping[int, tuple[int, int | None]]) -> SetView:
    """A set in which chunks have the zones that somebody says.

    Raises:
        UsageError: a chunk or zone that does not exist or holds metadata, or a zone of another chunk.
    """
    if not pairs:
        return view
    geometry, layout = view.blocks.geometry, view.layout
    held, table = held_zones(geometry, layout), view.read_map()
    for chunk, (zone, buffer) in pairs.items():
        zones = [zone] if buffer is None else [zone, buffer]
        for one in zones:
            if chunk >= layout.nr_chunks or one >= geometry.nr_zones or held[one]:
                raise UsageError(f"pair={chunk}:{zone}: there is no such chunk, or no such zone for data")
        table[chunk, 0] = zone
        if buffer is not None:
            table[chunk, 1] = buffer
        elif not geometry.sequential[zone]:
            table[chunk, 1] = UNMAPPED
    named = table[: layout.nr_chunks].reshape(-1)
    uses = np.bincount(named[named < geometry.nr_zones], minlength=geometry.nr_zones)
    for chunk, (zone, _) in pairs.items():
        own = table[chunk].astype(np.int64)
        if (uses[own[own < geometry.nr_zones]] > 1).any():
            raise UsageError(f"pair={chunk}:{zone}: another chunk has that zone")
    return replace(view, table=table)
