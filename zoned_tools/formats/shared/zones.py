"""What a zone table means for a layout, derived once: kinds, conditions, and write pointers in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoned_tools.device.zones import (
    DEAD_CONDITIONS,
    SECTOR_BYTES,
    BoolArray,
    IntArray,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    has_condition,
    is_conventional,
    is_sequential,
    written_sectors,
)


@dataclass(frozen=True)
class ZoneFacts:
    """Arrays with one element for each zone of ``table``; positions in units of ``block_bytes``.

    Preferred zones are sequential. A zone is full by its condition, never by its write pointer.
    """

    table: ZoneTable
    block_bytes: int = 4096

    def __len__(self) -> int:
        return len(self.table)

    @property
    def block_sectors(self) -> int:
        return self.block_bytes // SECTOR_BYTES

    @cached_property
    def conventional(self) -> BoolArray:
        return is_conventional(self.table)

    @cached_property
    def sequential(self) -> BoolArray:
        return is_sequential(self.table)

    @cached_property
    def preferred(self) -> BoolArray:
        mask: BoolArray = self.table["type"] == ZoneType.SEQ_PREFERRED
        return mask

    @cached_property
    def read_only(self) -> BoolArray:
        return has_condition(self.table, ZoneCondition.READ_ONLY)

    @cached_property
    def offline(self) -> BoolArray:
        return has_condition(self.table, ZoneCondition.OFFLINE)

    @cached_property
    def dead(self) -> BoolArray:
        """Read-only or offline."""
        return has_condition(self.table, *DEAD_CONDITIONS)

    @cached_property
    def full(self) -> BoolArray:
        return has_condition(self.table, ZoneCondition.FULL) & self.sequential

    @cached_property
    def empty(self) -> BoolArray:
        return has_condition(self.table, ZoneCondition.EMPTY) & self.sequential

    @cached_property
    def not_empty(self) -> BoolArray:
        """Sequential zones whose write pointer is known and not at their start."""
        mask: BoolArray = self._written_sectors > 0
        return mask

    @cached_property
    def _written_sectors(self) -> IntArray:
        return written_sectors(self.table)

    @cached_property
    def wp_blocks(self) -> IntArray:
        """Whole blocks below the write pointer, the capacity of a full zone; -1 where it is undefined."""
        written = self._written_sectors
        blocks: IntArray = np.where(written >= 0, written // self.block_sectors, -1)
        return blocks

    @cached_property
    def capacity_blocks(self) -> IntArray:
        """Whole blocks that can be written, the length of a conventional zone."""
        sectors = np.where(self.sequential, self.table["capacity_sectors"], self.table["length_sectors"])
        blocks: IntArray = sectors.astype(np.int64) // self.block_sectors
        return blocks

    @cached_property
    def runt(self) -> BoolArray:
        """Zones shorter than the longest one (a drive's last)."""
        lengths = self.table["length_sectors"]
        mask: BoolArray = lengths < lengths.max(initial=0)
        return mask
