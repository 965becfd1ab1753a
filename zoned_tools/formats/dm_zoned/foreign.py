"""A zone table that is not this drive's: it contradicts the metadata everywhere.

Every rule about a single zone would then give up a chunk, and together they would destroy everything. A power cut
explains one empty mapped zone for each member (one reclaim worker a device, which commits before it takes the next
zone), a lost write cache bits beyond a few open zones; and an image that holds valid data beyond a write pointer
proves that the pointer is wrong.

Source: section 5 of the specification of rescues, measured there over all images and power cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES
from zoned_tools.formats.dm_zoned.open import stream_zones
from zoned_tools.formats.dm_zoned.payload import unpacked
from zoned_tools.formats.dm_zoned.survey import any_from, take_beyond

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.open import SetView, TargetBlocks
    from zoned_tools.formats.dm_zoned.survey import BitmapSurvey, MapSurvey

_MANY = 3


@dataclass(frozen=True, slots=True)
class ForeignZones:
    """The contradiction, in zones.

    Attributes:
        zones: data zones with valid blocks at or after the write pointer.
        empty: of these, zones that are empty.
        all_zones: sequential data zones with valid blocks.
        holds_data: the image has data there.
    """

    zones: int
    empty: int
    all_zones: int
    holds_data: bool

    @property
    def sentence(self) -> str:
        proof = ", and the image holds data there" if self.holds_data else ""
        return (
            f"the zone table is not this drive's: {self.zones} of {self.all_zones} zones have valid blocks at or after "
            f"their write pointer, {self.empty} of them are empty{proof}"
        )


_LOOKED_AT = 64
"""Zones that are searched for data only to say so."""


def find_foreign(view: SetView, mapping: MapSurvey, bits: BitmapSurvey | None = None) -> ForeignZones | None:
    """What says that the zone table is another drive's; None when it can be this one's.

    Args:
        bits: what is known of the bitmaps; without it only those of zones that are not full are read.
    """
    geometry = view.blocks.geometry
    if geometry.derived:
        return None
    mapped = (mapping.owners.data >= 0) & geometry.sequential & ~geometry.dead & (geometry.wp_blocks >= 0)
    open_ones = np.flatnonzero(mapped & (geometry.wp_blocks < geometry.zone_blocks))
    late = open_ones[bits.after_wp[open_ones] > 0] if bits is not None else _late(view, open_ones)
    empty = int(np.count_nonzero(geometry.wp_blocks[late] == 0))
    nr_zoned = sum(member.is_zoned for member in geometry.members)
    zones = np.flatnonzero(mapped)
    if not len(late):
        return None
    used = int(np.count_nonzero(bits.weight[zones])) if bits is not None else _in_use(view, zones)
    is_proved = empty > nr_zoned or (len(late) >= _MANY and 2 * len(late) > used)
    # This reads block by block: where numbers tell already, the first zones are enough to say that there are data.
    asked = late[:_LOOKED_AT] if is_proved else late
    holds = any(_holds_data(view, zone) for zone in asked.tolist())
    return ForeignZones(len(late), empty, used, holds) if is_proved or holds else None


def _late(view: SetView, zones: IntArray) -> IntArray:
    """Of some zones, those with valid blocks at or after the write pointer."""
    return zones[_over_rows(view, zones, view.blocks.geometry.wp_blocks[zones])]


def _in_use(view: SetView, zones: IntArray) -> int:
    return int(np.count_nonzero(_over_rows(view, zones, np.zeros(len(zones), np.int64))))


def _over_rows(view: SetView, zones: IntArray, first: IntArray) -> BoolArray:
    """Whether a zone has a valid block at or after ``first``."""
    found = np.zeros(len(zones), np.bool_)
    step = stream_zones(view.layout)
    for start in range(0, len(zones), step):
        part = slice(start, start + step)
        words = view.rows(zones[part])
        take_beyond(words, view.layout.zone_blocks)
        found[part] = any_from(words, first[part])
    return found


def _holds_data(view: SetView, zone: int) -> bool:
    """Whether an image has data in a valid block at or after the write pointer; a drive answers zeroes there."""
    blocks = view.blocks
    mask = unpacked(view.rows(np.array([zone])), view.layout.zone_blocks)[0]
    mask[: blocks.geometry.wp_blocks[zone]] = False
    numbers = np.flatnonzero(mask)
    return any(_stored(blocks, zone, int(number)) for number in numbers)


def _stored(blocks: TargetBlocks, zone: int, number: int) -> bool:
    index, offset_bytes = blocks.geometry.locate(zone * blocks.geometry.zone_blocks + number)
    device = blocks.devices[index]
    if not isinstance(device, EmulatedDrive):
        return False
    try:
        return any(device.read_stored(offset_bytes, BLOCK_BYTES))
    except DeviceError:
        return False
