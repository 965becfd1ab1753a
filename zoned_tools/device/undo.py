"""Undo files: what a plan is about to overwrite, saved and synced before its first write.

An undo file is a zip archive, so that ordinary tools read it and every member carries a
checksum:

- ``header.json``: schema, title, and for each device path, size and model (of a partition
  its size and start);
- ``written``: device, offset, length and SHA-256 of each block that the plan writes or copies
  (:data:`_WRITTEN`);
- ``zones/D``: zone table of device number D, as a libzbd zone-info dump;
- ``data/D/OFFSET``: bytes of device D at OFFSET before the plan.

Ranges in conventional zones and on regular devices are saved as they are. Of a sequential
zone that the plan touches everything below the write pointer is saved, because going back
means to reset it and write it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zoned_tools.device import dump
from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.device.partition import PartitionView, start_of_view
from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Plan, Produce, Step, Write
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneTable, ZoneType, written_sectors
from zoned_tools.errors import DeviceError, MetadataError, RefusedError

SCHEMA = "zoned.undo/1"
CHUNK_BYTES = 4 << 20
_PIECE_BYTES = 4096
_WRITTEN = np.dtype([("device", "<u4"), ("length_bytes", "<u4"), ("offset_bytes", "<u8"), ("digest", "V32")])


@dataclass(frozen=True, slots=True)
class _Range:
    device: int
    offset_bytes: int
    length_bytes: int


def _sequential_zones(device: Device, offset_bytes: int, length_bytes: int) -> Iterator[int]:
    """Sequential zones that a byte range touches."""
    geometry = device.geometry
    if not geometry.is_zoned or not length_bytes:
        return
    first = geometry.zone_of(offset_bytes)
    table = device.zones(first, geometry.zone_of(offset_bytes + length_bytes - 1) - first + 1)
    for index, kind in enumerate(table["type"].tolist()):
        if kind != ZoneType.CONVENTIONAL:
            yield first + index


def _touched(devices: Sequence[Device], plan: Plan) -> tuple[set[_Range], set[tuple[int, int]]]:
    """``(ranges, (device, zone) pairs of sequential zones)`` that a plan changes."""
    ranges: set[_Range] = set()
    zones: set[tuple[int, int]] = set()
    for step in plan.steps:
        match step:
            case Write() | Produce() | Fill() | Copy():
                hit = list(_sequential_zones(devices[step.device], step.offset_bytes, step.length_bytes))
                zones.update((step.device, zone) for zone in hit)
                if not hit:
                    ranges.add(_Range(step.device, step.offset_bytes, step.length_bytes))
            case ManageZones():
                table = devices[step.device].zones(step.first_zone, step.count)
                wanted = table["type"] != ZoneType.CONVENTIONAL
                if step.operation is ZoneOperation.RESET:
                    wanted &= table["condition"] != ZoneCondition.EMPTY
                zones.update((step.device, step.first_zone + int(z)) for z in wanted.nonzero()[0])
            case Flush():
                pass
    return _merged(ranges), zones


def _merged(ranges: set[_Range]) -> set[_Range]:
    """Overlapping and adjacent ranges joined, so that nothing is saved twice."""
    out: list[_Range] = []
    for item in sorted(ranges, key=lambda r: (r.device, r.offset_bytes)):
        last = out[-1] if out else None
        if (
            last is not None
            and last.device == item.device
            and item.offset_bytes <= last.offset_bytes + last.length_bytes
        ):
            end = max(last.offset_bytes + last.length_bytes, item.offset_bytes + item.length_bytes)
            out[-1] = _Range(item.device, last.offset_bytes, end - last.offset_bytes)
        else:
            out.append(item)
    return set(out)


def save_undo(path: str, devices: Sequence[Device], plan: Plan, identity: str = "") -> None:
    """Save everything that ``plan`` would overwrite to a new file and make it durable.

    Args:
        identity: what is on the devices now (layout and uuid), shown and kept in the file.

    Raises:
        DeviceError: the file exists or cannot be written, or a device cannot be read.
    """
    ranges, zones = _touched(devices, plan)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot create the undo file") from None
    try:
        with os.fdopen(fd, "w+b") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                _write_archive(archive, devices, plan, identity, ranges, zones)
            raw.flush()
            os.fsync(raw.fileno())
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot write the undo file") from None


def _write_archive(
    archive: zipfile.ZipFile,
    devices: Sequence[Device],
    plan: Plan,
    identity: str,
    ranges: set[_Range],
    zones: set[tuple[int, int]],
) -> None:
    header = {
        "schema": SCHEMA,
        "title": plan.title,
        "identity": identity,
        "devices": [
            {
                "path": d.path,
                "start_bytes": start_of_view(d),
                "size_bytes": d.geometry.size_bytes,
                "model": str(d.geometry.model),
            }
            for d in devices
        ],
        "sequential_zones": sorted(zones),
    }
    archive.writestr("header.json", json.dumps(header))
    with archive.open("written", "w", force_zip64=True) as member:
        for step in plan.steps:
            for offset, data in _new_content(devices[step.device], step):
                member.write(_records(step.device, offset, data))
    for number, device in enumerate(devices):
        if device.geometry.is_zoned:
            archive.writestr(f"zones/{number}", dump.encode(device.geometry, device.zones()))
    for item in sorted(ranges, key=lambda r: (r.device, r.offset_bytes)):
        _save_range(archive, devices, item)
    for number, zone in sorted(zones):
        start, _ = devices[number].geometry.zone_range_bytes(zone, 1)
        written = int(written_sectors(devices[number].zones(zone, 1))[0]) * SECTOR_BYTES
        if written > 0:
            _save_range(archive, devices, _Range(number, start, written))


def _new_content(device: Device, step: Step) -> Iterator[tuple[int, bytes]]:
    """``(offset, data)`` of what a step stores, other than a fill's pattern."""
    match step:
        case Write():
            yield step.offset_bytes, step.data
        case Produce():
            yield step.offset_bytes, step.produce()
        case Copy():
            yield from step.chunks(device)
        case Fill() | ManageZones() | Flush():
            pass


