"""The zone table of a raw copy with a ZDM: its geometry says where zones are, pointer blocks how far they are written.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.derived import conventional_view, find_written, raw_geometry, set_written
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneType, make_table
from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.shared.derived import Bounds, DerivedZones, ZoneWishes
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import GROUP_ZONES, ZONE_BYTES, ceil_div
from zoned_tools.formats.zdm.open import State, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray, ZoneTable
    from zoned_tools.formats.contract import Target

CERTAIN = ("zone size", "start", "number of data zones", "conventional data zones")
ESTIMATED = ("write pointers",)


def derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    """The zone table of a raw copy.

    A regular device carries a ZDM as well: it is a raw copy of a zoned drive when its mapper found sequential zones, or
    when the user says so.

    Raises:
        RefusedError: the wishes contradict the metadata.
    """
    device = target.device
    if device.geometry.is_zoned:
        return [None]
    try:
        state = load(target)
    except MetadataError:
        return [None]  # the layout's own rooms say what is wrong
    sequential = _sequential_data(state)
    if sequential is None and not wishes.insisted:
        return [None]
    if wishes.zone_bytes not in (0, ZONE_BYTES):
        raise RefusedError(f"ZDM has zones of {ZONE_BYTES} bytes", device=device.path)
    zone_bytes, size = ZONE_BYTES, device.geometry.size_bytes
    nr_zones, first = ceil_div(size, zone_bytes), min(_first_data_zone(state), ceil_div(size, zone_bytes))
    is_sequential = np.ones(nr_zones, np.bool_)
    is_sequential[:first] = False
    if sequential is not None:
        data = is_sequential[first : first + len(sequential)]
        data[:] = sequential[: len(data)]
        is_sequential[: state.geometry.zdstart] = False
        count = int(np.count_nonzero(~is_sequential))
        bounds = Bounds.choose(count, count, count, wishes.conventional_of(0), device.path)
    else:
        bounds = Bounds.choose(first, nr_zones, first, wishes.conventional_of(0), device.path)
        is_sequential[: bounds.used] = False
    make = partial(_table, device, state, first, is_sequential)
    return [DerivedZones(raw_geometry(size, zone_bytes), bounds, CERTAIN, ESTIMATED, make)]


def _first_data_zone(state: State) -> int:
    geometry = state.geometry
    return geometry.zdstart if geometry.table_base == geometry.data_start else geometry.first_device_zone


def _sequential_data(state: State) -> BoolArray | None:
    """Which data zones the mapper recorded as sequential; None where it recorded none, or never ran."""
    if state.current is None:
        return None
    found: BoolArray = (state.wp & np.uint32(layout.WP_NON_SEQ)) == 0
    group = np.arange(len(state.wp)) // GROUP_ZONES
    written = np.bincount(group, weights=state.wp != 0)[group] > 0  # else the block may never have been
    return found if bool(found[written].any()) else None


def _is_told(state: State) -> BoolArray:
    """Data zones whose pointer block is that of the generation."""
    bad = np.isin(np.arange(len(state.wp)) // GROUP_ZONES, state.wp_bad)
    return ~bad


def _table(device: Device, state: State, first: int, is_sequential: BoolArray) -> ZoneTable:
    geometry = raw_geometry(device.geometry.size_bytes, ZONE_BYTES)
    table = make_table(geometry.size_bytes // SECTOR_BYTES, ZONE_BYTES // SECTOR_BYTES)
    conventional = np.flatnonzero(~is_sequential)
    table["type"][conventional] = ZoneType.CONVENTIONAL
    table["condition"][conventional] = ZoneCondition.NOT_WP
    table["wp_sector"][conventional] = (table["start_sector"] + table["length_sectors"])[conventional]
    recorded: IntArray = np.zeros(len(table), np.int64)
    words = np.where(_is_told(state), state.wp & np.uint32(layout.WP_MASK), 0).astype(np.int64)
    count = min(len(words), len(table) - first)
    recorded[first : first + count] = np.minimum(words[:count], layout.ZONE_BLOCKS)
    floor = recorded[first:]
    floor[~is_sequential[first:]] = layout.ZONE_BLOCKS  # nothing of them is read
    written = recorded.copy()
    written[first:] = find_written(conventional_view(device, geometry), first, floor)
    return set_written(table, written)
