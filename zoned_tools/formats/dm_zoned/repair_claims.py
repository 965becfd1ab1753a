"""What chunks claim while a mapping table is repaired, and the columns of sentences about chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.shared.columns import Computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.shared.columns import Column


def logical_ranges(geometry: TargetGeometry, chunks: npt.NDArray[np.integer]) -> dict[str, Column]:
    """Columns of a sentence: the first and the last logical block of some chunks."""
    blocks = geometry.zone_blocks

    def column(offset: int) -> Computed:
        return Computed(
            len(chunks),
            lambda rows: (chunks[rows.start : rows.stop].astype(np.int64) * blocks + offset).tolist(),
        )

    return {"first": column(0), "last": column(blocks - 1)}


def used_words(sentence: str, words: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that a sentence names."""
    names = {name for _, name, _, _ in Formatter().parse(sentence)}
    return {name: column for name, column in words.items() if name in names}


@dataclass(slots=True)
class ZoneClaims:
    """What the chunks claim: their zones, and how often each zone is claimed."""

    data: IntArray
    buffer: IntArray
    uses: IntArray

    @classmethod
    def of(cls, data: IntArray, buffer: IntArray, nr_zones: int) -> ZoneClaims:
        claims = cls(data.copy(), buffer.copy(), np.zeros(nr_zones, np.int64))
        claims._count(data, 1)
        claims._count(buffer, 1)
        return claims

    def copy(self) -> ZoneClaims:
        return ZoneClaims(self.data.copy(), self.buffer.copy(), self.uses.copy())

    def _count(self, zones: IntArray, step: int) -> None:
        self.uses += step * np.bincount(zones[zones < len(self.uses)], minlength=len(self.uses))

    def unmap(self, chunks: IntArray) -> None:
        self._count(self.data[chunks], -1)
        self.data[chunks] = UNMAPPED
        self.drop_buffer(chunks)

    def drop_buffer(self, chunks: IntArray) -> None:
        self._count(self.buffer[chunks], -1)
        self.buffer[chunks] = UNMAPPED

    def promote(self, chunks: IntArray) -> None:
        """The buffer zone becomes the data zone."""
        self._count(self.data[chunks], -1)
        self.data[chunks] = self.buffer[chunks]
        self.buffer[chunks] = UNMAPPED

    def move(self, chunks: IntArray, zones: IntArray, *, is_data: bool) -> None:
        """Other zones in one role."""
        column = self.data if is_data else self.buffer
        self._count(column[chunks], -1)
        column[chunks] = zones
        self._count(zones, 1)

    # One chunk at a time, for zones that are claimed twice.

    def forget(self, zone: int) -> None:
        if zone < len(self.uses):
            self.uses[zone] -= 1

    def last_claims(self, zones: IntArray) -> BoolArray:
        """True for the last of each equal ``zones`` when nobody but their chunks claims the zone."""
        last = np.zeros(len(zones), np.bool_)
        sound = np.flatnonzero(zones < len(self.uses))
        counts = np.bincount(zones[sound], minlength=len(self.uses))
        _, from_end = np.unique(zones[sound][::-1], return_index=True)
        last[sound[::-1][from_end]] = True
        at = np.where(zones < len(self.uses), zones, 0)
        last &= self.uses[at] == counts[at]
        return last


@dataclass(slots=True)
class Unshared:
    """What becomes of the claims that a shared zone is not left to; one element of each list for a claim."""

    unmapped: list[tuple[int, int, int]] = field(default_factory=list)  # chunk, zone, keeper
    dropped: list[tuple[int, int, int]] = field(default_factory=list)
    promoted: list[tuple[int, int, int]] = field(default_factory=list)
    promoted_zones: list[int] = field(default_factory=list)
    lost: list[tuple[int, int, int]] = field(default_factory=list)  # unmapped, with a buffer zone that holds something
    lost_zones: list[int] = field(default_factory=list)
    zones: list[int] = field(default_factory=list)
    """Every zone of the chunks that a shared zone is about."""
