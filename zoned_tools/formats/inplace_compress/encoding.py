"""How new content is stored: cut into extents inside windows, each compressed.

``import`` writes what comes out, ``estimate`` only counts it; so one tells what the other does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES
from zoned_tools.formats.inplace_compress.payload import encode_extents

WORTHWHILE_BYTES = {Compressor.C842: 16 << 20, Compressor.LZO: 1 << 30}
"""Content from which starting processes pays."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How content is to be stored.

    Attributes:
        window_blocks: longest extent, 2 or 32 blocks.
        exact: the very LZO streams that the kernel makes (slow).
    """

    compressor: Compressor
    window_blocks: int = layout.WINDOW_MAX_BLOCKS
    exact: bool = False

    def __post_init__(self) -> None:
        if self.window_blocks not in layout.WINDOWS:
            raise UsageError(f"a window of {self.window_blocks} blocks does not exist", hint="2 or 32")


@dataclass(frozen=True, slots=True)
class Part:
    """Extents of one part of the content: lists of one length."""

    first_block: int
    blocks: int
    head: list[int]
    length: list[int]
    sectors: list[int]
    payloads: list[bytes]


def encode_part(content: bytes, first_block: int, choice: Choice) -> Part:
    """Whole blocks of content as extents; ``first_block`` is a multiple of the window."""
    heads, lengths = _stored_runs(content, first_block, choice.window_blocks)
    pieces = [
        content[(head - first_block) * BLOCK_BYTES : (head - first_block + length) * BLOCK_BYTES]
        for head, length in zip(heads, lengths, strict=True)
    ]
    encoded = encode_extents(choice.compressor, pieces, exact=choice.exact)
    sectors = [one.payload_sectors for one in encoded]
    blocks = len(content) // BLOCK_BYTES
    return Part(first_block, blocks, heads, lengths, sectors, [one.data for one in encoded])


def _stored_runs(content: bytes, first_block: int, window: int) -> tuple[list[int], list[int]]:
    """Heads and lengths of the extents to make: in each window from the first to the last block that is not zero."""
    used = np.frombuffer(content, np.uint64).reshape(-1, BLOCK_BYTES // 8).any(axis=1)
    blocks = np.flatnonzero(used) + first_block
    if not len(blocks):
        return [], []
    number = blocks // window
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    ends = np.append(begins[1:], len(blocks)) - 1
    heads = blocks[begins]
    return heads.tolist(), (blocks[ends] - heads + 1).tolist()
