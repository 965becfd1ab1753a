"""Zone tables on disk: libzbd's zone-info dump, which is also the ``.zones`` sidecar of an image.

A 192-byte header and 64 bytes a zone, little-endian, positions in bytes; ``zbd report``
reads it. Every descriptor lies inside one 512-byte sector, so that a single zone can be
updated in place without a power cut ever leaving half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from construct import Int32ul, Int64ul, Padding, Struct

from zoned_tools.codec.fields import Label, dtype_of
from zoned_tools.device.base import Geometry
from zoned_tools.device.zones import (
    ACTIVE_CONDITIONS,
    CONDITION_NAMES,
    OPEN_CONDITIONS,
    SECTOR_BYTES,
    ZONE_DTYPE,
    BoolArray,
    Model,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    condition_name,
    has_condition,
    is_conventional,
)
from zoned_tools.errors import SidecarError

if TYPE_CHECKING:
    from construct import Container

HEADER = Struct(
    "vendor_id" / Label(32),
    "nr_sectors" / Int64ul,
    "nr_lblocks" / Int64ul,
    "nr_pblocks" / Int64ul,
    "zone_size" / Int64ul,
    "zone_sectors" / Int32ul,
    "lblock_size" / Int32ul,
    "pblock_size" / Int32ul,
    "nr_zones" / Int32ul,
    "max_nr_open_zones" / Int32ul,
    "max_nr_active_zones" / Int32ul,
    "model" / Int32ul,
    Padding(36),
    "zstart" / Int32ul,
    "zend" / Int32ul,
    Padding(56),
)
HEADER_BYTES = 192

DESCRIPTOR = Struct(
    "start" / Int64ul,
    "length" / Int64ul,
    "capacity" / Int64ul,
    "wp" / Int64ul,
    "flags" / Int32ul,
    "type" / Int32ul,
    "condition" / Int32ul,
    Padding(20),
)
DESCRIPTOR_BYTES = 64
DESCRIPTOR_DTYPE = dtype_of(DESCRIPTOR)

FLAG_RESET_RECOMMENDED = 1
FLAG_NON_SEQ = 2

MAX_ZONES = 1 << 24
"""More zones than any drive has."""

MAX_FILE_BYTES = HEADER_BYTES + DESCRIPTOR_BYTES * MAX_ZONES
"""A longer file is not read at all."""

Header: TypeAlias = "Container[Any]"
"""A parsed :data:`HEADER`."""

_MODELS = {1: Model.HOST_MANAGED, 2: Model.HOST_AWARE}
_MODEL_NUMBERS = {Model.HOST_MANAGED: 1, Model.HOST_AWARE: 2, Model.REGULAR: 3}


@dataclass(slots=True)
class ZoneDump:
    """A decoded zone-info dump.

    Attributes:
        zstart, zend: zones whose data was dumped along with it.
        warnings: oddities that do not stop its use, one sentence each.
    """

    geometry: Geometry
    table: ZoneTable
    zstart: int
    zend: int
    warnings: list[str]


def table_to_descriptors(table: ZoneTable) -> np.ndarray[Any, np.dtype[np.void]]:
    """Descriptors (bytes) of a zone table (sectors); an all-ones write pointer wraps as libzbd's does."""
    out = np.zeros(len(table), DESCRIPTOR_DTYPE)
    shift = np.uint64(9)
    out["start"] = table["start_sector"] << shift
    out["length"] = table["length_sectors"] << shift
    out["capacity"] = table["capacity_sectors"] << shift
    out["wp"] = table["wp_sector"] << shift
    out["flags"] = (table["reset"] != 0) * FLAG_RESET_RECOMMENDED + (table["non_seq"] != 0) * FLAG_NON_SEQ
    out["type"] = table["type"]
    out["condition"] = table["condition"]
    return out


def descriptors_to_table(descriptors: np.ndarray[Any, np.dtype[np.void]]) -> ZoneTable:
    """The inverse: write pointers are shifted back arithmetically, so that all ones stay all ones."""
    table = np.zeros(len(descriptors), ZONE_DTYPE)
    shift = np.uint64(9)
    table["start_sector"] = descriptors["start"] >> shift
    table["length_sectors"] = descriptors["length"] >> shift
    table["capacity_sectors"] = descriptors["capacity"] >> shift
    table["wp_sector"] = (descriptors["wp"].astype(np.int64) >> 9).astype(np.uint64)
    table["type"] = descriptors["type"]
    table["condition"] = descriptors["condition"]
    table["reset"] = (descriptors["flags"] & FLAG_RESET_RECOMMENDED) != 0
    table["non_seq"] = (descriptors["flags"] & FLAG_NON_SEQ) != 0
    return table


