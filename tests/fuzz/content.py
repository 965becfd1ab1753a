"""What a target holds, as something that can be compared: sampled blocks of the logical device."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.engine.logical import open_logical
from zoned_tools.errors import ZonedError

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Mapper, Target

MAX_SAMPLES = 64
UNREADABLE = "unreadable"
ZERO = zlib.crc32(bytes(4096))


@dataclass
class Content:
    """Parts of a target's content, by place; a part that cannot be read is :data:`UNREADABLE`.

    Attributes:
        parts: digest of each sampled part.
        opened: False when nothing could be opened at all.
    """

    parts: dict[Hashable, Hashable] = field(default_factory=dict)
    opened: bool = True

    def differing(self, later: Content) -> list[Hashable]:
        """Parts that read differently (or not at all) in ``later``; what could not be read before does not count."""
        return [
            place
            for place, digest in self.parts.items()
            if digest != UNREADABLE and later.parts.get(place, UNREADABLE) != digest
        ]


def logical_content(target: Target, settings: Mapping[str, str], places: Iterable[Hashable] | None = None) -> Content:
    """Digests of blocks of the logical device: those at ``places``, or a sample of what is stored."""
    try:
        mapper = open_logical(target, writable=False, settings=settings)
    except ZonedError:
        return Content(opened=False)
    blocks = [b for b in places if isinstance(b, int)] if places is not None else _sample(mapper)
    content = Content({block: _digest(mapper, block) for block in blocks})
    mapper.close()
    return content


def _digest(mapper: Mapper, block: int) -> Hashable:
    try:
        return zlib.crc32(mapper.read(block, 1))
    except ZonedError:
        return UNREADABLE


def _sample(mapper: Mapper) -> list[int]:
    """First and last blocks of what is stored, and some in between."""
    try:
        extents = [
            (e.logical_block, e.blocks)
            for e in mapper.lookup(0, mapper.size_blocks)
            if e.physical_block is not None and e.blocks
        ]
    except ZonedError:
        return list(range(min(mapper.size_blocks, MAX_SAMPLES)))
    if not extents:
        return []
    starts, lengths = np.array(extents, np.int64).T
    blocks = np.unique(np.concatenate((starts, starts + lengths - 1, starts + lengths // 2)))
    step = -(-len(blocks) // MAX_SAMPLES)
    return [int(block) for block in blocks[::step]]
