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

import os
import re
import shutil
import stat
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import Geometry
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.files import lock, open_regular, sync_directory
from zoned_tools.device.filestore import FileStore
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneCondition, ZoneTable, is_conventional, make_table
from zoned_tools.errors import DeviceError, GeometryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Buffer, Device

_FILE = re.compile(r"(cnv|seq)-(\d{6})")
DEFAULT_ZONE_BYTES = 256 << 20
_MAX_OPEN_FILES = 128
_MAX_UNSYNCED_FILES = _MAX_OPEN_FILES // 2
"""Files that wait for a sync stay open, so that an error of the kernel's writing reaches their ``fdatasync``."""


def is_zloop(path: str) -> bool:
    """Whether a directory holds the zone files of a zoned loop device."""
    return any(os.path.lexists(os.path.join(path, name)) for name in ("cnv-000000", "seq-000000"))


def _zone_files(fd: int, path: str) -> tuple[list[str], list[int]]:
    """Names and sizes of the zone files in an open directory, in zone order.

    Raises:
        DeviceError: one is not a regular file; links are not followed, wherever they point.
        GeometryError: numbers are missing or doubled.
    """
    found: dict[int, tuple[str, int]] = {}
    with os.scandir(fd) as entries:
        for entry in entries:
            match = _FILE.fullmatch(entry.name)
            if match is None:
                continue
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                raise DeviceError(f"its zone file {entry.name} is {what}", device=path)
            number = int(match[2])
            if number in found:
                raise GeometryError(f"zone {number} has two files", device=path)
            found[number] = (entry.name, status.st_size)
    missing = next((n for n in range(len(found)) if n not in found), None)
    if missing is not None:
        raise GeometryError(f"the file of zone {missing} is missing", device=path)
    ordered = [found[number] for number in range(len(found))]
    return [name for name, _ in ordered], [size for _, size in ordered]


def _zone_bytes(files: list[str], sizes: list[int], path: str) -> int:
    conventional = {size for name, size in zip(files, sizes, strict=True) if name.startswith("cnv")}
    if len(conventional) > 1:
        raise GeometryError("its conventional zones have different sizes", device=path)
    longest = max(sizes, default=0)
    size = conventional.pop() if conventional else max(DEFAULT_ZONE_BYTES, 1 << max(longest - 1, 0).bit_length())
    if size < 4096 or size & (size - 1) or longest > size:
        raise GeometryError(f"zone size {size} is not a power of two that holds every file", device=path)
    return size


def _geometry(files: list[str], sizes: list[int], path: str) -> tuple[Geometry, ZoneTable]:
    zone_bytes = _zone_bytes(files, sizes, path)
    nr_conventional = sum(name.startswith("cnv") for name in files)
    if any(name.startswith("seq") for name in files[:nr_conventional]):
        raise GeometryError("a conventional zone follows a sequential one", device=path)
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


def _lock_directory(real: str, path: str, *, writable: bool) -> int:
    try:
        fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    try:
        lock(fd, path, exclusive=writable)
    except BaseException:
        os.close(fd)
        raise
    return fd


