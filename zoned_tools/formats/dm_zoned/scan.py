"""Super blocks and blocks of mapping tables of dm-zoned, found by what they look like.

A super block has its magic and its checksum. A block of a mapping table has none; it is told by its entries: every zone
exists, none is named twice, none is a buffer zone without a data zone (section 8 of the specification of the format,
``docs/formats/dm-zoned.md``), and more than a few are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    MAGIC,
    MAP_ENTRIES,
    UNMAPPED,
    SuperBlock,
)
from zoned_tools.formats.dm_zoned.probe import is_sound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray

_FEWEST_ENTRIES = 4
"""Blocks with fewer named zones could be anything."""


class DmZonedScanner:
    """Collects what looks like metadata; a mapping table needs the zones of a zoned device to be told by."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._nr_zones = device.geometry.nr_zones
        self._supers: list[tuple[int, SuperBlock]] = []
        self._maps: list[tuple[IntArray, IntArray, IntArray]] = []

    def feed(self, offset_bytes: int, data: bytearray) -> None:
        words = np.frombuffer(data, "<u4").reshape(-1, BLOCK_BYTES // 4)
        for row in np.flatnonzero(words[:, 0] == MAGIC).tolist():
            raw = bytes(data[row * BLOCK_BYTES : (row + 1) * BLOCK_BYTES])
            found = SuperBlock.parse(raw)
            if found.version and is_sound((found, raw)):
                self._supers.append((offset_bytes + row * BLOCK_BYTES, found))
        if self._nr_zones:
            self._find_maps(offset_bytes // BLOCK_BYTES, words.reshape(-1, MAP_ENTRIES, 2))

    def _find_maps(self, first_block: int, tables: np.typing.NDArray[np.uint32]) -> None:
        known = tables < self._nr_zones
        rows = np.flatnonzero((known | (tables == UNMAPPED)).all(axis=(1, 2)))
        data, buffer = known[rows, :, 0], known[rows, :, 1]
        rows = rows[(data.sum(axis=1) >= _FEWEST_ENTRIES) & ~(buffer & ~data).any(axis=1)]
        rows = rows[_unique(tables[rows])]
        if len(rows):
            mapped, buffered = (known[rows, :, column].sum(axis=1) for column in (0, 1))
            self._maps.append((first_block + rows, mapped, buffered))

    def result(self) -> Mapping[str, object]:
        blocks, mapped, buffered = (
            np.concatenate([np.zeros(0, np.int64), *(part[column] for part in self._maps)]) for column in range(3)
        )
        tables = []
        for first, end in runs(blocks):
            rows = slice(*np.searchsorted(blocks, (first, end)).tolist())
            tables.append(
                {
                    "offset_bytes": first * BLOCK_BYTES,
                    "blocks": end - first,
                    "mapped_chunks": int(mapped[rows].sum()),
                    "buffered_chunks": int(buffered[rows].sum()),
                }
            )
        supers = [
            {
                "offset_bytes": offset,
                "generation": sb.gen,
                "version": sb.version,
                "label": sb.label,
                "uuid": str(sb.dmz_uuid),
                "sb_block": sb.sb_block,
                "chunks": sb.nr_chunks,
                "reserved_zones": sb.nr_reserved_seq,
                "map_blocks": sb.nr_map_blocks,
            }
            for offset, sb in self._supers
        ]
        return {"gives": self._gives(tables), "super_blocks": supers, "mapping_tables": tables}

    def _gives(self, tables: list[dict[str, int]]) -> list[str]:
        lines = [
            f"byte {offset}: a super block of generation {sb.gen} with {sb.nr_chunks} chunks"
            f"{f', target {sb.label!r}' if sb.label else ''}"
            for offset, sb in self._supers
        ]
        lines += [
            f"byte {table['offset_bytes']}: {table['blocks']} blocks of a mapping table, "
            f"{table['mapped_chunks']} chunks mapped, {table['buffered_chunks']} with a buffer zone"
            for table in tables
        ]
        return lines


def _unique(tables: np.typing.NDArray[np.uint32]) -> BoolArray:
    """Blocks in which no zone is named twice."""
    ids = np.sort(tables.reshape(-1, 2 * MAP_ENTRIES), axis=1)
    twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] != UNMAPPED)
    unique: BoolArray = ~twice.any(axis=1)
    return unique
