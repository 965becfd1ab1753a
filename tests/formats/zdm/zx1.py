"""ZX1 extent containers as drives: fills and literal blocks are served without expanding them."""

from __future__ import annotations

import lzma
from bisect import bisect_right
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.emulated import EmulatedDrive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.zones import ZoneTable

BLOCK = 4096


class Extents:
    """The content of one container: sorted runs of one byte or of literal blocks."""

    def __init__(self, raw: bytes) -> None:
        end = raw.index(b"\n")
        magic, size, count = raw[:end].split()
        assert magic == b"ZX1"
        self.size_bytes = int(size)
        lines, at = [], end + 1
        for _ in range(int(count)):
            end = raw.index(b"\n", at)
            lines.append(raw[at:end].split())
            at = end + 1
        self.starts: list[int] = []
        self.runs: list[tuple[int, int | bytes]] = []
        for start, blocks, kind, *value in lines:
            length = int(blocks) * BLOCK
            if kind == b"F":
                content: int | bytes = int(value[0], 16)
            else:
                content = raw[at : at + length]
                at += length
            self.starts.append(int(start) * BLOCK)
            self.runs.append((length, content))
        assert at == len(raw)

    def overlapping(self, offset: int, length: int) -> Iterator[tuple[int, int, int | bytes]]:
        index = max(bisect_right(self.starts, offset) - 1, 0)
        while index < len(self.starts) and self.starts[index] < offset + length:
            yield self.starts[index], *self.runs[index]
            index += 1


class ExtentStore:
    """A store over extents; changed blocks are kept in memory."""

    def __init__(self, extents: Extents) -> None:
        self._extents = extents
        self.changed: dict[int, bytes] = {}
        self._contents: dict[bytes, bytes] = {}  # equal blocks are kept once

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        end = offset_bytes + len(buffer)
        buffer[:] = bytes(len(buffer))
        for start, length, content in self._extents.overlapping(offset_bytes, len(buffer)):
            low, high = max(start, offset_bytes), min(start + length, end)
            if low >= high:
                continue
            part = buffer[low - offset_bytes : high - offset_bytes]
            if isinstance(content, int):
                if content:
                    np.frombuffer(part, np.uint8).fill(content)
            else:
                part[:] = content[low - start : high - start]
        first, last = offset_bytes // BLOCK, (end - 1) // BLOCK
        if len(self.changed) < last - first:
            hits = [b for b in self.changed if first <= b <= last]
        else:
            hits = [b for b in range(first, last + 1) if b in self.changed]
        for block in hits:
            low, high = max(block * BLOCK, offset_bytes), min((block + 1) * BLOCK, end)
            content = self.changed[block]
            buffer[low - offset_bytes : high - offset_bytes] = content[low - block * BLOCK : high - block * BLOCK]

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            block, skip = divmod(offset_bytes + done, BLOCK)
            count = min(BLOCK - skip, len(view) - done)
            if count == BLOCK:
                content = bytes(view[done : done + count])
            else:
                whole = bytearray(BLOCK)
                self.read_into(block * BLOCK, memoryview(whole))
                whole[skip : skip + count] = view[done : done + count]
                content = bytes(whole)
            self.changed[block] = self._contents.setdefault(content, content)
            done += count

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        for start, length in list(self.data_extents(offset_bytes, length_bytes)):
            for at in range(max(start, offset_bytes), min(start + length, end), BLOCK):
                self.changed[at // BLOCK] = bytes(BLOCK)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        end = offset_bytes + length_bytes
        parts = [(s, n) for s, n, _ in self._extents.overlapping(offset_bytes, length_bytes)]
        parts += [(b * BLOCK, BLOCK) for b in self.changed]
        for start, length in sorted(parts):
            low, high = max(start, offset_bytes), min(start + length, end)
            if low < high:
                yield low, high - low

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Memory needs none."""

    def close(self) -> None:
        """Nothing is held."""


def _content(path: Path) -> bytes:
    packed = path.with_name(path.name + ".xz")
    return path.read_bytes() if path.exists() else lzma.decompress(packed.read_bytes())


@cache
def _load(folder: Path, name: str) -> tuple[Extents, dump.ZoneDump]:
    extents = Extents(lzma.decompress((folder / f"{name}.zx.xz").read_bytes()))
    return extents, dump.decode(_content(folder / f"{name}.zones"), name)


class VectorDrive(EmulatedDrive):
    """An emulated drive that lets tests reach past its zone rules."""

    @property
    def store(self) -> ExtentStore:
        assert isinstance(self._store, ExtentStore)
        return self._store


def empty_drive(folder: Path, name: str) -> VectorDrive:
    """A drive with the zones of a vector and nothing written."""
    _, zones = _load(folder, name)
    store = ExtentStore(Extents(b"ZX1 %d 0\n" % zones.geometry.size_bytes))
    return VectorDrive(name, zones.geometry, zones.table.copy(), store, writable=True)


def open_vector(folder: Path, name: str, *, writable: bool = True) -> VectorDrive:
    """A vector image as a drive of its own; several share the unchanged extents."""
    extents, zones = _load(folder, name)
    assert extents.size_bytes == zones.geometry.size_bytes
    return VectorDrive(name, zones.geometry, zones.table.copy(), ExtentStore(extents), writable=writable)


def open_case(folder: Path, base: str, case: dict[str, Any]) -> VectorDrive:
    """A base image with the patches of a corruption case."""
    drive = open_vector(folder, base)
    for patch in case["patches"]:
        at = patch["block"] * BLOCK + patch["offset"]
        drive.store.pwrite(at, bytes.fromhex(patch["hex"]))
    table = drive.zones()
    for patch in case["zone_patches"]:
        if "wp" in patch:
            table["wp_sector"][patch["zone"]] = patch["wp"] // 512
        if "cond" in patch:
            table["condition"][patch["zone"]] = patch["cond"]
    return VectorDrive(base, drive.geometry, table, drive.store, writable=True)
