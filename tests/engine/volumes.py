"""Mappers for tests: a logical device in memory, and one that lies one to one on a drive."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from zoned_tools.device.base import Buffer, Device
from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, MapExtent

BLOCK = LOGICAL_BLOCK_BYTES


class MemoryMapper:
    """A sparse logical device in a dictionary; counts flushes, and fails where it is told to."""

    def __init__(self, size_blocks: int, *, writable: bool = True) -> None:
        self.size_blocks = size_blocks
        self.writable = writable
        self.blocks: dict[int, bytes] = {}
        self.broken: set[int] = set()
        self.write_errno = 0
        self.flushes = 0
        self.closed = False

    def _check(self, block: int, count: int) -> None:
        assert block >= 0
        assert count > 0
        assert block + count <= self.size_blocks
        assert not self.closed

    def read(self, block: int, count: int) -> bytes:
        self._check(block, count)
        for number in range(block, block + count):
            if number in self.broken:
                raise DeviceError(f"block {number} cannot be read", errno=errno.EIO)
        return b"".join(self.blocks.get(n, bytes(BLOCK)) for n in range(block, block + count))

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        view = memoryview(data)
        assert len(view) % BLOCK == 0
        self._check(block, len(view) // BLOCK)
        assert self.writable
        if self.write_errno:
            raise DeviceError("no more zones", errno=self.write_errno)
        for at in range(0, len(view), BLOCK):
            self.blocks[block + at // BLOCK] = bytes(view[at : at + BLOCK])

    def discard(self, block: int, count: int) -> None:
        self._check(block, count)
        assert self.writable
        for number in range(block, block + count):
            self.blocks.pop(number, None)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        self._check(block, count)
        for number in range(block, block + count):
            stored = number in self.blocks or number in self.broken
            yield MapExtent(number, 1, 0, number if stored else None, "stored" if stored else "hole")

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        self.closed = True

    def content(self) -> bytes:
        return b"".join(self.blocks.get(n, bytes(BLOCK)) for n in range(self.size_blocks))


class FileMapper:
    """Logical block n is block n of a file, read into the caller's buffer."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_blocks = os.fstat(self._file).st_size // BLOCK
        self.writable = False

    def read(self, block: int, count: int) -> bytes:
        return os.pread(self._file, count * BLOCK, block * BLOCK)

    def read_into(self, block: int, buffer: memoryview) -> None:
        assert os.preadv(self._file, [buffer], block * BLOCK) == len(buffer)

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        raise NotImplementedError

    def discard(self, block: int, count: int) -> None:
        raise NotImplementedError

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        yield MapExtent(block, count, 0, block, "file")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._file)


class StraightMapper:
    """Logical block n is block n of a regular device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.size_blocks = device.geometry.size_bytes // BLOCK
        self.writable = True

    def read(self, block: int, count: int) -> bytes:
        return self.device.read(block * BLOCK, count * BLOCK)

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        self.device.write(block * BLOCK, data)

    def discard(self, block: int, count: int) -> None:
        self.device.discard(block * BLOCK, count * BLOCK)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        yield MapExtent(block, count, 0, block, "straight")

    def flush(self) -> None:
        self.device.flush()

    def close(self) -> None:
        self.flush()
