"""Zone tables as text, in our own form and byte for byte as ``blkzone`` and ``zbd`` print them.

Bulk output: a table becomes columns of Python numbers once, and rows are printed with one
``%`` format; 75,000 zones take a fraction of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device.zones import (
    CONDITION_NAMES,
    SECTOR_BYTES,
    TYPE_NAMES,
    BoolArray,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    condition_name,
    has_condition,
    is_conventional,
    type_name,
    wp_is_valid,
)
from zoned_tools.errors import UsageError
from zoned_tools.report.stream import elements, encode
from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned_tools.device.base import Geometry
    from zoned_tools.report.documents.drives import DriveFacts

_SHIFT = np.uint64(9)

_BLKZONE_TYPES = {0: "RESERVED", 1: "CONVENTIONAL", 2: "SEQ_WRITE_REQUIRED", 3: "SEQ_WRITE_PREFERRED"}
_SHORT_CONDITIONS = {0x0: "nw", 0x1: "em", 0x2: "oi", 0x3: "oe", 0x4: "cl", 0xD: "ro", 0xE: "fu"}
_BLKZONE_CONDITIONS = {**{c: f"x{c:X}" for c in range(16)}, **_SHORT_CONDITIONS, 0xF: "of"}
_ZBD_CONDITIONS = {**dict.fromkeys(range(16), "??"), **_SHORT_CONDITIONS, 0xF: "ol"}
_ZBD_TYPES = {1: "cnv", 2: "swr", 3: "swp"}

_FILTERS: dict[str, Callable[[ZoneTable], BoolArray]] = {
    "em": lambda t: has_condition(t, ZoneCondition.EMPTY),
    "oi": lambda t: has_condition(t, ZoneCondition.IMPLICIT_OPEN),
    "oe": lambda t: has_condition(t, ZoneCondition.EXPLICIT_OPEN),
    "cl": lambda t: has_condition(t, ZoneCondition.CLOSED),
    "fu": lambda t: has_condition(t, ZoneCondition.FULL),
    "ro": lambda t: has_condition(t, ZoneCondition.READ_ONLY),
    "ol": lambda t: has_condition(t, ZoneCondition.OFFLINE),
    "nw": lambda t: has_condition(t, ZoneCondition.NOT_WP),
    "ns": lambda t: t["non_seq"] != 0,
    "rw": lambda t: t["reset"] != 0,
}
"""zbd's ``-ro`` vocabulary; names of types and conditions are accepted too."""


def filter_mask(table: ZoneTable, expression: str) -> BoolArray:
    """Mask of the zones that any of the comma-separated words of ``expression`` names.

    Raises:
        UsageError: a word is neither a zbd report option nor a type's or condition's name.
    """
    mask = np.zeros(len(table), np.bool_)
    types = {name: number for number, name in TYPE_NAMES.items()}
    conditions = {name: number for number, name in CONDITION_NAMES.items()}
    for word in (w.strip().lower() for w in expression.split(",")):
        if word in _FILTERS:
            mask |= _FILTERS[word](table)
        elif word in types:
            mask |= table["type"] == types[word]
        elif word in conditions:
            mask |= table["condition"] == conditions[word]
        else:
            known = ", ".join([*_FILTERS, *types, *conditions])
            raise UsageError(f"'{word}' is not a zone filter", hint=f"one of {known}")
    return mask


def _columns(numbers: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*[n.tolist() if isinstance(n, np.ndarray) else n for n in numbers], strict=True)


def blkzone_lines(table: ZoneTable) -> Iterator[str]:
    """``blkzone report`` (util-linux 2.38); sectors."""
    row = "  start: 0x%09x, len 0x%06x, cap 0x%06x, wptr 0x%06x reset:%u non-seq:%u, zcond:%2u(%s) [type: %u(%s)]"
    wp = np.where(is_conventional(table), np.uint64(0), table["wp_sector"] - table["start_sector"])
    condition = table["condition"].tolist()
    kind = table["type"].tolist()
    columns = _columns(
        (
            table["start_sector"],
            table["length_sectors"],
            table["capacity_sectors"],
            wp,
            table["reset"],
            table["non_seq"],
            condition,
            [_BLKZONE_CONDITIONS[c] for c in condition],
            kind,
            [_BLKZONE_TYPES.get(k, "RESERVED") for k in kind],
        ),
    )
    for values in columns:
        yield row % values


