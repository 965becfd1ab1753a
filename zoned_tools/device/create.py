"""Geometries of new emulated drives, checked before anything is written."""

from __future__ import annotations

from zoned_tools.device.base import Geometry
from zoned_tools.device.dump import MAX_ZONES
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneTable, ZoneType, make_table
from zoned_tools.errors import UsageError

_VENDORS = {
    # A drive's rules follow from its vendor text (see machine.DriveFamily), in images of real drives too.
    "host-managed": "zoned_tools ZBC 0001",
    "host-aware": "zoned_tools ZBC 0001",
    "zns": "zoned_tools NVMe ZNS",
}


def new_drive(
    *,
    model: str,
    size_bytes: int,
    zone_bytes: int,
    capacity_bytes: int | None = None,
    nr_conventional: int = 0,
    block_bytes: int = 4096,
    max_open_zones: int = 0,
    max_active_zones: int = 0,
) -> tuple[Geometry, ZoneTable]:
    """Geometry and zone table of a fresh drive of ``model`` (host-managed, host-aware or zns).

    Raises:
        UsageError: no drive can look like that.
    """
    nr_zones = -(-size_bytes // zone_bytes) if zone_bytes else 0
    rules = (
        (
            zone_bytes < 4096 or zone_bytes & (zone_bytes - 1),
            f"zone size {zone_bytes} is not a power of two of 4096 or more",
        ),
        (block_bytes not in (512, 4096), f"block size {block_bytes} is neither 512 nor 4096"),
        (size_bytes <= 0 or size_bytes % block_bytes, f"size {size_bytes} is not a positive number of blocks"),
        (nr_zones > MAX_ZONES, f"{nr_zones} zones are more than any drive has"),
        (nr_conventional > nr_zones, f"{nr_conventional} conventional zones are more than all {nr_zones}"),
        (
            capacity_bytes is not None and (not 0 < capacity_bytes <= zone_bytes or capacity_bytes % block_bytes),
            f"zone capacity {capacity_bytes} is not a number of blocks up to the zone size",
        ),
        (max_active_zones and max_open_zones > max_active_zones, "more open than active zones are allowed"),
        (model == "zns" and nr_conventional, "ZNS drives have no conventional zones"),
    )
    for wrong, text in rules:
        if wrong:
            raise UsageError(text)
    aware = model == "host-aware"
    table = make_table(
        size_bytes // SECTOR_BYTES,
        zone_bytes // SECTOR_BYTES,
        nr_conventional=nr_conventional,
        capacity_sectors=None if capacity_bytes is None else capacity_bytes // SECTOR_BYTES,
        sequential_type=ZoneType.SEQ_PREFERRED if aware else ZoneType.SEQ_REQUIRED,
    )
    geometry = Geometry(
        model=Model.HOST_AWARE if aware else Model.HOST_MANAGED,
        size_bytes=size_bytes,
        zone_bytes=zone_bytes,
        nr_zones=nr_zones,
        logical_block_bytes=block_bytes,
        physical_block_bytes=block_bytes,
        write_granularity_bytes=block_bytes,
        max_open_zones=max_open_zones,
        max_active_zones=max_active_zones,
        vendor=_VENDORS[model],
    )
    return geometry, table
