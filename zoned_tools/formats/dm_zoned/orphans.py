"""Zones with valid blocks that no readable entry of the mapping table names.

Source: section 2 of the specification of rescues (``docs/formats/rescue.md``), *orphan* is that of section 8.3 of
the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import salvage_into
from zoned_tools.device.runs import mask_runs
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.formats.dm_zoned.geometry import ZoneKind, held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES
from zoned_tools.formats.dm_zoned.lost import readable_blocks, valid_blocks
from zoned_tools.formats.dm_zoned.mapper.sets import open_for_reading
from zoned_tools.formats.dm_zoned.open import stream_zones
from zoned_tools.formats.dm_zoned.payload import unpacked
from zoned_tools.formats.dm_zoned.survey import keep_below, survey_bitmaps, survey_map, take_beyond
from zoned_tools.formats.shared.orphans import Orphan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Piece, Settings, Target
    from zoned_tools.formats.dm_zoned.open import SetView, TargetBlocks, Words

_PIECE_BLOCKS = 1024
_KINDS = {ZoneKind.CACHE: "cache", ZoneKind.RANDOM: "conventional", ZoneKind.SEQUENTIAL: "sequential"}


def orphans(target: Target, settings: Settings) -> Iterator[Orphan]:
    """The orphans of what a reader of the target shows, ascending.

    Raises:
        MetadataError: no set is usable.
        DeviceError: something cannot be read.
    """
    opened = open_for_reading(target, settings)
    view = opened.view
    geometry = view.blocks.geometry
    mapping = survey_map(geometry, view.layout, opened.store.table)
    bits = survey_bitmaps(view, mapping)
    named = mapping.owners.named | held_zones(geometry, view.layout)
    zones = np.flatnonzero((bits.weight > 0) & ~named)
    partners = _Partners(view, zones)
    for zone in zones.tolist():
        words = view.rows(np.array([zone]))
        take_beyond(words, geometry.zone_blocks)
        valid = np.flatnonzero(unpacked(words, geometry.zone_blocks)[0])
        wp = int(geometry.wp_blocks[zone])
        yield Orphan(
            zone,
            _KINDS[ZoneKind(geometry.kinds[zone])],
            len(valid),
            int(valid[0]),
            int(valid[-1]),
            wp if wp >= 0 else None,
            partners.of(zone),
            partial(_content, view, zone),
        )


class _Partners:
    """Which orphans could be the data zone and the buffer zone of one chunk: of the right kinds, no block in both."""

    def __init__(self, view: SetView, zones: IntArray) -> None:
        geometry = view.blocks.geometry
        self._view = view
        self._sequential = zones[geometry.sequential[zones]]
        self._buffers = zones[geometry.cache[zones]]
        self._of_buffer: dict[int, list[int]] = {int(zone): [] for zone in self._buffers}
        self._of_data: dict[int, list[int]] = {int(zone): [] for zone in self._sequential}
        self._find()

    def of(self, zone: int) -> list[int]:
        """Partners of an orphan."""
        return self._of_data.get(zone) or self._of_buffer.get(zone) or []

    def _find(self) -> None:
        buffers = self._bits(self._buffers)
        step = stream_zones(self._view.layout)
        for start in range(0, len(self._sequential), step):
            part = self._sequential[start : start + step]
            data = self._bits(part)
            for row, buffer in enumerate(self._buffers.tolist()):
                for zone in part[~(data & buffers[row]).any(axis=1)].tolist():
                    self._of_buffer[buffer].append(zone)
                    self._of_data[zone].append(buffer)

    def _bits(self, zones: IntArray) -> Words:
        """Valid blocks below the write pointers."""
        words = self._view.rows(zones)
        take_beyond(words, self._view.layout.zone_blocks)
        keep_below(words, np.array([readable_blocks(self._view, zone) for zone in zones.tolist()], np.int64))
        return words


def _content(view: SetView, zone: int, lose: Callable[[int], None]) -> Iterator[Piece]:
    blocks, zone_blocks = view.blocks, view.layout.zone_blocks
    at = 0
    for start, end in mask_runs(valid_blocks(view, zone)).tolist():
        if start > at:
            yield (start - at) * BLOCK_BYTES, None
        yield from _stored(blocks, zone * zone_blocks, (start, end), lose)
        at = end
    if at < zone_blocks:
        yield (zone_blocks - at) * BLOCK_BYTES, None


def _stored(blocks: TargetBlocks, base: int, run: tuple[int, int], lose: Callable[[int], None]) -> Iterator[Piece]:
    """A run of blocks of the zone that begins at absolute block ``base``; what can be read of it, by sectors."""
    start, end = run
    for first in range(start, end, _PIECE_BLOCKS):
        data = bytearray(min(_PIECE_BLOCKS, end - first) * BLOCK_BYTES)
        index, offset_bytes = blocks.geometry.locate(base + first)
        bad = salvage_into(blocks.devices[index], offset_bytes, memoryview(data), unit_bytes=SECTOR_BYTES)
        if len(bad):
            lose(bad.total_bytes)
        yield len(data), data
