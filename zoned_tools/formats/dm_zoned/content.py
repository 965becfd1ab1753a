"""What a set comes to where not every block of it can be read: the other set's block serves, or nobody has it.

Source: section 8.1 of the specification of the format (``docs/formats/dm-zoned.md``), whose R0 is meant below, and
section 1.5 of that of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MAP_ENTRIES, NR_SETS, UNMAPPED
from zoned_tools.formats.dm_zoned.media import known_media, read_media
from zoned_tools.formats.dm_zoned.open import STREAM_BYTES, SetView, read_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.judge import TargetState

T = TypeVar("T")

_PIECE_BLOCKS = STREAM_BYTES // BLOCK_BYTES


def around_unreadable(
    target: Target, work: Callable[[TargetState], T], trust: int | None = None, *, rebuilds: bool = False
) -> T:
    """Do something with the state of a target; once more, around them, when metadata turn out to be unreadable.

    An image with a map file knows what is; a drive has to be read, which only one that gives an error is a second
    time.

    Args:
        rebuilds: where no super block is left, what stands for them is found out.

    Raises:
        DeviceError: something else cannot be read.
    """
    state = read_state(open_target(target), trust)
    if rebuilds:
        from zoned_tools.formats.dm_zoned.rebuild import is_lost, rebuild

        if is_lost(state):
            rebuild(state)
    is_thorough = state.rebuilt is not None or _look(state, thorough=not are_comparable(state))
    try:
        return work(state)
    except DeviceError as error:
        if error.errno != errno.EIO or is_thorough:
            raise
    state = read_state(open_target(target), trust)
    _look(state, thorough=True)
    return work(state)


def _look(state: TargetState, *, thorough: bool) -> bool:
    """Find what cannot be read of both sets; returns whether they were read for it."""
    if state.layout is None:
        return True
    layouts = [state.layout_of(number) for number in range(NR_SETS)]
    ranges = [(layout.map_block(n), layout.nr_meta_blocks - 1) for n, layout in enumerate(layouts)]
    find = read_media if thorough else known_media
    state.blocks = replace(state.blocks, media=find(state.blocks.devices, state.geometry, ranges))
    return thorough


def are_comparable(state: TargetState) -> bool:
    """Both sets are valid, of one generation and of one size: neither is the newer one."""
    first, second = (found.superblock for found in state.sets)
    if not state.both_count or first is None or second is None or state.layout is None:
        return False
    return first.gen == second.gen and state.layout_of(0) == state.layout_of(1)


def content_of(state: TargetState, number: int) -> SetView:
    """A set with the other one's blocks where its own cannot be read, as far as that one serves (R0)."""
    layout = state.layout_of(number)
    own = state.blocks.unreadable(layout, number)
    if not own.any():
        return SetView(state.blocks, layout, number)
    others = state.blocks.unreadable(layout, 1 - number) if serves(state, 1 - number) else np.ones_like(own)
    return merged(state, number, taken=own & ~others, lost=own & others)


def merged(state: TargetState, number: int, *, taken: BoolArray, lost: BoolArray) -> SetView:
    """A set of which some map and bitmap blocks are the other set's, and some are nobody's."""
    layout = state.layout_of(number)
    nr_map = layout.nr_map_blocks
    table = None
    if taken[:nr_map].any() or lost[:nr_map].any():
        table = read_map(state.blocks, layout, number)
        rows = np.repeat(taken[:nr_map], MAP_ENTRIES)
        table[rows] = read_map(state.blocks, layout, 1 - number)[rows]
        table[np.repeat(lost[:nr_map], MAP_ENTRIES)] = UNMAPPED
    return SetView(
        state.blocks,
        layout,
        number,
        table,
        taken[nr_map:] if taken[nr_map:].any() else None,
        lost=lost if lost.any() else None,
    )


def serves(state: TargetState, number: int) -> bool:
    """Whether blocks of a set may stand for unreadable ones of the other.

    Those of a set whose super block is bad, or cannot be read, when all other blocks of both sets are equal.
    """
    if state.layout_of(number) != state.layout_of(1 - number):
        return False
    if state.both_count:
        return True
    if state.alike is None:
        state.alike = _are_alike(state)
    return state.alike


def _are_alike(state: TargetState) -> bool:
    """Whether every block that can be read of both sets is the same in both."""
    blocks, layout = state.blocks, state.layout_of(0)
    unreadable = blocks.unreadable(layout, 0) | blocks.unreadable(layout, 1)
    for first in range(0, len(unreadable), _PIECE_BLOCKS):
        bad = unreadable[first : first + _PIECE_BLOCKS]
        rows = np.empty((NR_SETS, len(bad), BLOCK_BYTES // 8), "<u8")
        for number in range(NR_SETS):
            blocks.read_around(layout.map_block(number) + first, rows[number].data.cast("B"))
        rows[:, bad] = 0
        if not np.array_equal(rows[0], rows[1]):
            return False
    return True
