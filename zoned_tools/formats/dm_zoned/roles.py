"""What each zone of a target is used for, for diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.layout import UNMAPPED

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.judge import TargetState


def zone_roles(target: Target) -> dict[str, IntArray]:
    """Zone ids of the metadata, data and buffer zones, from the metadata set that the kernel would use.

    Raises:
        MetadataError: no set can be used.
    """
    return around_unreadable(target, _roles)


def _roles(state: TargetState) -> dict[str, IntArray]:
    if state.layout is None or state.chosen is None:
        raise MetadataError("No valid superblock found", device=state.geometry.members[0].path)
    table = content_of(state, state.chosen).read_map()[: state.layout.nr_chunks].astype(np.int64)
    zones = state.layout.metadata_zones
    return {
        "data": table[:, 0][table[:, 0] != UNMAPPED],
        "buffer": table[:, 1][table[:, 1] != UNMAPPED],
        "metadata": np.arange(zones.start, zones.stop),
    }
