"""Does an undo file fit these devices, and is it whole? Asked before the first byte is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.undo_format import BAD_ARCHIVE, CHUNK_BYTES, SCHEMA, damaged
from zoned_tools.device.zones import SECTOR_BYTES, is_sequential, written_sectors
from zoned_tools.errors import RefusedError, SidecarError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.undo_format import Header, Records
    from zoned_tools.device.zones import BoolArray, IntArray, ZoneTable


def refuse_other_devices(path: str, header: Header, devices: Sequence[Device], tables: Mapping[int, ZoneTable]) -> None:
    """Refuse drives of another size, model, zone size or number of zones.

    Raises:
        RefusedError: naming the first difference.
    """
    for number, (device, saved) in enumerate(zip(devices, header.devices, strict=True)):
        geometry = device.geometry
        facts = [("size", geometry.size_bytes, saved.size_bytes), ("model", str(geometry.model), saved.model)]
        if number in tables:
            table = tables[number]
            zone_bytes = int(table["length_sectors"][0]) * SECTOR_BYTES if len(table) > 1 else geometry.zone_bytes
            facts += [
                ("zone size", geometry.zone_bytes, zone_bytes),
                ("number of zones", geometry.nr_zones, len(table)),
            ]
        for what, now, then in facts:
            if now != then:
                raise RefusedError(
                    f"not the device that {path} was saved from: {what} {now}, not {then}", device=device.path
                )


def read_zone_tables(path: str, archive: zipfile.ZipFile, devices: Sequence[Device]) -> dict[int, ZoneTable]:
    """The saved zone table of each zoned device.

    Raises:
        MetadataError: it is missing, of another length than the drive's, or damaged.
    """
    tables = {}
    for number, device in enumerate(devices):
        if not device.geometry.is_zoned:
            continue
        try:
            info = archive.getinfo(f"zones/{number}")
        except KeyError:
            raise damaged(path, f"it has no zone table of device {number}") from None
        limit = dump.HEADER_BYTES + dump.DESCRIPTOR_BYTES * device.geometry.nr_zones
        if info.file_size > limit:
            raise RefusedError(f"not the device that {path} was saved from: fewer zones", device=device.path)
        try:
            tables[number] = dump.decode(archive.read(info), path).table
        except (SidecarError, OSError, *BAD_ARCHIVE) as error:
            raise damaged(path, f"the zone table of device {number}") from error
    return tables


def check_structure(
    path: str,
    archive: zipfile.ZipFile,
    header: Header,
    pieces: Records,
    members: Sequence[str],
    touched: Records,
    written: Records,
    devices: Sequence[Device],
    tables: Mapping[int, ZoneTable],
) -> None:
    """Every place is on the devices, in order and once; every sequential zone is saved whole.

    Raises:
        MetadataError: naming what is wrong.
    """
    for name, records in (("a piece", pieces), ("a zone", touched), ("a block", written)):
        if len(records) and int(records["device"].max()) >= len(devices):
            raise damaged(path, f"{name} is on a device that it has not")
    _check_members(path, archive, header, pieces, members)
    for number, device in enumerate(devices):
        mine = pieces[pieces["device"] == number]
        _check_places(path, device, mine)
        _check_blocks(path, device, written[written["device"] == number])
        zones = touched["zone"][touched["device"] == number].astype(np.int64)
        if number in tables:
            _check_zones(path, device, mine, zones, tables[number])
        elif len(zones):
            raise damaged(path, f"zones of device {number}, which has none")


def _check_members(
    path: str, archive: zipfile.ZipFile, header: Header, pieces: Records, members: Sequence[str]
) -> None:
    """Pieces follow each other through the chunks, and fill them."""
    chunk, skip, length = (pieces[name].astype(np.int64) for name in ("chunk", "skip_bytes", "length_bytes"))
    if not len(pieces):
        if members:
            raise damaged(path, "content that belongs nowhere")
        return
    follows = (chunk[1:] == chunk[:-1]) & (skip[1:] == skip[:-1] + length[:-1])
    begins = (chunk[1:] == chunk[:-1] + 1) & (skip[1:] == 0)
    if chunk[0] or skip[0] or not (follows | begins).all() or int(chunk[-1]) != len(members) - 1:
        raise damaged(path, "its pieces are not in order")
    last = np.append(np.flatnonzero(begins), len(pieces) - 1)
    ends: IntArray = skip[last] + length[last]
    sizes = [archive.getinfo(name).file_size for name in members]
    if ends.tolist() != sizes or (header.schema == SCHEMA and max(sizes) > CHUNK_BYTES):
        raise damaged(path, "its content is not as long as its pieces")


def _ends(records: Records, limit_bytes: int) -> BoolArray:
    """Mask of the places that lie on a device, without overflow."""
    offset, length, limit = records["offset_bytes"], records["length_bytes"].astype(np.uint64), np.uint64(limit_bytes)
    inside: BoolArray = (length > 0) & (length <= limit) & (offset <= limit - np.minimum(length, limit))
    return inside


def _check_places(path: str, device: Device, pieces: Records) -> None:
    inside = _ends(pieces, device.geometry.size_bytes)
    unit = np.uint64(device.geometry.logical_block_bytes)
    offset, length = pieces["offset_bytes"], pieces["length_bytes"]
    if not inside.all() or (length > np.uint64(CHUNK_BYTES)).any():
        raise damaged(path, "a piece that is not on the device")
    if (offset % unit).any() or (length % unit).any():
        raise damaged(path, "a piece of less than a block")
    if (offset[1:] < offset[:-1] + length[:-1]).any():
        raise damaged(path, "pieces that overlap")


def _check_blocks(path: str, device: Device, written: Records) -> None:
    if not _ends(written, device.geometry.size_bytes).all():
        raise damaged(path, "a block that is not on the device")


def _check_zones(path: str, device: Device, pieces: Records, zones: IntArray, table: ZoneTable) -> None:
    """A zone that is to be reset is sequential and saved from its start to its write pointer."""
    now = device.zones()
    if len(zones) and int(zones.max()) >= min(len(table), len(now)):
        raise damaged(path, "a zone that is not on the device")
    sequential = is_sequential(now)
    if not (sequential & is_sequential(table))[zones].all():
        raise damaged(path, "a zone that is not sequential")
    zone_bytes = device.geometry.zone_bytes
    offset, length = pieces["offset_bytes"].astype(np.int64), pieces["length_bytes"].astype(np.int64)
    first, last = offset // zone_bytes, (offset + length - 1) // zone_bytes
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(sequential)))
    crosses = before[last + 1] - before[first]
    saved = np.zeros(len(now), np.int64)
    wanted = np.zeros(len(now), np.int64)
    wanted[zones] = np.maximum(written_sectors(table)[zones], 0) * SECTOR_BYTES
    inside = crosses == 1
    np.add.at(saved, first[inside], length[inside])
    whole = (saved == wanted).all() and (first == last)[inside].all() and not (crosses > 1).any()
    begin = np.full(len(now), -1, np.int64)
    begin[first[inside][::-1]] = offset[inside][::-1]
    used = np.flatnonzero(saved)
    if not whole or (begin[used] != used * zone_bytes).any():
        raise damaged(path, "a sequential zone that is not saved whole")


def check_sums(path: str, archive: zipfile.ZipFile) -> None:
    """Read everything, in pieces, against its checksums.

    Raises:
        MetadataError: a member is damaged.
    """
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while member.read(CHUNK_BYTES):
                    pass
        except (OSError, *BAD_ARCHIVE) as error:
            raise damaged(path, f"{info.filename} fails its checksum") from error
