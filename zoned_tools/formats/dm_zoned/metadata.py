"""Where the metadata of a target are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MOST_SET_ZONES, NR_SETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Target


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of both metadata sets and of the members' tertiary super blocks.

    Where no super block can be used the zones in which both sets can be are named whole.
    """
    state = read_state(open_target(target))
    geometry = state.blocks.geometry
    if state.layout is None:
        cache = np.flatnonzero(geometry.cache)[: NR_SETS * MOST_SET_ZONES]
        for first, end in runs(cache):
            device, start = geometry.locate(first * geometry.zone_blocks)
            yield device, start, (end - first) * geometry.zone_bytes
    else:
        for number in range(NR_SETS):
            device, start = geometry.locate(state.layout.set_block(number))
            yield device, start, state.layout.nr_meta_blocks * BLOCK_BYTES
    for member in geometry.members[1:]:
        yield member.index, member.start_bytes, BLOCK_BYTES