def _records(device: int, offset_bytes: int, data: bytes) -> bytes:
    """:data:`_WRITTEN` records of a write cut at multiples of 4096 bytes.

    A plan may write a place twice and be cut short in between: each version is known.
    """
    pieces, done = [], 0
    while done < len(data):
        at = offset_bytes + done
        count = min(_PIECE_BYTES - at % _PIECE_BYTES, len(data) - done)
        pieces.append((device, count, at, hashlib.sha256(data[done : done + count]).digest()))
        done += count
    return np.array(pieces, _WRITTEN).tobytes()


def _save_range(archive: zipfile.ZipFile, devices: Sequence[Device], item: _Range) -> None:
    with archive.open(f"data/{item.device}/{item.offset_bytes}", "w", force_zip64=True) as member:
        for done in range(0, item.length_bytes, CHUNK_BYTES):
            count = min(CHUNK_BYTES, item.length_bytes - done)
            member.write(devices[item.device].read(item.offset_bytes + done, count))


class UndoFile:
    """An undo file opened for playing back.

    Attributes:
        title: of the plan that it undoes.
        identity: what was on the devices before.
        paths: the devices as they were named.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            header: Any = json.loads(self._archive.read("header.json"))
            if header["schema"] != SCHEMA:
                raise ValueError(header["schema"])
            self.title = str(header["title"])
            self.identity = str(header["identity"])
            self._devices: list[Mapping[str, Any]] = [
                {
                    "path": d["path"],
                    "start_bytes": int(d["start_bytes"]),
                    "size_bytes": int(d["size_bytes"]),
                    "model": d["model"],
                }
                for d in header["devices"]
            ]
            self.paths = [str(d["path"]) for d in self._devices]
            self._zones = {(int(d), int(z)) for d, z in header["sequential_zones"]}
            self._written: npt.NDArray[np.void] = np.frombuffer(self._archive.read("written"), _WRITTEN)
            self._saved = sorted(_saved_member(name) for name in self._archive.namelist() if name.startswith("data/"))
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot open") from None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise MetadataError("not an undo file, or a damaged one", device=path) from error

    def views(self, devices: Sequence[Device]) -> list[Device]:
        """The devices, opened whole, as the plan saw them: of some it changed a partition only.

        Raises:
            RefusedError: other devices.
        """
        if len(devices) != len(self._devices):
            raise RefusedError(f"the undo file is for {len(self._devices)} devices", device=self.path)
        return [self._view(device, saved) for device, saved in zip(devices, self._devices, strict=True)]

    def _view(self, device: Device, saved: Mapping[str, Any]) -> Device:
        start = saved["start_bytes"]
        if not start:
            return device
        try:
            return PartitionView(device, start, start + saved["size_bytes"])
        except DeviceError as error:
            raise RefusedError(
                f"not the device that {self.path} was saved from: {error.message}", device=device.path
            ) from None

    def check(self, devices: Sequence[Device], *, force: bool = False) -> None:
        """Refuse devices that are not the ones saved, or that have changed since.

        Raises:
            MetadataError: the file is damaged.
            RefusedError: other devices, or something else wrote where the plan wrote
                (``force`` overrides the latter).
        """
        bad = self._archive.testzip()
        if bad is not None:
            raise MetadataError(f"damaged undo file: {bad} fails its checksum", device=self.path)
        if len(devices) != len(self._devices):
            raise RefusedError(f"the undo file is for {len(self._devices)} devices", device=self.path)
        for device, saved in zip(devices, self._devices, strict=True):
            facts = (device.geometry.size_bytes, str(device.geometry.model))
            if facts != (saved["size_bytes"], saved["model"]):
                raise RefusedError(f"not the device that {self.path} was saved from", device=device.path)
        if not force:
            self._refuse_newer_content(devices)

    def _refuse_newer_content(self, devices: Sequence[Device]) -> None:
        """Every place holds what was saved, or what the plan wrote (it may have been cut short)."""
        places = ["device", "offset_bytes", "length_bytes"]
        written = self._written[np.lexsort([self._written[name] for name in reversed(places)])]
        old = _OldContent(self._archive, self._saved)
        for (number, offset, length), rows in groupby(written.tolist(), key=itemgetter(0, 2, 1)):
            if number >= len(devices):
                raise MetadataError("damaged undo file: it names a device that it has not", device=self.path)
            device = devices[number]
            inside = offset + length <= device.geometry.size_bytes
            if not inside or next(_sequential_zones(device, offset, length), None) is not None:
                continue
            now = device.read(offset, length)
            digest = hashlib.sha256(now).digest()
            if now != old.read(number, offset, length) and all(row[3] != digest for row in rows):
                raise RefusedError(
                    f"byte {offset} was changed after the undo file was saved",
                    device=device.path,
                    hint="--force overwrites it",
                )

    def steps(self, devices: Sequence[Device]) -> Iterator[Step]:
        """The changes that bring the devices back, in order; data are read as they are needed."""
        tables = {
            number: dump.decode(self._archive.read(f"zones/{number}"), self.path).table
            for number, device in enumerate(devices)
            if device.geometry.is_zoned
        }
        for number, zone in sorted(self._zones):
            if devices[number].zones(zone, 1)["condition"][0] != ZoneCondition.EMPTY:
                yield ManageZones(number, ZoneOperation.RESET, zone)
        for number in range(len(devices)):
            yield Flush(number)
        finished = {
            (number, zone)
            for number, zone in self._zones
            if devices[number].emulated and _was_finished(tables[number][zone])
        }
        starts = {(number, zone * devices[number].geometry.zone_bytes) for number, zone in finished}
        for number, offset in self._saved:
            unit = devices[number].geometry.write_granularity_bytes if (number, offset) in starts else 0
            yield from self._restore_range(number, offset, unit)
        for number, zone in sorted(self._zones):
            if (number, zone) in finished:
                yield ManageZones(number, ZoneOperation.FINISH, zone)
            else:
                yield from _condition_steps(number, zone, tables[number])
        for number in range(len(devices)):
            yield Flush(number)

    def _restore_range(self, number: int, offset_bytes: int, unit_bytes: int) -> Iterator[Step]:
        """The writes of one saved range; zeroes at its end are left out in blocks of ``unit_bytes``, or kept (0)."""
        at = written = offset_bytes
        with self._archive.open(f"data/{number}/{offset_bytes}") as member:
            while data := member.read(CHUNK_BYTES):
                used = len(data)
                if unit_bytes:
                    used = -(-len(data.rstrip(b"\0")) // unit_bytes) * unit_bytes
                if used:
                    if at > written:
                        yield Fill(number, written, at - written, 0)
                    yield Write(number, at, data[:used])
                    written = at + used
                at += len(data)

    def close(self) -> None:
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _OldContent:
    """The saved ranges, read front to back: places are asked for in ascending order.

    A window ends at a multiple of its size, so no block that is asked for lies across two.
    """

    def __init__(self, archive: zipfile.ZipFile, saved: Sequence[tuple[int, int]]) -> None:
        self._windows = self._read(archive, saved)
        self._window: tuple[int, int, bytes] = (-1, 0, b"")

    @staticmethod
    def _read(archive: zipfile.ZipFile, saved: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, bytes]]:
        for device, start in saved:
            at = start
            with archive.open(f"data/{device}/{start}") as member:
                while data := member.read(CHUNK_BYTES - at % CHUNK_BYTES):
                    yield device, at, data
                    at += len(data)

    def read(self, number: int, offset_bytes: int, length_bytes: int) -> bytes:
        """The bytes that were saved there; empty when none were."""
        device, start, data = self._window
        while (device, start + len(data)) <= (number, offset_bytes):
            following = next(self._windows, None)
            if following is None:
                return b""
            device, start, data = self._window = following
        skip = offset_bytes - start
        return data[skip : skip + length_bytes] if device == number and skip >= 0 else b""


def _saved_member(name: str) -> tuple[int, int]:
    _, device, offset = name.split("/")
    return int(device), int(offset)


def _was_finished(row: np.void) -> bool:
    """Whether a full zone's write pointer is where a finish leaves it: then the end of it was perhaps never written."""
    at_end = row["wp_sector"] == row["start_sector"] + row["length_sectors"]
    return bool(row["condition"] == ZoneCondition.FULL and at_end)


def _condition_steps(number: int, zone: int, table: ZoneTable) -> Iterator[Step]:
    """Zone management that a rewritten zone still needs to be in its old condition."""
    row = table[zone]
    wanted = ZoneCondition(int(row["condition"]))
    if wanted is ZoneCondition.EXPLICIT_OPEN:
        yield ManageZones(number, ZoneOperation.OPEN, zone)
    elif wanted is ZoneCondition.CLOSED and row["wp_sector"] > row["start_sector"]:
        yield ManageZones(number, ZoneOperation.CLOSE, zone)
