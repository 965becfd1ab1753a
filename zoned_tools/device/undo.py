"""Undo files: what a plan is about to overwrite, saved and synced before its first write.

An undo file is a zip archive, so that ordinary tools read it and every member carries a
checksum:

- ``header.json``: schema, title, and for each device path, size and model, and for each
  saved range the SHA-256 of what the plan writes there;
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
from types import TracebackType
from typing import Any, Self

from zoned_tools.device import dump
from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.device.plan import Fill, Flush, ManageZones, Plan, Step, Write
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneTable, ZoneType, written_sectors
from zoned_tools.errors import DeviceError, MetadataError, RefusedError

SCHEMA = "zoned.undo/1"
CHUNK_BYTES = 4 << 20
_PIECE_BYTES = 4096


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
            case Write() | Fill():
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
            {"path": d.path, "size_bytes": d.geometry.size_bytes, "model": str(d.geometry.model)} for d in devices
        ],
        "sequential_zones": sorted(zones),
        "written": [list(piece) for s in plan.steps if isinstance(s, Write) for piece in _pieces(s)],
    }
    archive.writestr("header.json", json.dumps(header))
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


def _pieces(step: Write) -> Iterator[tuple[int, int, int, str]]:
    """``(device, offset, length, SHA-256)`` of a write cut at multiples of 4096 bytes.

    A plan may write a place twice and be cut short in between: each version is known.
    """
    done = 0
    while done < step.length_bytes:
        at = step.offset_bytes + done
        count = min(_PIECE_BYTES - at % _PIECE_BYTES, step.length_bytes - done)
        yield step.device, at, count, hashlib.sha256(step.data[done : done + count]).hexdigest()
        done += count


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
            self._devices: list[Mapping[str, Any]] = list(header["devices"])
            self.paths = [str(d["path"]) for d in self._devices]
            self._zones = {(int(d), int(z)) for d, z in header["sequential_zones"]}
            self._written = [(int(d), int(o), int(n), str(h)) for d, o, n, h in header["written"]]
            self._saved = sorted(_saved_member(name) for name in self._archive.namelist() if name.startswith("data/"))
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot open") from None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise MetadataError("not an undo file, or a damaged one", device=path) from error

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
        versions: dict[tuple[int, int, int], set[str]] = {}
        for number, offset, length, digest in self._written:
            versions.setdefault((number, offset, length), set()).add(digest)
        for (number, offset, length), digests in versions.items():
            device = devices[number]
            inside = offset + length <= device.geometry.size_bytes
            if not inside or next(_sequential_zones(device, offset, length), None) is not None:
                continue
            digests.add(hashlib.sha256(self._old_bytes(number, offset, length)).hexdigest())
            if hashlib.sha256(device.read(offset, length)).hexdigest() not in digests:
                raise RefusedError(
                    f"byte {offset} was changed after the undo file was saved",
                    device=device.path,
                    hint="--force overwrites it",
                )

    def _old_bytes(self, number: int, offset_bytes: int, length_bytes: int) -> bytes:
        for device, start in self._saved:
            name = f"data/{device}/{start}"
            size = self._archive.getinfo(name).file_size
            if device == number and start <= offset_bytes and offset_bytes + length_bytes <= start + size:
                with self._archive.open(name) as member:
                    member.seek(offset_bytes - start)
                    return member.read(length_bytes)
        return b""

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
        for number, offset in self._saved:
            with self._archive.open(f"data/{number}/{offset}") as member:
                done = 0
                while data := member.read(CHUNK_BYTES):
                    yield Write(number, offset + done, data)
                    done += len(data)
        for number, zone in sorted(self._zones):
            yield from _condition_steps(number, zone, tables[number])
        for number in range(len(devices)):
            yield Flush(number)

    def close(self) -> None:
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _saved_member(name: str) -> tuple[int, int]:
    _, device, offset = name.split("/")
    return int(device), int(offset)


def _condition_steps(number: int, zone: int, table: ZoneTable) -> Iterator[Step]:
    """Zone management that a rewritten zone still needs to be in its old condition."""
    row = table[zone]
    wanted = ZoneCondition(int(row["condition"]))
    if wanted is ZoneCondition.EXPLICIT_OPEN:
        yield ManageZones(number, ZoneOperation.OPEN, zone)
    elif wanted is ZoneCondition.CLOSED and row["wp_sector"] > row["start_sector"]:
        yield ManageZones(number, ZoneOperation.CLOSE, zone)
