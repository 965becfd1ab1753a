"""Drives for the fuzzer: base images that stay in memory, and damaged views of them that cost a few pages."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from tests.archives import unpack
from zoned_tools.device import dump
from zoned_tools.device.base import Buffer, Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.zones import Model, ZoneTable

PAGE = 4096
_CHUNK = 256 << 10
_NOTHING = memoryview(bytes(_CHUNK))
VECTORS = Path(__file__).parents[1] / "vectors"


class Content(Protocol):
    """Bytes that are only read."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None: ...

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]: ...


class SparseContent:
    """Content of an image, in chunks; those that hold nothing are left out."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._stored: dict[int, list[tuple[int, int]]] = {}

    @classmethod
    def of_file(cls, path: Path) -> SparseContent:
        """The data of a sparse file."""
        content = cls()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            while at < size:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:  # nothing but a hole is left
                    break
                at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                content.put(start, os.pread(file.fileno(), at - start, start))
        return content

    def copy(self) -> SparseContent:
        """The same content, to be changed."""
        other = SparseContent()
        other._chunks = {chunk: bytearray(data) for chunk, data in self._chunks.items()}
        return other

    def put(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        for chunk, skip, start, end in _pieces(offset_bytes, len(view)):
            self._chunks.setdefault(chunk, bytearray(_CHUNK))[skip : skip + end - start] = view[start:end]
            self._stored.pop(chunk, None)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        for chunk, skip, start, end in _pieces(offset_bytes, len(buffer)):
            content = self._chunks.get(chunk)
            buffer[start:end] = (
                _NOTHING[: end - start] if content is None else memoryview(content)[skip : skip + end - start]
            )

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        """The parts of a range whose pages are not zero."""
        for chunk, skip, start, end in _pieces(offset_bytes, length_bytes):
            if chunk not in self._chunks:
                continue
            if chunk not in self._stored:
                self._stored[chunk] = _stored_runs(self._chunks[chunk])
            for first, last in self._stored[chunk]:
                low, high = max(first, skip), min(last, skip + end - start)
                if low < high:
                    yield chunk * _CHUNK + low, high - low


def _stored_runs(content: bytearray) -> list[tuple[int, int]]:
    """``(first byte, end byte)`` of the runs of pages that are not zero."""
    pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE).any(axis=1)
    edges = np.flatnonzero(np.diff(pages.astype(np.int8), prepend=0, append=0)).reshape(-1, 2) * PAGE
    return [(first, end) for first, end in edges.tolist()]


def _pieces(offset_bytes: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """``(chunk, offset in it, start, end)`` of the parts of a range."""
    done = 0
    while done < length:
        chunk, skip = divmod(offset_bytes + done, _CHUNK)
        count = min(_CHUNK - skip, length - done)
        yield chunk, skip, done, done + count
        done += count


@dataclass(frozen=True)
class BaseDrive:
    """One drive of a base image; shared by all inputs, never changed."""

    name: str
    geometry: Geometry
    table: ZoneTable
    content: Content

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Stored bytes, whatever the zone table says."""
        buffer = bytearray(length_bytes)
        self.content.read_into(offset_bytes, memoryview(buffer))
        return bytes(buffer)


@dataclass(frozen=True)
class Base:
    """A base image: its drives in order, and where the layout begins.

    Attributes:
        facts: places that the mutators of the layout look up once (super blocks, tables...).
    """

    drives: tuple[BaseDrive, ...]
    start_sector: int | None = None
    facts: dict[str, object] = field(default_factory=dict)

    def damaged(self) -> list[FuzzDrive]:
        """Fresh views that mutations are applied to."""
        return [FuzzDrive(drive) for drive in self.drives]


