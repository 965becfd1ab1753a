"""A mapper's logical device as a range of bytes.

Mappers move whole 4096-byte blocks. Requests of other sizes, which traces and network
clients send, are widened here: read the blocks at the edges, change them, write them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Mapper, ReadsInto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Buffer

ZERO_CHUNK_BYTES = 4 << 20
"""How many zeroes are in memory at a time when a range is overwritten with them."""

_BLOCK = LOGICAL_BLOCK_BYTES


class Volume:
    """Byte-addressed access to ``mapper``; ranges must lie inside the logical device."""

    def __init__(self, mapper: Mapper) -> None:
        self.mapper = mapper
        self.size_bytes = mapper.size_blocks * _BLOCK
        self._read_into = mapper.read_into if isinstance(mapper, ReadsInto) else None

    def contains(self, offset_bytes: int, length_bytes: int) -> bool:
        """True when the range lies inside the logical device."""
        return 0 <= offset_bytes <= self.size_bytes and 0 <= length_bytes <= self.size_bytes - offset_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """Exactly ``length_bytes`` bytes; any alignment."""
        if not length_bytes:
            return b""
        first, skip = divmod(offset_bytes, _BLOCK)
        count = -(-(skip + length_bytes) // _BLOCK)
        data = self._read_blocks(first, count)
        return data if len(data) == length_bytes else memoryview(data)[skip : skip + length_bytes]

    def read_reusing(self, offset_bytes: int, length_bytes: int, buffer: memoryview) -> Buffer:
        """Whole blocks, in ``buffer`` where the mapper reads into one: fresh memory costs more than the copy."""
        if self._read_into is None:
            return self.mapper.read(offset_bytes // _BLOCK, length_bytes // _BLOCK)
        self._read_into(offset_bytes // _BLOCK, buffer[:length_bytes])
        return buffer[:length_bytes]

    def _read_blocks(self, first: int, count: int) -> Buffer:
        if self._read_into is None:
            return self.mapper.read(first, count)
        content = bytearray(count * _BLOCK)
        self._read_into(first, memoryview(content))
        return content

    def write(self, offset_bytes: int, data: Buffer) -> None:
        """Write ``data`` at any alignment; partly covered blocks keep their other bytes."""
        view = memoryview(data)
        if not view:
            return
        first, skip = divmod(offset_bytes, _BLOCK)
        count = -(-(skip + len(view)) // _BLOCK)
        if skip == 0 and count * _BLOCK == len(view):
            self.mapper.write(first, view)
            return
        widened = bytearray(count * _BLOCK)
        if skip:
            widened[:_BLOCK] = self.mapper.read(first, 1)
        if (skip + len(view)) % _BLOCK and (count > 1 or not skip):
            widened[-_BLOCK:] = self.mapper.read(first + count - 1, 1)
        widened[skip : skip + len(view)] = view
        self.mapper.write(first, widened)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        """Discard the whole blocks inside a range; partly covered blocks are left alone."""
        first, end = -(-offset_bytes // _BLOCK), (offset_bytes + length_bytes) // _BLOCK
        if first < end:
            self.mapper.discard(first, end - first)

    def zero(self, offset_bytes: int, length_bytes: int, *, allocate: bool = False) -> None:
        """Make a range read as zeroes: by discarding its whole blocks, or by writing (``allocate``)."""
        end_bytes = offset_bytes + length_bytes
        first, end = -(-offset_bytes // _BLOCK), end_bytes // _BLOCK
        if first >= end:
            self.write(offset_bytes, bytes(length_bytes))
            return
        self.write(offset_bytes, bytes(first * _BLOCK - offset_bytes))
        if allocate:
            step = ZERO_CHUNK_BYTES // _BLOCK
            for block in range(first, end, step):
                self.mapper.write(block, bytes(min(step, end - block) * _BLOCK))
        else:
            self.mapper.discard(first, end - first)
        self.write(end * _BLOCK, bytes(end_bytes - end * _BLOCK))

    def extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, bool]]:
        """``(offset, length, stored)`` runs that cover a range, ascending, neighbours differing.

        What is not stored reads as zeroes.
        """
        if not length_bytes:
            return
        end_bytes = offset_bytes + length_bytes
        first, last = offset_bytes // _BLOCK, (end_bytes - 1) // _BLOCK
        start, stored_before = offset_bytes, None
        for extent in self.mapper.lookup(first, last - first + 1):
            stored = extent.physical_block is not None
            if stored_before is None:
                stored_before = stored
            elif stored != stored_before:
                at = extent.logical_block * _BLOCK
                if at >= end_bytes:
                    break
                yield start, at - start, stored_before
                start, stored_before = at, stored
        if start < end_bytes:
            yield start, end_bytes - start, stored_before is not False
