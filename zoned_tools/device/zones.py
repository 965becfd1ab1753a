"""Zone tables: the kernel's ``struct blk_zone`` as a numpy structured array.

All positions in a table are 512-byte sectors, as the kernel reports them. The
numbers of types and conditions are those of ``include/uapi/linux/blkzoned.h``.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

SECTOR_BYTES = 512

ZONE_DTYPE = np.dtype(
    {
        "names": [
            "start_sector",
            "length_sectors",
            "wp_sector",
            "type",
            "condition",
            "non_seq",
            "reset",
            "capacity_sectors",
        ],
        "formats": ["<u8", "<u8", "<u8", "u1", "u1", "u1", "u1", "<u8"],
        "offsets": [0, 8, 16, 24, 25, 26, 27, 32],
        "itemsize": 64,
    }
)
"""One zone, byte for byte the kernel's 64-byte ``struct blk_zone``."""

ZoneTable: TypeAlias = npt.NDArray[np.void]
"""1-D array of :data:`ZONE_DTYPE`."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]


class Model(StrEnum):
    """What kind of drive this is."""

    HOST_MANAGED = "host-managed"
    HOST_AWARE = "host-aware"
    REGULAR = "regular"


class ZoneType(IntEnum):
    CONVENTIONAL = 1
    SEQ_REQUIRED = 2
    SEQ_PREFERRED = 3


class ZoneCondition(IntEnum):
    NOT_WP = 0x0
    EMPTY = 0x1
    IMPLICIT_OPEN = 0x2
    EXPLICIT_OPEN = 0x3
    CLOSED = 0x4
    READ_ONLY = 0xD
    FULL = 0xE
    OFFLINE = 0xF


TYPE_NAMES = {1: "conventional", 2: "seq-required", 3: "seq-preferred"}
"""Names of the zone types in JSON and in ``--filter``."""

CONDITION_NAMES = {
    0x0: "not-wp",
    0x1: "empty",
    0x2: "implicit-open",
    0x3: "explicit-open",
    0x4: "closed",
    0xD: "read-only",
    0xE: "full",
    0xF: "offline",
}
"""Names of the zone conditions in JSON and in ``--filter``."""

OPEN_CONDITIONS = (ZoneCondition.IMPLICIT_OPEN, ZoneCondition.EXPLICIT_OPEN)
ACTIVE_CONDITIONS = (*OPEN_CONDITIONS, ZoneCondition.CLOSED)
DEAD_CONDITIONS = (ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE)


def make_table(
    nr_sectors: int,
    zone_sectors: int,
    *,
    nr_conventional: int = 0,
    capacity_sectors: int | None = None,
    sequential_type: ZoneType = ZoneType.SEQ_REQUIRED,
) -> ZoneTable:
    """Zone table of a fresh drive: conventional zones first, the others empty.

    A rest of ``nr_sectors`` smaller than a zone becomes a runt zone at the end,
    whose capacity is its length. ``capacity_sectors`` applies to full-size
    sequential zones only.
    """
    nr_zones = -(-nr_sectors // zone_sectors)
    table = np.zeros(nr_zones, ZONE_DTYPE)
    starts = np.arange(nr_zones, dtype=np.uint64) * np.uint64(zone_sectors)
    table["start_sector"] = starts
    table["length_sectors"] = zone_sectors
    if nr_sectors % zone_sectors:
        table["length_sectors"][-1] = nr_sectors % zone_sectors
    table["capacity_sectors"] = table["length_sectors"]
    table["type"] = sequential_type
    table["condition"] = ZoneCondition.EMPTY
    table["wp_sector"] = starts
    if capacity_sectors is not None:
        usable = (np.arange(nr_zones) >= nr_conventional) & (table["length_sectors"] == zone_sectors)
        table["capacity_sectors"][usable] = capacity_sectors
    conventional = table[:nr_conventional]
    conventional["type"] = ZoneType.CONVENTIONAL
    conventional["condition"] = ZoneCondition.NOT_WP
    conventional["wp_sector"] = conventional["start_sector"] + conventional["length_sectors"]
    return table


def is_conventional(table: ZoneTable) -> BoolArray:
    """Mask of the conventional zones."""
    mask: BoolArray = table["type"] == ZoneType.CONVENTIONAL
    return mask


def is_sequential(table: ZoneTable) -> BoolArray:
    """Mask of the sequential zones, required and preferred."""
    return ~is_conventional(table)


def has_condition(table: ZoneTable, *conditions: int) -> BoolArray:
    """Mask of the zones that are in one of ``conditions``."""
    wanted = np.zeros(256, np.bool_)
    wanted[list(conditions)] = True
    mask: BoolArray = wanted[table["condition"]]
    return mask


def wp_is_valid(table: ZoneTable) -> BoolArray:
    """Mask of the zones whose write pointer means something (EMPTY, open, CLOSED)."""
    return is_sequential(table) & has_condition(table, ZoneCondition.EMPTY, *ACTIVE_CONDITIONS)


_CANNOT_TAKE = {
    "reset": (ZoneCondition.EMPTY, *DEAD_CONDITIONS),
    "open": (ZoneCondition.FULL, *DEAD_CONDITIONS),
    "close": (ZoneCondition.EMPTY, ZoneCondition.FULL, ZoneCondition.CLOSED, *DEAD_CONDITIONS),
    "finish": (ZoneCondition.FULL, *DEAD_CONDITIONS),
}


def takes_operation(table: ZoneTable, operation: str) -> BoolArray:
    """Mask of the zones that a management command over all zones does not skip (zone-report.md 6.1)."""
    return is_sequential(table) & ~has_condition(table, *_CANNOT_TAKE[operation])


def written_sectors(table: ZoneTable) -> IntArray:
    """Sectors of each zone below its write pointer, -1 where that is undefined.

    Conventional zones have no write pointer (-1), nor have read-only and offline
    zones; a FULL zone counts its capacity whatever its ``wp_sector`` says.
    """
    below = np.full(len(table), -1, np.int64)
    valid = wp_is_valid(table)
    below[valid] = (table["wp_sector"][valid] - table["start_sector"][valid]).astype(np.int64)
    full = has_condition(table, ZoneCondition.FULL) & is_sequential(table)
    below[full] = table["capacity_sectors"][full].astype(np.int64)
    return below


def shown_rows(table: ZoneTable, size_bytes: int) -> IntArray:
    """``(first byte, end byte)`` rows, shape (n, 2), of what a drive shows: one for each zone that shows anything.

    That is what is below a write pointer, all of a conventional zone, and of a read-only zone, whose write pointer is
    undefined, its capacity; nothing of an offline one. A regular device (no zones) shows all its ``size_bytes``.
    """
    if not len(table):
        return np.array([(0, size_bytes)], np.int64)
    below = written_sectors(table)
    shown = np.where(below >= 0, below, table["capacity_sectors"].astype(np.int64))
    shown[table["condition"] == ZoneCondition.OFFLINE] = 0
    starts = table["start_sector"].astype(np.int64)
    rows: IntArray = np.stack((starts, starts + shown), axis=1) * SECTOR_BYTES
    return rows[shown > 0]


def type_name(value: int) -> str:
    return TYPE_NAMES.get(int(value), f"unknown-{int(value):#x}")


def condition_name(value: int) -> str:
    return CONDITION_NAMES.get(int(value), f"reserved-{int(value):#x}")
