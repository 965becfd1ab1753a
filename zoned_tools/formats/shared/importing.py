"""What the importers of all layouts do with raw content: which of its blocks hold anything, and where it has to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import RefusedError
from zoned_tools.formats.shared.logical import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray


def nonzero_blocks(data: memoryview) -> BoolArray:
    """Which whole blocks hold anything; most tell by their first word."""
    words = np.frombuffer(data, np.uint64).reshape(-1, LOGICAL_BLOCK_BYTES // 8)
    mask: BoolArray = words[:, 0] != 0
    rest = np.flatnonzero(~mask)
    if len(rest):
        mask[rest] = words[rest].any(axis=1)
    return mask


def inside(offset_bytes: int, data: memoryview, size_bytes: int, path: str) -> memoryview:
    """The part of content that is on a logical device of ``size_bytes``; zeroes behind it are nothing.

    Raises:
        RefusedError: there is something else behind it.
    """
    room = max(size_bytes - offset_bytes, 0)
    if len(data) > room and nonzero_blocks(data[room:]).any():
        raise RefusedError(f"the content is longer than the target of {size_bytes} bytes", device=path)
    return data[:room]
