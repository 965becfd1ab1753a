"""Saving what a plan is about to overwrite."""

from __future__ import annotations

import datetime
import errno
import json
import os
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.badareas import known_bad_areas, read_around
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.files import give_name, sync_directory, temporary_beside
from zoned_tools.device.partition import start_of_view
from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Produce, Stream, Write, ZoneFlags
from zoned_tools.device.undo_format import (
    CHUNK_BYTES,
    HEADER_NAME,
    PIECES,
    SCHEMA,
    TOUCHED,
    HeaderDocument,
    pays_to_compress,
)
from zoned_tools.device.undo_written import written_records
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneType, written_sectors
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan


@dataclass(frozen=True, slots=True)
class _Range:
    device: int
    offset_bytes: int
    length_bytes: int


def sequential_zones(device: Device, offset_bytes: int, length_bytes: int) -> Iterator[int]:
    """Sequential zones of a device that a byte range touches."""
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
            case Write() | Produce() | Fill() | Copy() | Stream():
                hit = list(sequential_zones(devices[step.device], step.offset_bytes, step.length_bytes))
                zones.update((step.device, zone) for zone in hit)
                if not hit:
                    ranges.add(_Range(step.device, step.offset_bytes, step.length_bytes))
            case ManageZones():
                table = devices[step.device].zones(step.first_zone, step.count)
                wanted = table["type"] != ZoneType.CONVENTIONAL
                if step.operation is ZoneOperation.RESET:
                    wanted &= table["condition"] != ZoneCondition.EMPTY
                zones.update((step.device, step.first_zone + int(z)) for z in wanted.nonzero()[0])
            case ZoneFlags():
                zones.add((step.device, step.zone))
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


def save_undo(
    path: str, devices: Sequence[Device], plan: Plan, identity: str = "", *, identity_after: str = ""
) -> None:
    """Save everything that ``plan`` would overwrite to a new file and make it durable, its name included.

    The file has its name when it is complete.

    Args:
        identity: what is on the devices now (layout and uuid), shown and kept in the file.
        identity_after: what will be on them, where the plan changes that (format); playing
            back accepts devices that carry either.

    Raises:
        DeviceError: the file exists or cannot be written, or a device cannot be read.
    """
    doing = "cannot create the undo file"
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with ExitStack() as stack:
            fd, temporary = temporary_beside(path)
            stack.callback(_unlink, temporary)
            raw = stack.enter_context(os.fdopen(fd, "w+b"))
            os.fchmod(fd, 0o600)
            doing = "cannot write the undo file"
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                _Writer(archive, devices).write(plan, identity, identity_after)
            raw.flush()
            os.fsync(fd)
            give_name(temporary, path)
            sync_directory(path)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, doing) from None


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


class _Writer:
    """Fills the archive; content goes into chunks that are compressed where it pays."""

    def __init__(self, archive: zipfile.ZipFile, devices: Sequence[Device]) -> None:
        self._archive = archive
        self._devices = devices
        self._chunk = bytearray()
        self._chunks = 0
        self._pieces: list[tuple[int, int, int, int, int]] = []

    def write(self, plan: Plan, identity: str, identity_after: str) -> None:
        devices = self._devices
        ranges, zones = _touched(devices, plan)
        header: HeaderDocument = {
            "schema": SCHEMA,
            "title": plan.title,
            "identity": identity,
            "identity_after": identity_after,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "devices": [
                {
                    "path": d.path,
                    "start_bytes": start_of_view(d),
                    "size_bytes": d.geometry.size_bytes,
                    "model": str(d.geometry.model),
                }
                for d in devices
            ],
        }
        self._archive.writestr(HEADER_NAME, json.dumps(header))
        with self._archive.open("written", "w", force_zip64=True) as member:
            for records in written_records(devices, plan.steps):
                member.write(records)
        self._archive.writestr("touched", np.array(sorted(zones), TOUCHED).tobytes())
        for number, device in enumerate(devices):
            if device.geometry.is_zoned:
                table = dump.encode(device.geometry, device.zones())
                self._archive.writestr(f"zones/{number}", table, zipfile.ZIP_DEFLATED, 1)
        for item in sorted(ranges | self._zone_ranges(zones), key=lambda r: (r.device, r.offset_bytes)):
            self._save(item)
        self._end_chunk()
        self._archive.writestr("pieces", np.array(self._pieces, PIECES).tobytes())

    def _zone_ranges(self, zones: set[tuple[int, int]]) -> set[_Range]:
        """What the sequential zones hold below their write pointers."""
        found = set()
        for number in {number for number, _ in zones}:
            device = self._devices[number]
            written = written_sectors(device.zones()) * SECTOR_BYTES
            for zone in (zone for other, zone in zones if other == number):
                if written[zone] > 0:
                    found.add(_Range(number, zone * device.geometry.zone_bytes, int(written[zone])))
        return found

    def _save(self, item: _Range) -> None:
        """Cut at multiples of a chunk on the device, so that no block lies across two pieces."""
        at, end = item.offset_bytes, item.offset_bytes + item.length_bytes
        while at < end:
            count = min(CHUNK_BYTES - at % CHUNK_BYTES, end - at)
            if len(self._chunk) + count > CHUNK_BYTES:
                self._end_chunk()
            self._pieces.append((item.device, self._chunks, at, count, len(self._chunk)))
            device, content = self._devices[item.device], bytearray(count)
            # Zeroes where a map file says that nothing is there to be saved; any other read that fails fails: what
            # cannot be saved must not be written over unnoticed.
            read_around(device.read_into, known_bad_areas(device, at, count), at, memoryview(content))
            self._chunk += content
            at += count

    def _end_chunk(self) -> None:
        if not self._chunk:
            return
        method = zipfile.ZIP_DEFLATED if pays_to_compress(self._chunk) else zipfile.ZIP_STORED
        self._archive.writestr(f"data/{self._chunks}", bytes(self._chunk), method, 1)
        self._chunks += 1
        self._chunk.clear()
