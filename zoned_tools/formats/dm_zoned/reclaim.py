"""Empty data zones of buffered chunks whose blocks are marked valid: did a reclaim copy them to the buffer zone?

The 6.1 target resets a zone after copying it to the buffer zone and before it commits that; whoever else reset the
zone left in the buffer zone what was there before, which is what an earlier reclaim copied to the same offset of some
other zone, or zeroes.

Source: sections 6.2 and 8.4 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.open import SetView, stream_zones
from zoned_tools.formats.dm_zoned.payload import read_masked, unpacked
from zoned_tools.formats.dm_zoned.survey import take_beyond

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.payload import Blocks
    from zoned_tools.formats.dm_zoned.survey import MapSurvey

MOST_BLOCKS = 1 << 18
"""Blocks of other zones that are compared for one zone (1 GiB); where more would be needed nothing is certain."""


@dataclass(frozen=True, slots=True)
class Emptied:
    """Such zones, as columns.

    Attributes:
        zones: the data zones, ascending.
        chunks, buffers: their chunks and buffer zones.
        count: blocks marked valid in the data zone.
        zero: of these, blocks that are all zero in the buffer zone; -1 where nothing was read.
        dup: blocks that are a copy of what is valid elsewhere; counting ends with the first one.
        copied: the blocks were certainly copied to the buffer zone.
    """

    zones: IntArray
    chunks: IntArray
    buffers: IntArray
    count: IntArray
    zero: IntArray
    dup: IntArray
    copied: BoolArray

    def __len__(self) -> int:
        return len(self.zones)

    @property
    def reasons(self) -> list[str]:
        """Why the blocks of a zone are not certain; empty for those that are."""
        return [
            "" if copied else _reason(zero, dup)
            for copied, zero, dup in zip(self.copied.tolist(), self.zero.tolist(), self.dup.tolist(), strict=True)
        ]


def _reason(zero: int, dup: int) -> str:
    if zero > 0:
        return f"{zero} of them are zeroes there"
    if dup > 0:
        return "some are what another chunk has at the same offset"
    return "they may as well be what was there before"


def find_emptied(view: SetView, mapping: MapSurvey) -> IntArray:
    """Such zones of a set, ascending; only their own bitmaps are read."""
    geometry = view.blocks.geometry
    chunks = np.flatnonzero(mapping.data_usable & mapping.buffer_usable & ~mapping.data_meta & ~mapping.buffer_meta)
    data, buffer = mapping.data[chunks], mapping.buffer[chunks]
    sound = (geometry.wp_blocks[data] == 0) & geometry.sequential[data] & geometry.cache[buffer]
    zones = np.unique(data[sound])
    words = view.rows(zones)
    take_beyond(words, geometry.zone_blocks)
    found: IntArray = zones[words.any(axis=1)]
    return found


def judge_emptied(view: SetView, mapping: MapSurvey, zones: IntArray) -> Emptied:
    """Decide about empty data zones of buffered chunks, by what is in their buffer zones."""
    chunks = mapping.owners.data[zones]
    buffers = mapping.buffer[chunks]
    count, zero, dup = np.zeros((3, len(zones)), np.int64)
    copied = np.zeros(len(zones), np.bool_)
    members = np.array([view.blocks.geometry.member_of(zone).index for zone in zones.tolist()], np.int64)
    alone = np.bincount(members, minlength=1)[members] == 1 if len(zones) else copied
    for row, (zone, buffer) in enumerate(zip(zones.tolist(), buffers.tolist(), strict=True)):
        bits = unpacked(view.rows(np.array([zone, buffer])), view.layout.zone_blocks)
        count[row] = np.count_nonzero(bits[0])
        zero[row] = -1
        valid, buffered = np.flatnonzero(bits[0]), np.flatnonzero(bits[1])
        if not alone[row] or not len(valid) or not len(buffered) or buffered[0] > valid[-1]:
            continue
        try:
            zero[row], dup[row], known = _look(view, mapping, (zone, buffer), bits[0])
        except DeviceError:
            continue
        copied[row] = known and zero[row] == dup[row] == 0
    return Emptied(zones, chunks, buffers, count, zero, dup, copied)


def _look(view: SetView, mapping: MapSurvey, pair: tuple[int, int], mask: BoolArray) -> tuple[int, int, bool]:
    """Blocks in ``mask`` of a buffer zone that are zero, that are copies, and whether everything was compared.

    Raises:
        DeviceError: a block cannot be read.
    """
    pieces = list(read_masked(view.blocks, pair[1], mask))
    content = np.concatenate([part for _, part in pieces])
    zero = int(np.count_nonzero(~content.any(axis=1)))
    if zero:
        return zero, 0, False
    geometry = view.blocks.geometry
    named = mapping.owners.named & ~geometry.offline
    named[list(pair)] = False
    others = np.flatnonzero(named)
    left = MOST_BLOCKS
    step = stream_zones(view.layout)
    for start in range(0, len(others), step):
        part = others[start : start + step]
        valid = unpacked(view.rows(part), geometry.zone_blocks)
        wp = geometry.wp_blocks[part]
        ends = np.where(geometry.sequential[part] & (wp >= 0), wp, geometry.zone_blocks)
        valid &= mask & (np.arange(geometry.zone_blocks) < ends[:, None])
        for row in np.flatnonzero(valid.any(axis=1)).tolist():
            left -= int(np.count_nonzero(valid[row]))
            if left < 0:
                return 0, 0, False
            dup = _equal(view, int(part[row]), valid[row], mask, content)
            if dup:
                return 0, dup, True
    return 0, 0, True


def _equal(view: SetView, zone: int, valid: BoolArray, mask: BoolArray, content: Blocks) -> int:
    """Blocks of a zone that are the same as those of the buffer zone at their offset."""
    places = np.cumsum(mask) - 1
    return sum(
        int(np.count_nonzero((blocks == content[places[numbers]]).all(axis=1)))
        for numbers, blocks in read_masked(view.blocks, zone, valid)
    )
