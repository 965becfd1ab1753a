"""What ``mkzonefs`` prints, in the original's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneCondition, ZoneTable, has_condition, is_conventional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Geometry
    from zoned_tools.formats.zonefs.layout import SuperBlock

_TYPE_NAMES = {1: "Conventional", 2: "Sequential-write-required", 3: "Sequential-write-preferred"}
_CONDITION_NAMES = {
    0x0: "Not-write-pointer",
    0x1: "Empty",
    0x2: "Implicit-open",
    0x3: "Explicit-open",
    0x4: "Closed",
    0xD: "Read-only",
    0xE: "Full",
    0xF: "Offline",
}
_MODEL_NAMES = {Model.HOST_MANAGED: "Host-managed", Model.HOST_AWARE: "Host-aware"}


def zone_lines(table: ZoneTable) -> Iterator[str]:
    """What ``-v`` prints of each zone."""
    columns = ("type", "condition", "start_sector", "length_sectors", "wp_sector")
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    for zone, (kind, condition, start, length, wp) in enumerate(rows):
        type_name = _TYPE_NAMES.get(kind, "Unknown-type")
        if condition == ZoneCondition.READ_ONLY:
            yield f"Zone {zone:05}: readonly {type_name} zone"
        elif condition == ZoneCondition.OFFLINE:
            yield f"Zone {zone:05}: offline {type_name} zone"
        elif kind == 1:
            yield f"Zone {zone:05}: Conventional, sector {start}, {length} sectors"
        else:
            condition_name = _CONDITION_NAMES.get(condition, "Unknown-condition")
            yield (
                f"Zone {zone:05}: type {kind:#x} ({type_name}), cond {condition:#x} ({condition_name}), "
                f"sector {start}, {length} sectors, wp sector {wp}"
            )


def summary_lines(geometry: Geometry, table: ZoneTable, block: SuperBlock, path: str) -> Iterator[str]:
    """The original's description of the device and of the volume."""
    capacity, zone_sectors = geometry.size_bytes // SECTOR_BYTES, geometry.zone_bytes // SECTOR_BYTES
    conventional = int(np.count_nonzero(is_conventional(table)))
    read_only = int(np.count_nonzero(has_condition(table, ZoneCondition.READ_ONLY)))
    offline = int(np.count_nonzero(has_condition(table, ZoneCondition.OFFLINE)))
    yield f"{path}: {capacity} 512-byte sectors ({geometry.size_bytes >> 30} GiB)"
    yield f"  {_MODEL_NAMES[geometry.model]} device"
    yield f"  {capacity // zone_sectors} zones of {zone_sectors} 512-byte sectors ({geometry.zone_bytes >> 20} MiB)"
    if capacity % zone_sectors:
        runt = capacity % zone_sectors
        yield f"  1 runt zone of {runt} 512-byte sectors ({runt * SECTOR_BYTES >> 20} MiB)"
    yield f"  {conventional} conventional zones, {len(table) - conventional} sequential zones"
    yield f"  {read_only} read-only zones, {offline} offline zones"
    yield "Format:"
    yield f"  {len(table) - offline - 1} usable zones"
    yield f"  Aggregate conventional zones: {'enabled' if block.aggregated else 'disabled'}"
    yield f"  File UID: {block.uid}"
    yield f"  File GID: {block.gid}"
    yield f"  File access permissions: {block.perm:o}"
    if block.label:
        yield f"  FS label: {block.label_text}"
    yield f"  FS UUID: {block.uuid}"
