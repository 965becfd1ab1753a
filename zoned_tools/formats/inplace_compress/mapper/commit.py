"""When the bitmap reaches the device, and what the target counts.

Policies, as in the table line: ``writethrough`` writes the touched pages of the bitmap
after each piece's data; ``writeback=N`` keeps them in memory until a flush, the close, or
until N seconds have passed since the last commit. Unlike the driver, a commit flushes
the data first, so that after a flush nothing older can be lost. What a crash between
flushes leaves is in any policy what the driver leaves: new payloads behind old entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.formats.inplace_compress.layout import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.formats.inplace_compress.bitmap import Bitmap
    from zoned_tools.formats.inplace_compress.open import Volume


@dataclass(slots=True)
class Counters:
    """What ``dmsetup status`` shows: bytes written, stored and spent on the bitmap."""

    uncompressed_bytes: int = 0
    compressed_bytes: int = 0
    metadata_bytes: int = 0

    def status(self) -> str:
        return f"{self.uncompressed_bytes} {self.compressed_bytes} {self.metadata_bytes}"


class Committer:
    """Writes pages of the bitmap as the policy says.

    Args:
        seconds: of the writeback policy; None for writethrough.
    """

    def __init__(
        self, volume: Volume, bitmap: Bitmap, counters: Counters, *, seconds: int | None, clock: Callable[[], float]
    ) -> None:
        self._volume = volume
        self._bitmap = bitmap
        self._counters = counters
        self._seconds = seconds
        self._clock = clock
        self._committed_at = clock()

    def after_change(self, first: int, end: int) -> None:
        """The entries of blocks ``first`` to before ``end`` changed, their data is written."""
        if self._seconds is None:
            pages = self._bitmap.pages_of(first, end - first)
            self._write_pages(pages.start, pages.stop - 1)
            self._bitmap.written(set(pages))
        elif self._clock() - self._committed_at >= self._seconds:
            self.commit()

    def commit(self) -> None:
        """Write the dirty pages of the bitmap behind the data that they speak of."""
        self._committed_at = self._clock()
        runs = self._bitmap.dirty_writes()
        if not runs:
            return
        self._volume.device.flush()
        for first, last in runs:
            self._write_pages(first, last)
        self._bitmap.written(set(self._bitmap.dirty_pages))

    def _write_pages(self, first: int, last: int) -> None:
        offset, content = self._bitmap.page_write(first, last)
        self._volume.device.write(offset, content)
        self._counters.metadata_bytes += len(content) // SECTOR_BYTES * SECTOR_BYTES