class FuzzStore:
    """Changed pages over a base drive's content."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.pages: dict[int, bytes] = {}

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.content.read_into(offset_bytes, buffer)
        if not self.pages or not len(buffer):
            return
        first, last = offset_bytes // PAGE, (offset_bytes + len(buffer) - 1) // PAGE
        few = len(self.pages) < last - first
        for page in [p for p in self.pages if first <= p <= last] if few else range(first, last + 1):
            changed = self.pages.get(page)
            if changed is not None:
                low = max(page * PAGE, offset_bytes)
                high = min((page + 1) * PAGE, offset_bytes + len(buffer))
                buffer[low - offset_bytes : high - offset_bytes] = changed[low - page * PAGE : high - page * PAGE]

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        first, end = offset_bytes // PAGE, -(-(offset_bytes + len(view)) // PAGE)
        whole = bytearray((end - first) * PAGE)
        self.read_into(first * PAGE, memoryview(whole))
        start = offset_bytes - first * PAGE
        whole[start : start + len(view)] = view
        for page in range(first, end):
            self.pages[page] = bytes(whole[(page - first) * PAGE :][:PAGE])

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        self.pwrite(offset_bytes, bytes(length_bytes))

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        end_bytes = offset_bytes + length_bytes
        found = list(self.content.data_extents(offset_bytes, length_bytes))
        first, last = offset_bytes // PAGE, (end_bytes - 1) // PAGE
        few = len(self.pages) < last - first
        pages = [p for p in self.pages if first <= p <= last] if few else range(first, last + 1)
        found += [(page * PAGE, PAGE) for page in pages if page in self.pages]
        at = offset_bytes
        for start, length in sorted(found):
            low, high = max(start, at), min(start + length, end_bytes)
            if low < high:
                yield low, high - low
                at = high

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Memory needs none."""

    def close(self) -> None:
        """Nothing is held."""


class FuzzDrive(EmulatedDrive):
    """A damaged drive: mutations reach past its zone rules, journeys look at it through overlays."""

    def __init__(self, base: BaseDrive) -> None:
        self.base = base
        self.stored = FuzzStore(base.content)
        super().__init__(base.name, base.geometry, base.table.copy(), self.stored)

    @property
    def table(self) -> ZoneTable:
        return self.machine.table

    def peek(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Stored bytes, cut at the end of the drive."""
        offset = min(max(offset_bytes, 0), self.geometry.size_bytes)
        buffer = bytearray(min(length_bytes, self.geometry.size_bytes - offset))
        if buffer:
            self.stored.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def poke(self, offset_bytes: int, data: bytes) -> None:
        """Store bytes, cut at the end of the drive."""
        if 0 <= offset_bytes < self.geometry.size_bytes:
            self.stored.pwrite(offset_bytes, data[: self.geometry.size_bytes - offset_bytes])

    def settled(self) -> FuzzDrive:
        """The same content with the zone machine made anew from the (changed) zone table."""
        fresh = FuzzDrive(BaseDrive(self.base.name, self.geometry, self.table, self.base.content))
        fresh.stored.pages = self.stored.pages
        return fresh


def base_of_image(path: Path, name: str = "") -> BaseDrive:
    """An image file with or without its zone table."""
    sidecar = path.with_name(path.name + ".zones")
    content = SparseContent.of_file(path)
    if sidecar.exists():
        zones = dump.decode(sidecar.read_bytes(), str(sidecar))
        return BaseDrive(name or path.name, zones.geometry, zones.table, content)
    geometry = Geometry(Model.REGULAR, path.stat().st_size)
    return BaseDrive(name or path.name, geometry, no_zones(), content)


def base_of_archive(folder: str, name: str, files: Sequence[str] = ("disk.img",)) -> Base:
    """The images of a vector's ``.tar.xz``."""
    with tempfile.TemporaryDirectory() as scratch:
        unpack(VECTORS / folder / f"{name}.tar.xz", Path(scratch))
        return Base(tuple(base_of_image(Path(scratch) / file, file) for file in files))


def written_base(name: str, geometry: Geometry, table: ZoneTable, write: Callable[[EmulatedDrive], None]) -> BaseDrive:
    """A drive that ``write`` makes from an empty one."""
    empty = BaseDrive(name, geometry, table, SparseContent())
    drive = FuzzDrive(empty)
    drive.writable = True
    write(drive)
    drive.flush()
    content = SparseContent()
    for page, data in drive.stored.pages.items():
        content.put(page * PAGE, data[: geometry.size_bytes - page * PAGE])
    return BaseDrive(name, geometry, drive.table.copy(), content)
