"""The write path, as the driver's (dm-inplace-compress.c, ``dm_icomp_handle_write``).

Requests are cut at windows; an extent that is only partly covered is decoded, patched and stored
again whole; a completely covered one is replaced without being read. One of the driver's defects is
not reproduced unless asked for: data behind a partly covered extent taken from the start of the
request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress.entries import extent_entries
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS
from zoned_tools.formats.inplace_compress.mapper.read import BadExtent, Unreadable, contents, fail
from zoned_tools.formats.inplace_compress.open import Volume, known_compressor
from zoned_tools.formats.inplace_compress.payload import encode_extents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.inplace_compress.bitmap import Bitmap
    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.mapper.commit import Committer, Counters

_CLEAR_BLOCKS = 1 << 16


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a mapper behaves.

    Attributes:
        writeback_seconds: None for writethrough.
        window_blocks: 2 or 32, the driver's on hosts with 4 KiB and 64 KiB pages.
        exact_encoder: make the kernel's own LZO streams instead of the fastest library's.
        misplaced_data: reproduce the driver's defect behind partly covered extents.
        discards: False to refuse them as the driver does.
    """

    writeback_seconds: int | None = None
    window_blocks: int = 2
    exact_encoder: bool = True
    misplaced_data: bool = False
    discards: bool = True


@dataclass(frozen=True, slots=True)
class _Request:
    """Whole blocks that are to be written from ``block`` on."""

    block: int
    data: memoryview

    @property
    def end(self) -> int:
        return self.block + len(self.data) // BLOCK_BYTES

    def part(self, first: int, end: int) -> memoryview:
        """The data of a range inside the request."""
        return self.data[(first - self.block) * BLOCK_BYTES : (end - self.block) * BLOCK_BYTES]


