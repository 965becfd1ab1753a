"""What each zone is used for, for diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.shared.zones import ZoneFacts
from zoned_tools.formats.zonefs.constants import ROLES
from zoned_tools.formats.zonefs.open import open_volume

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target


def zone_roles(target: Target) -> dict[str, IntArray]:
    """Zone numbers of the super block, of conventional files, and of sequential files that hold data.

    Empty and dead zones stay what the drive says of them; no super block is needed, the zone table tells.

    Raises:
        GeometryError: not a zoned device.
    """
    zones = ZoneFacts(open_volume(target).table)
    file = np.arange(len(zones)) > 0
    super_block, conventional, sequential = (role.name for role in ROLES)
    return {
        super_block: np.zeros(1, np.int64),
        conventional: np.flatnonzero(file & zones.conventional & ~zones.dead),
        sequential: np.flatnonzero(file & zones.not_empty),
    }
