"""Drives that were saved by other tools: ``zbd dump`` pairs, ``blkzone report`` text and raw content."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.badareas import BadAreas, salvage_into
from zoned_tools.device.create import new_drive
from zoned_tools.device.files import replace_file
from zoned_tools.device.image import create_image, open_store, read_dump
from zoned_tools.device.mapfile import MAPFILE_SUFFIX, mapfile_content
from zoned_tools.device.zones import (
    SECTOR_BYTES,
    ZONE_DTYPE,
    ZoneTable,
    shown_rows,
)
from zoned_tools.errors import DeviceError, SidecarError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Device, Geometry
    from zoned_tools.device.filestore import FileStore

_INFO_DUMP, _DATA_DUMP = "_zone_info.dump", "_zone_data.dump"
_CHUNK_BYTES = 4 << 20
_MAX_TEXT_BYTES = 1 << 30

_BLKZONE_LINE = re.compile(
    rb"\s*start: 0x([0-9a-f]+), len 0x([0-9a-f]+)(?:, cap 0x([0-9a-f]+))?, wptr 0x([0-9a-f]+) "
    rb"reset:(\d) non-seq:(\d), zcond:\s*(\d+)\(..\) \[type: (\d)\([A-Z_]+\)\]"
)


def _no_progress(_done: int) -> None:
    pass


def find_data(zones_path: str) -> str:
    """The raw content that belongs to a zone table: the other half of a ``zbd dump`` pair, or of an image."""
    for ending, other in ((_INFO_DUMP, _DATA_DUMP), (".zones", "")):
        if zones_path.endswith(ending):
            return zones_path.removesuffix(ending) + other
    raise UsageError("say where the content is", hint="--data FILE", device=zones_path)


def load_zone_table(
    path: str, *, model: str | None, block_bytes: int, max_open_zones: int, max_active_zones: int
) -> tuple[Geometry, ZoneTable]:
    """A zone-info dump, or the text of ``blkzone report`` (which tells neither model nor block size nor limits).

    Raises:
        DeviceError: it cannot be read.
        SidecarError: it is neither, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            is_text = b"start: 0x" in head
            text = head + file.read(_MAX_TEXT_BYTES) if is_text else b""
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if not is_text:
        decoded = read_dump(path)
        return decoded.geometry, decoded.table
    table = parse_blkzone(text, path)
    aware = bool((table["type"] == 3).any())
    geometry, fresh = new_drive(
        model=model or ("host-aware" if aware else "host-managed"),
        size_bytes=int(table["start_sector"][-1] + table["length_sectors"][-1]) * SECTOR_BYTES,
        zone_bytes=int(table["length_sectors"][0]) * SECTOR_BYTES,
        block_bytes=block_bytes,
        max_open_zones=max_open_zones,
        max_active_zones=max_active_zones,
    )
    if len(fresh) != len(table):
        raise SidecarError("the report does not cover the whole drive", device=path)
    # The dump's own rules decide whether a drive can have reported this.
    checked = dump.decode(dump.encode(geometry, table), path)
    return checked.geometry, checked.table


def parse_blkzone(text: bytes, path: str) -> ZoneTable:
    """Zone table of a whole ``blkzone report``; older reports without capacities have capacity = length."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(b"Found ")]
    rows = []
    for number, line in enumerate(lines, start=1):
        match = _BLKZONE_LINE.match(line)
        if match is None:
            raise SidecarError(f"line {number} is not a line of blkzone report", device=path)
        start, length, capacity, wp = (int(v, 16) if v else None for v in match.groups()[:4])
        assert start is not None
        assert length is not None
        assert wp is not None
        reset, non_seq, condition, kind = (int(v) for v in match.groups()[4:])
        pointer = (start + wp) % (1 << 64)
        rows.append((start, length, pointer, kind, condition, non_seq, reset, length if capacity is None else capacity))
    if not rows or rows[0][0] != 0 or rows[0][1] == 0:
        raise SidecarError("the report does not begin at sector 0", device=path)
    table = np.zeros(len(rows), ZONE_DTYPE)
    for name, values in zip(ZONE_DTYPE.names or (), zip(*rows, strict=True), strict=True):
        table[name] = values
    return table


def copy_content(
    source: str,
    image: str,
    geometry: Geometry,
    table: ZoneTable,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = _no_progress,
) -> int:
    """Create ``image`` with the content of ``source`` below the write pointers; returns the bytes copied.

    ``source`` may be shorter than the drive (the rest is a hole) but not longer. Zone by
    zone only what the drive would show is copied, so the image has no stale bytes.

    Raises:
        DeviceError: a file cannot be read or written.
    """
    if Path(source).resolve() == Path(image).resolve():
        raise UsageError("the image would overwrite its own source", device=image)
    with closing(open_store(source)) as content:
        if content.size_bytes > geometry.size_bytes:
            raise DeviceError(f"longer than the drive ({geometry.size_bytes} bytes)", device=source)
        return _fill_image(content, image, geometry, table, overwrite=overwrite, progress=progress)


class Source(Protocol):
    """Where content comes from: a file, or a drive."""

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]: ...

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None: ...


class _Salvaged:
    """A drive of which everything can be read: what cannot is zeroes, and noted."""

    def __init__(self, drive: Device) -> None:
        self._drive = drive
        self._bad: list[tuple[int, int, str]] = []

    @property
    def bad(self) -> BadAreas:
        return BadAreas.of(self._bad)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        return self._drive.data_extents(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._bad += salvage_into(self._drive, offset_bytes, buffer, unit_bytes=SECTOR_BYTES)


def _fill_image(
    content: Source,
    image: str,
    geometry: Geometry,
    table: ZoneTable,
    *,
    overwrite: bool,
    progress: Callable[[int], None],
) -> int:
    """The image takes the place of an old one when it is complete."""
    copied = 0

    def fill(store: FileStore) -> None:
        nonlocal copied
        for start, end in shown_rows(table, geometry.size_bytes).tolist():
            copied += _copy_range(content, store, start, end - start)
            progress(end)
        if isinstance(content, _Salvaged) and len(content.bad):
            path = os.path.realpath(image) + MAPFILE_SUFFIX
            replace_file(path, mapfile_content(content.bad.over(geometry.size_bytes)))

    create_image(image, geometry, table, overwrite=overwrite, fill=fill)
    return copied


def copy_drive(
    drive: Device, image: str, *, overwrite: bool = False, progress: Callable[[int], None] = _no_progress
) -> int:
    """Create ``image`` as a copy of any device, zone states included; returns the bytes copied.

    What cannot be read is zeroes in the copy, and unreadable by the map file that is made beside it.
    """
    return _fill_image(_Salvaged(drive), image, drive.geometry, drive.zones(), overwrite=overwrite, progress=progress)


def _copy_range(content: Source, store: FileStore, start_bytes: int, length_bytes: int) -> int:
    copied = 0
    for start, length in content.data_extents(start_bytes, length_bytes):
        for at in range(start, start + length, _CHUNK_BYTES):
            buffer = bytearray(min(_CHUNK_BYTES, start + length - at))
            content.read_into(at, memoryview(buffer))
            if np.frombuffer(buffer, np.uint8).any():  # a block device does not tell where its holes are
                store.pwrite(at, buffer)
                copied += len(buffer)
    return copied
