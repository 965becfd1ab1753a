"""Opening the logical device of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.dm_zoned.mapper.sets import open_for_reading, open_for_writing
from zoned_tools.formats.dm_zoned.mapper.write import (
    DEFAULT_IDLE_LOW_PERCENT,
    DEFAULT_LOW_PERCENT,
    DmZonedMapper,
    Thresholds,
)
from zoned_tools.formats.dm_zoned.settings import IDLE_RLOW, RLOW

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Settings, Target


def open_mapper(target: Target, *, writable: bool, settings: Settings) -> DmZonedMapper:
    """Open the logical device of a dm-zoned target.

    Reading works on everything that has one metadata set left, whether a kernel would start
    it or not, and writes nothing. Writing needs metadata without errors; an incomplete or
    older set is brought up to date first.

    Raises:
        GeometryError: the devices cannot form a target.
        MetadataError: no usable metadata set.
        RefusedError: opened for writing, and the metadata are damaged.
    """
    opened = open_for_writing(target, settings) if writable else open_for_reading(target, settings)
    low, idle_low = settings.number(RLOW), settings.number(IDLE_RLOW)
    thresholds = Thresholds(
        DEFAULT_LOW_PERCENT if low is None else low, DEFAULT_IDLE_LOW_PERCENT if idle_low is None else idle_low
    )
    return DmZonedMapper(opened, thresholds, writable=writable, reclaims_when_idle=idle_low is not None)