class Writer:
    """Stores requests of a volume that is opened for writing."""

    def __init__(
        self, volume: Volume, bitmap: Bitmap, behaviour: Behaviour, committer: Committer, counters: Counters
    ) -> None:
        self._volume = volume
        self._bitmap = bitmap
        self._behaviour = behaviour
        self._committer = committer
        self._counters = counters
        self._compressor = known_compressor(volume)

    def write(self, block: int, data: memoryview) -> None:
        """Write whole blocks, cut at windows.

        What cannot be read of the extents there does no harm where the data covers it: it is not needed, whatever the
        window is.

        Raises:
            DeviceError: EIO, something else of an extent that is only partly covered cannot be read; nothing
                of that window is written then.
        """
        window, request = self._behaviour.window_blocks, _Request(block, data)
        at = block
        while at < request.end:
            end = min((at // window + 1) * window, request.end)
            self._write_piece(_Request(at, request.part(at, end)), request)
            at = end

    def discard(self, block: int, count: int) -> None:
        """Make holes of the extents that are covered; others are patched with zeroes and stored again."""
        end = block + count
        first, last = block, end
        places, parts = [], []
        for head, blocks, content in self._partly_covered(block, end):
            low, high = max(head, block), min(head + blocks, end)
            patched = bytearray(content)
            patched[(low - head) * BLOCK_BYTES : (high - head) * BLOCK_BYTES] = bytes((high - low) * BLOCK_BYTES)
            places.append(head)
            parts.append(bytes(patched))
            first, last = (head + blocks, last) if head < block else (first, head)
        self._clear(first, last)
        self._store(places, parts)

    def _write_piece(self, piece: _Request, request: _Request) -> None:
        """The part of a request that is inside one window: decode what is partly covered, then store everything."""
        pieces = list(self._pieces(piece, request))
        self._store([place for place, _ in pieces], [part for _, part in pieces])

    def _pieces(self, piece: _Request, request: _Request) -> Iterator[tuple[int, bytes]]:
        """``(first block, content)`` of the extents that a piece makes, ascending."""
        at, end = piece.block, piece.end
        for head, blocks, content in self._partly_covered(piece.block, end, request):
            if at < head:
                yield at, self._gap(piece, at, head)
            first, last = max(head, piece.block), min(head + blocks, end)
            patched = bytearray(content)
            patched[(first - head) * BLOCK_BYTES : (last - head) * BLOCK_BYTES] = piece.part(first, last)
            yield head, bytes(patched)
            at = head + blocks
        if at < end:
            yield at, self._gap(piece, at, end)

    def _gap(self, piece: _Request, start: int, end: int) -> bytes:
        if self._behaviour.misplaced_data:
            return bytes(piece.data[: (end - start) * BLOCK_BYTES])
        return bytes(piece.part(start, end))

    def _partly_covered(self, block: int, end: int, request: _Request | None = None) -> list[tuple[int, int, bytes]]:
        """``(head, blocks, content)`` of the stored extents that a range covers in part, ascending.

        Args:
            request: takes the place of content that cannot be read, where it covers that.
        """
        extents = self._bitmap.extents(block, end - block)
        self._drop_orphans(extents)
        inside = (extents.head >= block) & (extents.head + extents.blocks <= end)
        wanted = extents.select(~inside & (extents.payload > 0))
        if not len(wanted):
            return []
        found = {
            head: bytearray(blocks * BLOCK_BYTES)
            for head, blocks in zip(wanted.head.tolist(), wanted.blocks.tolist(), strict=True)
        }
        starts = sorted(found)

        def fill(head: int, blocks: int, content: bytes | memoryview) -> None:
            owner = starts[int(np.searchsorted(starts, head, "right")) - 1]
            found[owner][(head - owner) * BLOCK_BYTES : (head - owner + blocks) * BLOCK_BYTES] = content

        covered: list[tuple[int, memoryview]] = []
        for head, blocks, content in contents(self._volume, wanted, self._unless_covered(request, covered)):
            fill(head, blocks, content)
        for block, data in covered:
            fill(block, len(data) // BLOCK_BYTES, data)
        return [(head, len(found[head]) // BLOCK_BYTES, bytes(found[head])) for head in starts]

    def _unless_covered(self, request: _Request | None, covered: list[tuple[int, memoryview]]) -> BadExtent:
        """The policy that stops at what cannot be read, and keeps the data that the request has in its place."""
        stop = fail(self._volume.device.path)

        def judge(bad: Unreadable) -> None:
            end = bad.block + bad.blocks
            if request is None or bad.block < request.block or end > request.end:
                return stop(bad)
            return covered.append((bad.block, request.part(bad.block, end)))

        return judge

    def _drop_orphans(self, extents: Extents) -> None:
        """Turn tails without a payload into holes, or the extent stored before them would swallow them."""
        orphans = extents.select((extents.payload == 0) & ~extents.bad_nibble)
        for head, blocks in zip(orphans.head.tolist(), orphans.blocks.tolist(), strict=True):
            self._bitmap.put(head, np.zeros(blocks, np.uint8))

    def _store(self, places: list[int], parts: list[bytes]) -> None:
        """Store each part as one extent: payload first, then entries, then the policy's bitmap write."""
        if not places:
            return
        volume, counters = self._volume, self._counters
        encoded_parts = encode_extents(self._compressor, parts, exact=self._behaviour.exact_encoder)
        for place, encoded in zip(places, encoded_parts, strict=True):
            volume.device.write(volume.block_offset_bytes(place), encoded.data)
            self._bitmap.put(place, extent_entries(encoded.blocks, encoded.payload_sectors))
            counters.uncompressed_bytes += encoded.blocks * BLOCK_BYTES
            raw = encoded.payload_sectors == encoded.blocks * BLOCK_SECTORS
            counters.compressed_bytes += len(encoded.data) * (2 if raw else 1)  # the driver counts raw extents twice
        self._committer.after_change(places[0], places[-1] + len(parts[-1]) // BLOCK_BYTES)

    def _clear(self, first: int, end: int) -> None:
        for start in range(first, end, _CLEAR_BLOCKS):
            stop = min(start + _CLEAR_BLOCKS, end)
            self._bitmap.put(start, np.zeros(stop - start, np.uint8))
            self._committer.after_change(start, stop)
