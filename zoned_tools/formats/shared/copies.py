"""Places where two copies of a layout's metadata give different data."""

from __future__ import annotations

from typing import NamedTuple


class CopyDifference(NamedTuple):
    """A run of logical blocks that two copies of the metadata place otherwise.

    Attributes:
        chunk: the layout's unit that the blocks are in.
        first_block, blocks: the run, in logical blocks.
        zones: the zone that has the blocks by the first and by the second copy; None where they read as zeroes.
    """

    chunk: int
    first_block: int
    blocks: int
    zones: tuple[int | None, int | None]
