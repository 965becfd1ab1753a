"""Where the metadata of a drive are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.open import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Target

_ZONE_BYTES = layout.ZONE_BLOCKS * layout.BLOCK_BYTES


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of everything in front of the data zones: generations, caches and tables.

    Raises:
        MetadataError: there is no ZDM.
        GeometryError: its numbers cannot be those of this partition.
    """
    geometry = load(target).geometry
    first = geometry.start_block * layout.BLOCK_BYTES
    yield 0, first, geometry.first_device_zone * _ZONE_BYTES - first
