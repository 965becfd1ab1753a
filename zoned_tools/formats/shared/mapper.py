"""What all mappers have in common: ranges, read-only and closed, with one errno for each."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, MapExtent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Buffer

OUT_OF_RANGE = errno.EINVAL
READ_ONLY = errno.EROFS
CLOSED = errno.EBADF
NOT_WHOLE_BLOCKS = errno.EINVAL


class MapperBase:
    """A mapper's front: it refuses what cannot be done, and hands the rest to the layout.

    A layout implements :meth:`read_blocks_into`, :meth:`write_blocks`, :meth:`discard_blocks`,
    :meth:`lookup_blocks`, :meth:`flush_changes` and :meth:`close_cleanly`; ranges that reach them are
    inside the logical device and not empty, changes reach them only when the mapper is writable.

    Attributes:
        writable: False when nothing may change.
        size_blocks: 4096-byte blocks of the logical device.
    """

    writable: bool
    size_blocks: int

    def __init__(self, path: str, size_blocks: int, *, writable: bool) -> None:
        self.path = path
        self.size_blocks = size_blocks
        self.writable = writable
        self._closed = False

    # -- what a layout implements

    def read_blocks_into(self, block: int, buffer: memoryview) -> None:
        raise self.refusal("cannot be read", errno.EOPNOTSUPP)

    def write_blocks(self, block: int, data: memoryview, stream: int) -> None:
        raise self.refusal("cannot be written", errno.EOPNOTSUPP)

    def discard_blocks(self, block: int, count: int) -> None:
        raise self.refusal("cannot be discarded", errno.EOPNOTSUPP)

    def lookup_blocks(self, block: int, count: int) -> Iterator[MapExtent]:
        raise self.refusal("cannot be looked up", errno.EOPNOTSUPP)

    def flush_changes(self) -> None:
        """Make everything durable; called on writable mappers only."""

    def close_cleanly(self) -> None:
        """What a clean stop of the driver writes; called once, on writable mappers only."""

    # -- Mapper

    def read(self, block: int, count: int) -> bytes:
        """Content of ``count`` blocks.

        Raises:
            DeviceError: out of range, closed, or what the drive gives.
        """
        self.check_range(block, count)
        content = bytearray(count * LOGICAL_BLOCK_BYTES)
        self.read_into(block, memoryview(content))
        return bytes(content)

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer``, whole blocks from ``block`` on; cheaper than :meth:`read` when it is used again."""
        view = self._whole_blocks(buffer)
        count = len(view) // LOGICAL_BLOCK_BYTES
        self.check_range(block, count)
        if count:
            self.read_blocks_into(block, view)

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        """Write whole blocks; ``stream`` is a placement hint that most layouts ignore."""
        view = self._whole_blocks(data)
        count = len(view) // LOGICAL_BLOCK_BYTES
        self.check_change(block, count)
        if count:
            self.write_blocks(block, view, stream)

    def discard(self, block: int, count: int) -> None:
        """Make blocks read as zeroes and give their space back."""
        self.check_change(block, count)
        if count:
            self.discard_blocks(block, count)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where the blocks live: ascending, without gaps, holes included."""
        self.check_range(block, count)
        return self.lookup_blocks(block, count) if count else iter(())

    def flush(self) -> None:
        self._check_open()
        if self.writable:
            self.flush_changes()

    def close(self) -> None:
        if self._closed:
            return
        if self.writable:
            self.close_cleanly()
        self._closed = True

    # -- refusals

    def check_range(self, block: int, count: int) -> None:
        """Refuse a range that is not on the logical device, and everything after :meth:`close`."""
        self._check_open()
        if block < 0 or count < 0 or block + count > self.size_blocks:
            raise self.refusal(
                f"blocks {block} to {block + count - 1} are not on the logical device of {self.size_blocks} blocks",
                OUT_OF_RANGE,
            )

    def check_change(self, block: int, count: int) -> None:
        """Refuse a change of a mapper that was opened for reading, and ranges as :meth:`check_range`."""
        self.check_range(block, count)
        if not self.writable:
            raise self.refusal("opened read-only", READ_ONLY)

    def _check_open(self) -> None:
        if self._closed:
            raise self.refusal("the mapper is closed", CLOSED)

    def _whole_blocks(self, data: Buffer) -> memoryview:
        view = memoryview(data)
        view = view if view.format == "B" else view.cast("B")
        if len(view) % LOGICAL_BLOCK_BYTES:
            raise self.refusal(f"{len(view)} bytes are not whole blocks", NOT_WHOLE_BLOCKS)
        return view

    def refusal(self, message: str, number: int) -> DeviceError:
        """An error that names the device."""
        return DeviceError(message, device=self.path, errno=number)
