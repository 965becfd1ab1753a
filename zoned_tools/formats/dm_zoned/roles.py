"""What each zone of a target is used for, for diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.open import read_map

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target


def zone_roles(target: Target) -> dict[str, IntArray]:
    """Zone ids of the metadata, data and buffer zones, from the metadata set that the kernel would use.

    Raises:
        MetadataError: no set can be used.
    """
    state = read_state(open_target(target))
    if state.layout is None or state.chosen is None:
        raise MetadataError("No valid superblock found", device=target.device.path)
    table = read_map(state.blocks, state.layout, state.chosen)[: state.layout.nr_chunks].astype(np.int64)
    zones = state.layout.metadata_zones
    return {
        "data": table[:, 0][table[:, 0] != UNMAPPED],
        "buffer": table[:, 1][table[:, 1] != UNMAPPED],
        "metadata": np.arange(zones.start, zones.stop),
    }