class ZloopStore:
    """The bytes of the zone files; a few of them are open at a time.

    Args:
        directory_fd: the locked directory; closed with the store.
        path: how messages name it.
    """

    def __init__(self, directory_fd: int, path: str, files: list[str], zone_bytes: int, *, writable: bool) -> None:
        self._directory_fd = directory_fd
        self._path = path
        self._files = files
        self._zone_bytes = zone_bytes
        self._writable = writable
        self._open: dict[int, FileStore] = {}
        self._dirty: dict[int, None] = {}

    def _store(self, zone: int) -> FileStore:
        if zone not in self._open:
            if len(self._open) >= _MAX_OPEN_FILES:
                self._open.pop(next(z for z in self._open if z not in self._dirty)).close()
            name = os.path.join(self._path, self._files[zone])
            fd = open_regular(self._files[zone], name, writable=self._writable, follow=False, dir_fd=self._directory_fd)
            self._open[zone] = FileStore(name, fd)
        return self._open[zone]

    def _changing(self, zone: int) -> FileStore:
        """A zone's file that now waits for a sync; the oldest that does so is synced when there are many."""
        if zone not in self._dirty and len(self._dirty) >= _MAX_UNSYNCED_FILES:
            self._sync_file(next(iter(self._dirty)))
        store = self._store(zone)
        self._dirty[zone] = None
        return store

    def _sync_file(self, zone: int) -> None:
        self._open[zone].sync(no_zones(), set())
        del self._dirty[zone]

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
            self._changing(zone).pwrite(inside, view[at : at + count])

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        for zone, inside, _, count in self._parts(offset_bytes, length_bytes):
            if self._files[zone].startswith("cnv"):
                self._changing(zone).punch(inside, count)
            elif inside < self._store(zone).size_bytes:  # of a sequential zone only the end is ever taken away
                self._changing(zone).truncate(inside)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        for zone, inside, _, count in self._parts(offset_bytes, length_bytes):
            for start, length in self._store(zone).data_extents(inside, count):
                yield zone * self._zone_bytes + start, length

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        for zone in sorted(changed):
            condition = table["condition"][zone]
            # The length of a zone's file is its state, the driver knows no other way to say it.
            if condition == ZoneCondition.FULL:
                self._set_length(zone, int(table["capacity_sectors"][zone]) * SECTOR_BYTES)
            elif condition == ZoneCondition.EMPTY:
                self._set_length(zone, 0)
        for zone in sorted(self._dirty):
            self._sync_file(zone)

    def _set_length(self, zone: int, length_bytes: int) -> None:
        if self._store(zone).size_bytes != length_bytes:
            self._changing(zone).truncate(length_bytes)

    def close(self) -> None:
        for store in self._open.values():
            store.close()
        self._open.clear()
        fd, self._directory_fd = self._directory_fd, -1  # the number may be another directory's soon
        if fd >= 0:
            os.close(fd)


def open_zloop(path: str, *, writable: bool = False) -> EmulatedDrive:
    """Open a directory of zone files as a drive.

    Raises:
        GeometryError: the files cannot be the zones of one drive.
        DeviceError: they cannot be opened, or one is not a regular file.
        BusyError: another program has the directory open.
    """
    fd = _lock_directory(os.path.realpath(path), path, writable=writable)
    try:
        files, sizes = _zone_files(fd, path)
        geometry, table = _geometry(files, sizes, path)
    except OSError as error:
        os.close(fd)
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    except BaseException:
        os.close(fd)
        raise
    store = ZloopStore(fd, path, files, geometry.zone_bytes, writable=writable)
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
    target = os.path.realpath(path)
    if os.path.lexists(target):
        raise DeviceError("already exists", device=path)
    building = os.path.join(os.path.dirname(target), f".zoned.{os.urandom(8).hex()}.new")
    try:
        os.mkdir(building)
        copied = sum(_write_zone(device, row, zone, building, path) for zone, row in enumerate(table))
        sync_directory(os.path.join(building, ""))
        os.rename(building, target)  # a directory that was cut short could pass for a smaller drive
        sync_directory(target)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return copied


def _write_zone(device: Device, row: np.void, zone: int, directory: str, shown: str) -> int:
    """Make the file of one zone; returns the bytes copied. Messages call the directory ``shown``."""
    conventional = row["type"] == 1
    start = int(row["start_sector"]) * SECTOR_BYTES
    full = int(row["capacity_sectors"]) * SECTOR_BYTES
    whole = conventional or row["condition"] == ZoneCondition.FULL
    used = full if whole else int(row["wp_sector"]) * SECTOR_BYTES - start
    name = f"{'cnv' if conventional else 'seq'}-{zone:06d}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    store = FileStore(os.path.join(shown, name), os.open(os.path.join(directory, name), flags, 0o666))
    copied = 0
    try:
        store.truncate(used)
        for first, length in device.data_extents(start, used):
            for at in range(first, first + length, 4 << 20):
                data = device.read(at, min(4 << 20, first + length - at))
                store.pwrite(at - start, data)
                copied += len(data)
        store.sync(no_zones(), set())
    finally:
        store.close()
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