def encode(geometry: Geometry, table: ZoneTable, zstart: int = 0, zend: int | None = None) -> bytes:
    """The whole file for a drive."""
    header = HEADER.build(
        {
            "vendor_id": geometry.vendor,
            "nr_sectors": geometry.size_bytes // SECTOR_BYTES,
            "nr_lblocks": geometry.size_bytes // geometry.logical_block_bytes,
            "nr_pblocks": geometry.size_bytes // geometry.physical_block_bytes,
            "zone_size": geometry.zone_bytes,
            "zone_sectors": geometry.zone_bytes // SECTOR_BYTES,
            "lblock_size": geometry.logical_block_bytes,
            "pblock_size": geometry.physical_block_bytes,
            "nr_zones": len(table),
            "max_nr_open_zones": geometry.max_open_zones,
            "max_nr_active_zones": geometry.max_active_zones,
            "model": _MODEL_NUMBERS[geometry.model],
            "zstart": zstart,
            "zend": len(table) if zend is None else zend,
        }
    )
    return header + table_to_descriptors(table).tobytes()


def decode(raw: bytes, path: str) -> ZoneDump:
    """Decode and validate a whole file.

    Raises:
        SidecarError: it is damaged; the message names the first fault.
    """
    if len(raw) < HEADER_BYTES:
        raise SidecarError(
            f"zone table is {len(raw)} bytes long, shorter than its {HEADER_BYTES}-byte header", device=path
        )
    header = HEADER.parse(raw[:HEADER_BYTES])
    _check_header(header, len(raw), path)
    count = int(header.nr_zones)
    descriptors = np.frombuffer(raw, DESCRIPTOR_DTYPE, count, HEADER_BYTES)
    geometry = _geometry(header)
    _check_descriptors(descriptors, geometry, path)
    warnings = _warnings(descriptors, geometry)
    extra = len(raw) - HEADER_BYTES - count * DESCRIPTOR_BYTES
    if extra:
        warnings.insert(0, f"{extra} bytes after the last zone descriptor")
    return ZoneDump(geometry, descriptors_to_table(descriptors), int(header.zstart), int(header.zend), warnings)


def _geometry(header: Header) -> Geometry:
    return Geometry(
        model=_MODELS[header.model],
        size_bytes=header.nr_sectors * SECTOR_BYTES,
        zone_bytes=header.zone_size,
        nr_zones=header.nr_zones,
        logical_block_bytes=header.lblock_size,
        physical_block_bytes=header.pblock_size,
        # The dump does not carry zone_write_granularity; on every drive seen it is the
        # physical block on SCSI and the logical block elsewhere, which are equal there.
        write_granularity_bytes=max(header.lblock_size, header.pblock_size),
        max_open_zones=header.max_nr_open_zones,
        max_active_zones=header.max_nr_active_zones,
        vendor=header.vendor_id,
    )


def _check_header(header: Header, length: int, path: str) -> None:
    faults = (
        (header.model not in _MODELS, f"model {header.model} is neither host-managed (1) nor host-aware (2)"),
        (header.nr_zones == 0, "it has no zones"),
        (
            header.zone_size == 0 or header.zone_size & (header.zone_size - 1),
            f"zone size {header.zone_size} is not a power of two",
        ),
        (
            header.zone_size != header.zone_sectors * SECTOR_BYTES,
            f"zone size {header.zone_size} is not {header.zone_sectors} sectors",
        ),
        (not _is_block_size(header.lblock_size), f"logical block size {header.lblock_size} is impossible"),
        (not _is_block_size(header.pblock_size), f"physical block size {header.pblock_size} is impossible"),
        (
            length < HEADER_BYTES + DESCRIPTOR_BYTES * header.nr_zones,
            f"it has fewer zone descriptors than the {header.nr_zones} zones in its header",
        ),
    )
    for wrong, text in faults:
        if wrong:
            raise SidecarError(f"damaged zone table: {text}", device=path)


def _is_block_size(size: int) -> bool:
    return size >= SECTOR_BYTES and size & (size - 1) == 0


