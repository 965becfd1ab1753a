"""Zones with valid data that no readable metadata name: what a layout tells about them.

Source: section 2 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.formats.contract import Piece


@dataclass(frozen=True, slots=True)
class Orphan:
    """A zone.

    Attributes:
        zone: its number in the target.
        kind: what the layout calls a zone of its kind.
        valid: blocks that are valid in it; ``first`` and ``last`` are the outermost.
        wp_blocks: blocks below its write pointer, None where it has none.
        pairs: zones that could be the other part of what it was, ascending.
        content: valid blocks in their places, the rest as holes; one zone long. Its argument is told the bytes of each
            stretch that cannot be read, which is zeroes.
    """

    zone: int
    kind: str
    valid: int
    first: int
    last: int
    wp_blocks: int | None
    pairs: list[int]
    content: Callable[[Callable[[int], None]], Iterator[Piece]]
