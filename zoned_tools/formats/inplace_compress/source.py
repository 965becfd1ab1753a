"""Raw content that may become a volume: a regular file or a block device, read in parts."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.files import next_data
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_BLOCKS = 1024
"""Blocks of the source that are read, compressed and written at a time; a multiple of every window."""


@dataclass(frozen=True, slots=True)
class Source:
    """Raw content: a regular file or a block device.

    Attributes:
        path: its name.
        size_bytes: its length; the last block is filled up with zeroes.
        is_block_device: what it is.
    """

    path: str
    size_bytes: int
    is_block_device: bool = False

    @property
    def blocks(self) -> int:
        return -(-self.size_bytes // BLOCK_BYTES)

    def data_parts(self) -> Iterator[tuple[int, int]]:
        """``(first block, blocks)`` of the parts that may hold anything, ascending."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            part_bytes = PART_BLOCKS * BLOCK_BYTES
            at = 0
            while at < self.size_bytes:
                start = next_data(fd, at, self.size_bytes)
                if start >= self.size_bytes:
                    return
                first = start // part_bytes * PART_BLOCKS
                yield first, min(PART_BLOCKS, self.blocks - first)
                at = (first + PART_BLOCKS) * BLOCK_BYTES
        finally:
            os.close(fd)

    def read(self, first_block: int, blocks: int) -> bytes:
        """Content of a range, zeroes behind the end.

        Raises:
            DeviceError: it cannot be read.
        """
        offset, length = first_block * BLOCK_BYTES, blocks * BLOCK_BYTES
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = b""
                while len(content) < length and (more := os.pread(fd, length - len(content), offset + len(content))):
                    content = content + more if content else more
            finally:
                os.close(fd)
        except OSError as error:
            raise DeviceError.from_os_error(error, self.path, f"cannot read at byte {offset}") from None
        return content.ljust(length, b"\0")


def open_source(path: str) -> Source:
    """Look at raw content.

    Raises:
        DeviceError: it cannot be opened, or is neither a regular file nor a block device.
        UsageError: it is empty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise DeviceError("neither a regular file nor a block device", device=path)
            size = os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if size == 0:
        raise UsageError("it is empty", device=path)
    return Source(path, size, stat.S_ISBLK(mode))