def _check_descriptors(zones: np.ndarray[Any, np.dtype[np.void]], geometry: Geometry, path: str) -> None:
    """Refuse a table that no drive can report; the lowest faulty zone is named."""
    start, length, capacity, wp = zones["start"], zones["length"], zones["capacity"], zones["wp"]
    ends = start + length
    expected = np.concatenate(([np.uint64(0)], ends[:-1]))
    kind, condition = zones["type"], zones["condition"]
    conventional = kind == ZoneType.CONVENTIONAL
    dead = np.isin(condition, [ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE])
    active = np.isin(condition, list(ACTIVE_CONDITIONS)) & ~conventional
    last = np.arange(len(zones)) == len(zones) - 1
    size = np.uint64(geometry.zone_bytes)
    unit = np.uint64(geometry.physical_block_bytes)
    rules: list[tuple[BoolArray, str]] = [
        (start != expected, "it does not start where the zone before it ends"),
        (np.where(last, length > size, length != size) | (length == 0), "its length differs from the zone size"),
        ((length % np.uint64(SECTOR_BYTES)) != 0, "its length is not a multiple of 512 bytes"),
        (capacity > length, "its capacity is larger than its length"),
        ((capacity == 0) | (capacity % np.uint64(SECTOR_BYTES) != 0), "its capacity is not a number of sectors"),
        (~np.isin(kind, list(ZoneType)), "its type is unknown"),
        (~np.isin(condition, list(CONDITION_NAMES)), "its condition is reserved"),
        (conventional & ~dead & (condition != ZoneCondition.NOT_WP), "a conventional zone cannot be in this condition"),
        (~conventional & (condition == ZoneCondition.NOT_WP), "a sequential zone cannot be in condition not-wp"),
        (
            ~conventional & (condition == ZoneCondition.EMPTY) & (wp != start),
            "it is empty but its write pointer is not at its start",
        ),
        (active & (wp < start), "its write pointer is before its start"),
        (active & (wp > start + capacity), "its write pointer is beyond its capacity"),
        (active & ((wp - start) % unit != 0), "its write pointer is not a multiple of the physical block"),
    ]
    faults = [(int(np.argmax(mask)), text) for mask, text in rules if mask.any()]
    if faults:
        zone, text = min(faults, key=lambda fault: fault[0])
        facts = f"type {int(kind[zone])}, condition {condition_name(int(condition[zone]))}"
        raise SidecarError(f"damaged zone table: zone {zone} ({facts}): {text}", device=path)
    end = int(ends[-1])
    if end != geometry.size_bytes:
        where = "before" if end < geometry.size_bytes else "after"
        text = f"its zones end at byte {end}, {where} the capacity of {geometry.size_bytes}"
        raise SidecarError(f"damaged zone table: {text}", device=path)


def _warnings(zones: np.ndarray[Any, np.dtype[np.void]], geometry: Geometry) -> list[str]:
    table = descriptors_to_table(zones)
    sequential = ~is_conventional(table)
    nr_open = int(np.count_nonzero(has_condition(table, *OPEN_CONDITIONS) & sequential))
    nr_active = int(np.count_nonzero(has_condition(table, *ACTIVE_CONDITIONS) & sequential))
    found = []
    if geometry.max_open_zones and nr_open > geometry.max_open_zones:
        found.append(f"{nr_open} open zones exceed the limit of {geometry.max_open_zones}")
    if geometry.max_active_zones and nr_active > geometry.max_active_zones:
        found.append(f"{nr_active} active zones exceed the limit of {geometry.max_active_zones}")
    preferred = np.flatnonzero(table["type"] == ZoneType.SEQ_PREFERRED)
    if geometry.model is Model.HOST_MANAGED and len(preferred):
        found.append(f"zone {preferred[0]} is sequential-write-preferred on a host-managed drive")
    used = table["wp_sector"] - table["start_sector"]
    implicit = np.flatnonzero(has_condition(table, ZoneCondition.IMPLICIT_OPEN) & sequential & (used == 0))
    if len(implicit):
        found.append(f"zone {implicit[0]} is implicitly open with its write pointer at its start")
    full = has_condition(table, *ACTIVE_CONDITIONS) & sequential & (used == table["capacity_sectors"])
    if full.any():
        found.append(f"zone {int(np.argmax(full))} is filled but not in condition full")
    return found
