"""What each zone of a drive is used for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.open import load

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target


def zone_roles(target: Target) -> dict[str, IntArray]:
    """Zones of the drive with metadata, with data, being written to by a stream, and kept as reserves.

    Raises:
        MetadataError: there is no ZDM.
        GeometryError: its numbers cannot be those of this partition.
    """
    state = load(target)
    geometry, current = state.geometry, state.current
    first = geometry.first_device_zone
    used = np.flatnonzero(state.wp & layout.WP_MASK)
    written: IntArray = np.zeros(0, np.int64)
    kept: IntArray = np.zeros(0, np.int64)
    if current is not None:
        reserves = np.array([current.key.gc_resv, current.key.meta_resv], np.int64) & layout.RESERVE_ZONE_MASK
        kept = np.unique(reserves[reserves < geometry.data_zones])
        written = np.unique(current.streams[(current.streams >= 0) & (current.streams < geometry.data_zones)])
    return {
        "metadata": np.arange(geometry.start_block // layout.ZONE_BLOCKS, first),
        "data": first + used,
        "write zone": first + written,
        "reserve": first + kept,
    }
