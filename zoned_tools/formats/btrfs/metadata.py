"""Where the metadata of a device are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.roles import zone_roles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Target


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of the zones of super blocks and of system and metadata block groups.

    Raises:
        MetadataError: the device is not zoned.
    """
    geometry = target.device.geometry
    if not geometry.is_zoned:
        raise MetadataError("not zoned: its metadata are not in zones of their own", device=target.device.path)
    roles = zone_roles(target)
    for first, end in runs(np.union1d(roles["super blocks"], roles["metadata"])):
        start, length = geometry.zone_range_bytes(first, end - first)
        yield 0, start, length
