"""How sentences name extents, and columns of such words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.formats.inplace_compress.entries import Array


def place(block: int, blocks: int) -> str:
    """``block 5``, ``blocks 5 to 7``; no blocks are behind the last entry."""
    if blocks == 0:
        return "behind the last entry"
    return f"block {block}" if blocks == 1 else f"blocks {block} to {block + blocks - 1}"


def count(blocks: int) -> str:
    """``1 block``, ``3 blocks``."""
    return "1 block" if blocks == 1 else f"{blocks} blocks"


class Phrases(Sequence[str]):
    """A column of words that are made when somebody reads them: ``phrase`` of each row of ``columns``."""

    def __init__(self, phrase: Callable[..., str], *columns: Array) -> None:
        self._phrase = phrase
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, part: int) -> str: ...
    @overload
    def __getitem__(self, part: slice) -> list[str]: ...
    def __getitem__(self, part: int | slice) -> str | list[str]:
        if isinstance(part, slice):
            return list(map(self._phrase, *(column[part].tolist() for column in self._columns)))
        return self._phrase(*(column[part].item() for column in self._columns))
