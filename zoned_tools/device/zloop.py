"""Directories of the kernel's zoned loop driver as drives.

``cnv-000000``, ``seq-000001``...: one file a zone, in zone order. A conventional zone's file
has the zone's size; the size of a sequential zone's file is its write pointer
(Documentation/admin-guide/blockdev/zoned_loop.rst, Linux 6.15 and later). The directory does not
say how large zones are when none is conventional: then the driver's default of 256 MiB is
taken, or the next power of two of the longest file.

What a power cut can leave is what the driver itself leaves: file data are synced before
anything is reported as flushed, and a file never shrinks but by a reset.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoned_tools.device.base import Buffer, Device, Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.image import FileStore
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneCondition, ZoneTable, is_conventional, make_table
from zoned_tools.errors import BusyError, DeviceError, GeometryError

_FILE = re.compile(r"(cnv|seq)-(\d{6})")
DEFAULT_ZONE_BYTES = 256 << 20
_MAX_OPEN_FILES = 128


def is_zloop(path: str) -> bool:
    """Whether a directory holds the zone files of a zoned loop device."""
    return any((Path(path) / name).is_file() for name in ("cnv-000000", "seq-000000"))


def _zone_files(directory: Path) -> list[Path]:
    """The zone files, in zone order."""
    found: dict[int, Path] = {}
    for entry in directory.iterdir():
        match = _FILE.fullmatch(entry.name)
        if match is not None:
            number = int(match[2])
            if number in found:
                raise GeometryError(f"zone {number} has two files", device=str(directory))
            found[number] = entry
    missing = next((n for n in range(len(found)) if n not in found), None)
    if missing is not None:
        raise GeometryError(f"the file of zone {missing} is missing", device=str(directory))
    return [found[number] for number in range(len(found))]


def _zone_bytes(files: list[Path], sizes: list[int], directory: Path) -> int:
    conventional = {size for path, size in zip(files, sizes, strict=True) if path.name.startswith("cnv")}
    if len(conventional) > 1:
        raise GeometryError("its conventional zones have different sizes", device=str(directory))
    longest = max(sizes, default=0)
    size = conventional.pop() if conventional else max(DEFAULT_ZONE_BYTES, 1 << max(longest - 1, 0).bit_length())
    if size < 4096 or size & (size - 1) or longest > size:
        raise GeometryError(f"zone size {size} is not a power of two that holds every file", device=str(directory))
    return size


def _geometry(directory: Path, files: list[Path]) -> tuple[Geometry, ZoneTable]:
    sizes = [path.stat().st_size for path in files]
    zone_bytes = _zone_bytes(files, sizes, directory)
    nr_conventional = sum(path.name.startswith("cnv") for path in files)
    if any(path.name.startswith("seq") for path in files[:nr_conventional]):
        raise GeometryError("a conventional zone follows a sequential one", device=str(directory))
    table = make_table(
        len(files) * zone_bytes // SECTOR_BYTES, zone_bytes // SECTOR_BYTES, nr_conventional=nr_conventional
    )
    written = np.array(sizes, np.uint64) // np.uint64(SECTOR_BYTES)
    sequential = ~is_conventional(table)
    table["wp_sector"][sequential] = (table["start_sector"] + written)[sequential]
    table["condition"][sequential & (written > 0)] = ZoneCondition.CLOSED
    table["condition"][sequential & (written == table["capacity_sectors"])] = ZoneCondition.FULL
    size = len(files) * zone_bytes
    return Geometry(Model.HOST_MANAGED, size, zone_bytes, len(files), vendor="zoned_tools zloop ZBC"), table


class ZloopStore:
    """The bytes of the zone files; a few of them are open at a time."""

    def __init__(self, directory: Path, files: list[Path], zone_bytes: int, *, writable: bool) -> None:
        self._files = files
        self._zone_bytes = zone_bytes
        self._writable = writable
        self._open: dict[int, FileStore] = {}
        self._dirty: set[int] = set()
        try:
            self._lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock_fd, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise BusyError("in use by another program", device=str(directory), errno=errno.EBUSY) from None
        except OSError as error:
            raise DeviceError.from_os_error(error, str(directory), "cannot open") from None

    def _store(self, zone: int) -> FileStore:
        if zone not in self._open:
            if len(self._open) >= _MAX_OPEN_FILES:
                oldest = next(iter(self._open))
                if oldest in self._dirty:
                    self._open[oldest].sync(no_zones(), set())
                    self._dirty.discard(oldest)
                self._open.pop(oldest).close()
            path = str(self._files[zone])
            try:
                fd = os.open(path, (os.O_RDWR if self._writable else os.O_RDONLY) | os.O_CLOEXEC)
            except OSError as error:
                raise DeviceError.from_os_error(error, path, "cannot open") from None
            self._open[zone] = FileStore(path, fd)
        return self._open[zone]

    def _parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int, int]]:
        """``(zone, offset in the zone, offset in the range, length)``."""
        done = 0
        while done < length_bytes:
            zone, inside = divmod(offset_bytes + done, self._zone_bytes)
            count = min(length_bytes - done, self._zone_bytes - inside)
            yield zone, inside, done, count
            done += count

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        for zone, inside, at, count in self._parts(offset_bytes, len(buffer)):
            self._store(zone).read_into(inside, buffer[at : at + count])

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        for zone, inside, at, count in self._parts(offset_bytes, len(view)):
            self._store(zone).pwrite(inside, view[at : at + count])
            self._dirty.add(zone)

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        for zone, inside, _, count in self._parts(offset_bytes, length_bytes):
            if self._files[zone].name.startswith("cnv"):
                self._store(zone).punch(inside, count)
            else:  # of a sequential zone only the end is ever taken away
                self._store(zone).truncate(inside)
            self._dirty.add(zone)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        for zone, inside, _, count in self._parts(offset_bytes, length_bytes):
            for start, length in self._store(zone).data_extents(inside, count):
                yield zone * self._zone_bytes + start, length

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        for zone in changed:
            if table["condition"][zone] == ZoneCondition.FULL:
                # A finished zone is a file of full length; the driver knows no other way to say so.
                self._store(zone).truncate(int(table["capacity_sectors"][zone]) * SECTOR_BYTES)
                self._dirty.add(zone)
        for zone in sorted(self._dirty):
            self._store(zone).sync(table, set())
        self._dirty.clear()

    def close(self) -> None:
        for store in self._open.values():
            store.close()
        os.close(self._lock_fd)


def open_zloop(path: str, *, writable: bool = False) -> EmulatedDrive:
    """Open a directory of zone files as a drive.

    Raises:
        GeometryError: the files cannot be the zones of one drive.
        DeviceError: they cannot be opened.
    """
    directory = Path(path)
    try:
        files = _zone_files(directory)
        geometry, table = _geometry(directory, files)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    store = ZloopStore(directory, files, geometry.zone_bytes, writable=writable)
    return EmulatedDrive(path, geometry, table, store, writable=writable)


def write_zloop(device: Device, path: str) -> int:
    """Write a drive as a new directory of zone files; returns the bytes copied.

    Raises:
        GeometryError: the driver cannot have such a drive (not host-managed, a runt,
            conventional zones behind sequential ones, read-only or offline zones).
        DeviceError: the directory exists, or cannot be written.
    """
    table = device.zones()
    _refuse_foreign(device, table)
    directory = Path(path)
    copied = 0
    try:
        directory.mkdir()
        for zone, row in enumerate(table):
            conventional = row["type"] == 1
            start = int(row["start_sector"]) * SECTOR_BYTES
            full = int(row["capacity_sectors"]) * SECTOR_BYTES
            used = (
                full
                if conventional or row["condition"] == ZoneCondition.FULL
                else int(row["wp_sector"]) * SECTOR_BYTES - start
            )
            name = f"{'cnv' if conventional else 'seq'}-{zone:06d}"
            with open(directory / name, "xb") as file:
                file.truncate(used)
                copied += _copy_zone(device, start, used, file.fileno())
                os.fsync(file.fileno())
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None
    return copied


def _copy_zone(device: Device, start_bytes: int, length_bytes: int, fd: int) -> int:
    copied = 0
    for start, length in device.data_extents(start_bytes, length_bytes):
        for at in range(start, start + length, 4 << 20):
            data = device.read(at, min(4 << 20, start + length - at))
            os.pwrite(fd, data, at - start_bytes)
            copied += len(data)
    return copied


def _refuse_foreign(device: Device, table: ZoneTable) -> None:
    geometry = device.geometry
    conventional = is_conventional(table)
    rules = (
        (geometry.model is not Model.HOST_MANAGED, "is not host-managed"),
        (geometry.size_bytes % max(geometry.zone_bytes, 1) != 0, "has a runt zone"),
        (bool((~conventional[: int(conventional.sum())]).any()), "has conventional zones behind sequential ones"),
        (
            bool(np.isin(table["condition"], [ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE]).any()),
            "has read-only or offline zones",
        ),
    )
    for wrong, text in rules:
        if wrong:
            raise GeometryError(f"the zoned loop driver has no such drive: it {text}", device=device.path)
