"""Changed pages of a drive: sparse, a bounded part of them in memory, the others in a temporary file."""

from __future__ import annotations

import os
import tempfile

from zoned_tools.device.files import write_all
from zoned_tools.device.ranges import Ranges
from zoned_tools.errors import DeviceError

PAGE_BYTES = 4096
MEMORY_BYTES = 64 << 20
"""How much of the pages stays in memory; more goes to a file without a name in ``$TMPDIR``."""

_BLOCK_PAGES = 256
_ZEROES = bytes(PAGE_BYTES)


class Pages:
    """Pages by number; a page that was never put, or was dropped, is not there.

    Pages of zeroes are kept as ranges, so that a reset or a filled zone of any size costs
    nothing. The memory of the others is bounded by ``memory_bytes`` and about 100 bytes for
    each page.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._next = 0
        self._blocks: list[bytearray] = []
        self._in_memory = memory_bytes // PAGE_BYTES // _BLOCK_PAGES * _BLOCK_PAGES
        self._file = -1
        self.zeroes = Ranges()

    def __contains__(self, page: int) -> bool:
        """Whether the page was changed."""
        return page in self._slots or page in self.zeroes

    def stored(self, first: int, end: int) -> list[int]:
        """Numbers of the pages in a range that hold something else than zeroes, ascending."""
        slots = self._slots
        if len(slots) < end - first:
            return sorted(page for page in slots if first <= page < end)
        return [page for page in range(first, end) if page in slots]

    def read(self, page: int, skip: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from byte ``skip`` of a page that was changed."""
        slot = self._slots.get(page)
        if slot is None:
            buffer[:] = _ZEROES[: len(buffer)]
        elif slot < self._in_memory:
            block, at = divmod(slot, _BLOCK_PAGES)
            start = at * PAGE_BYTES + skip
            buffer[:] = memoryview(self._blocks[block])[start : start + len(buffer)]
        else:
            self._read_file((slot - self._in_memory) * PAGE_BYTES + skip, buffer)

    def put(self, page: int, content: bytes | bytearray | memoryview) -> None:
        """Keep a whole page."""
        if content == _ZEROES:
            self.drop(page, page + 1)
            return
        slot = self._slots.get(page)
        if slot is None:
            slot = self._slots[page] = self._take_slot()
        if slot < self._in_memory:
            block, at = divmod(slot, _BLOCK_PAGES)
            self._blocks[block][at * PAGE_BYTES : (at + 1) * PAGE_BYTES] = content
        else:
            self._write_file((slot - self._in_memory) * PAGE_BYTES, content)

    def drop(self, first: int, end: int) -> None:
        """Pages ``first`` to ``end`` (not included) are zeroes from now on."""
        if self._slots:
            for page in self.stored(first, end):
                self._free.append(self._slots.pop(page))
        self.zeroes.add(first, end)

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        slot = self._next
        self._next += 1
        if slot < self._in_memory and slot % _BLOCK_PAGES == 0:
            self._blocks.append(bytearray(_BLOCK_PAGES * PAGE_BYTES))
        return slot

    def _write_file(self, offset_bytes: int, content: bytes | bytearray | memoryview) -> None:
        try:
            if self._file < 0:
                with tempfile.TemporaryFile(prefix="zoned-overlay-") as file:
                    self._file = os.dup(file.fileno())
            write_all(self._file, content, offset_bytes)
        except OSError as error:
            where = tempfile.gettempdir()
            raise DeviceError.from_os_error(
                error, where, "cannot keep changed pages (TMPDIR names another place)"
            ) from None

    def _read_file(self, offset_bytes: int, buffer: memoryview) -> None:
        try:
            got = os.preadv(self._file, [buffer], offset_bytes)
        except OSError as error:
            raise DeviceError.from_os_error(error, tempfile.gettempdir(), "cannot read changed pages") from None
        assert got == len(buffer)

    def close(self) -> None:
        """Forget everything; the file is gone with it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()