def _zbd_numbers(table: ZoneTable, unit: int) -> list[list[int]]:
    fields = ("start_sector", "length_sectors", "capacity_sectors", "wp_sector")
    return [((table[name] << _SHIFT) // np.uint64(unit)).tolist() for name in fields]


def zbd_lines(table: ZoneTable, zone_numbers: np.ndarray[Any, Any], unit: int = 1) -> Iterator[str]:
    """``zbd report`` (zbd-utils 2.0.4); ``zone_numbers`` holds the zones' numbers, ``unit`` divides all figures."""
    sequential = "Zone %05d: %s, ofst %014d, len %014d, cap %014d, wp %014d, %s, non_seq %d, reset %d"
    conventional = "Zone %05d: cnv, ofst %014d, len %014d, cap %014d"
    start, length, capacity, wp = _zbd_numbers(table, unit)
    rows = zip(
        zone_numbers.tolist(),
        table["type"].tolist(),
        start,
        length,
        capacity,
        wp,
        table["condition"].tolist(),
        table["non_seq"].tolist(),
        table["reset"].tolist(),
        strict=True,
    )
    for number, kind, at, size, cap, pointer, condition, non_seq, reset in rows:
        if kind == ZoneType.CONVENTIONAL:
            yield conventional % (number, at, size, cap)
        elif kind in _ZBD_TYPES:
            name = _ZBD_TYPES[kind]
            yield sequential % (number, name, at, size, cap, pointer, _ZBD_CONDITIONS[condition], non_seq, reset)
        else:
            yield f"Zone {number:05d}: unknown type 0x{kind:x}, ofst {at:014d}, len {size:014d}"


CSV_HEADER = "zone num, type, ofst, len, cap, wp, cond, non_seq, reset"


def csv_lines(table: ZoneTable, zone_numbers: np.ndarray[Any, Any], unit: int = 1) -> Iterator[str]:
    """``zbd report -csv``, header first; bytes."""
    yield CSV_HEADER
    row = "%05d, %d, %014d, %014d, %014d, %014d, 0x%x, %d, %d"
    start, length, capacity, wp = _zbd_numbers(table, unit)
    columns = (
        zone_numbers,
        table["type"],
        start,
        length,
        capacity,
        wp,
        table["condition"],
        table["non_seq"],
        table["reset"],
    )
    for values in _columns(columns):
        yield row % values


def zbd_info_lines(path: str, geometry: Geometry) -> Iterator[str]:
    """What ``zbd report -i`` prints ahead of the zones."""
    sectors = geometry.size_bytes // SECTOR_BYTES
    logical, physical = geometry.logical_block_bytes, geometry.physical_block_bytes
    yield f"Device {path}:"
    yield f"    Vendor ID: {geometry.vendor}"
    yield f"    Zone model: {geometry.model}"
    yield f"    Capacity: {geometry.size_bytes / 1e9:.3f} GB ({sectors} 512-bytes sectors)"
    yield f"    Logical blocks: {geometry.size_bytes // logical} blocks of {logical} B"
    yield f"    Physical blocks: {geometry.size_bytes // physical} blocks of {physical} B"
    yield f"    Zones: {geometry.nr_zones} zones of {geometry.zone_bytes / (1 << 20):.1f} MB"
    yield f"    Maximum number of open zones: {geometry.max_open_zones or 'no limit'}"
    yield f"    Maximum number of active zones: {geometry.max_active_zones or 'no limit'}"


def json_rows(table: ZoneTable, zone_numbers: np.ndarray[Any, Any], before: str = "") -> Iterator[str]:
    """One JSON object a zone (``zoned.report/2``), without line ends; ``before``: members ahead of the others."""
    row = (
        '"zone": %d, "start_bytes": %d, "length_bytes": %d, "capacity_bytes": %d, "wp_bytes": %s, '
        '"type": "%s", "condition": "%s", "reset_recommended": %s, "non_seq": %s}'
    )
    row = "{" + before.replace("%", "%%") + row
    boolean = ("false", "true")
    wp = [
        str(p) if ok else "null"
        for p, ok in zip((table["wp_sector"] << _SHIFT).tolist(), wp_is_valid(table).tolist(), strict=True)
    ]
    columns = (
        zone_numbers,
        table["start_sector"] << _SHIFT,
        table["length_sectors"] << _SHIFT,
        table["capacity_sectors"] << _SHIFT,
        wp,
        [type_name(k) for k in table["type"].tolist()],
        [condition_name(c) for c in table["condition"].tolist()],
        [boolean[v != 0] for v in table["reset"].tolist()],
        [boolean[v != 0] for v in table["non_seq"].tolist()],
    )
    for values in _columns(columns):
        yield row % values


def json_lines(path: str, table: ZoneTable, zone_numbers: np.ndarray[Any, Any]) -> Iterator[str]:
    """JSON lines: one zone each, with its ``device``."""
    return json_rows(table, zone_numbers, f'"device": {encode(path)}, ')


def json_drive(facts_of_drive: DriveFacts, table: ZoneTable, zone_numbers: np.ndarray[Any, Any]) -> Iterator[str]:
    """A drive of ``zoned.report/2`` in pieces, a line a zone."""
    yield encode(facts_of_drive)[:-1] + ', "zones": '
    yield from elements(json_rows(table, zone_numbers))
    yield "}"


def table_lines(table: ZoneTable, zone_numbers: np.ndarray[Any, Any]) -> Iterator[str]:
    """The default: aligned columns, positions in 512-byte sectors, the write pointer from the zone's start."""
    yield "  ZONE  TYPE           START SECTOR      LENGTH    CAPACITY  WRITE POINTER  CONDITION      FLAGS"
    row = "%6d  %-13s %13d %11d %11d  %13s  %-13s%s"
    valid = wp_is_valid(table).tolist()
    used = (table["wp_sector"] - table["start_sector"]).tolist()
    flags = [
        "".join(f"  {n}" for n, on in (("reset", r), ("non-seq", s)) if on)
        for r, s in zip(table["reset"].tolist(), table["non_seq"].tolist(), strict=True)
    ]
    columns = (
        zone_numbers,
        [type_name(k) for k in table["type"].tolist()],
        table["start_sector"],
        table["length_sectors"],
        table["capacity_sectors"],
        [str(u) if ok else "-" for u, ok in zip(used, valid, strict=True)],
        [condition_name(c) for c in table["condition"].tolist()],
        flags,
    )
    for values in _columns(columns):
        yield (row % values).rstrip()


def summarize(table: ZoneTable) -> dict[str, object]:
    """Counts of a zone table by type and condition, and how much is written."""
    valid = wp_is_valid(table)
    full = has_condition(table, ZoneCondition.FULL)
    written = int((table["wp_sector"] - table["start_sector"])[valid].sum()) + int(
        table["capacity_sectors"][full].sum()
    )
    types, type_counts = np.unique(table["type"], return_counts=True)
    conditions, condition_counts = np.unique(table["condition"], return_counts=True)
    return {
        "zones": len(table),
        "capacity_bytes": int(table["capacity_sectors"].sum()) * SECTOR_BYTES,
        "written_sequential_bytes": written * SECTOR_BYTES,
        "types": {type_name(t): int(n) for t, n in zip(types, type_counts, strict=True)},
        "conditions": {condition_name(c): int(n) for c, n in zip(conditions, condition_counts, strict=True)},
    }


def summary_lines(path: str, geometry: Geometry, table: ZoneTable) -> Iterator[str]:
    """The counts as text."""
    facts: Any = summarize(table)
    zones = f"{geometry.nr_zones} zones of {format_size(geometry.zone_bytes)}"
    yield f"{path}: {geometry.model}, {format_size(geometry.size_bytes)}, {zones}"
    yield f"  zones:      {facts['zones']}, capacity {format_size(facts['capacity_bytes'])}"
    yield f"  written:    {format_size(facts['written_sequential_bytes'])} in sequential zones"
    yield "  types:      " + ", ".join(f"{n} {name}" for name, n in facts["types"].items())
    yield "  conditions: " + ", ".join(f"{n} {name}" for name, n in facts["conditions"].items())
    limits = [geometry.max_open_zones or "no limit", geometry.max_active_zones or "no limit"]
    yield f"  limits:     {limits[0]} open, {limits[1]} active"
