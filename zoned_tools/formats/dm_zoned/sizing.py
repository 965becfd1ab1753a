"""How many chunks and metadata blocks a new target gets.

The same arithmetic as dmzadm 2.x where that is sound, in signed numbers; geometries that
it gets wrong are refused with a reason instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoned_tools.errors import GeometryError
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, nr_first_write_zones
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BITS,
    DEFAULT_RESERVED_SEQUENTIAL,
    MAP_ENTRIES,
    MIN_CACHE_ZONES,
    NR_SETS,
    MetadataLayout,
    ceil_div,
)

_REFERENCE_STATUS = 255
"""Exit status of the reference for everything that goes wrong inside an operation."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """A layout for a new target, and what a human should know about it."""

    layout: MetadataLayout
    warnings: tuple[str, ...] = ()


def _refuse(message: str, device: str, hint: str = "") -> GeometryError:
    return GeometryError(message, device=device, hint=hint, clone_status=_REFERENCE_STATUS)


def fitting_reserve(reserved: int | None, nr_cache: int) -> int:
    """The reserve of a new target: what is wished for (None: 16), fewer with few cache zones."""
    reserve = DEFAULT_RESERVED_SEQUENTIAL if reserved is None else reserved
    # The reference takes a negative number for a huge one.
    return nr_cache - 1 if reserve > nr_cache or reserve < 1 else reserve


def size_metadata(geometry: TargetGeometry, reserved: int | None = None) -> Sizing:
    """Layout of a new target with ``reserved`` zones for reclaim (None: 16, fewer on small targets).

    Raises:
        GeometryError: the target is too small, or the kernel could not use the result; exit
            status 255 as the reference.
    """
    device = geometry.members[0].path
    cache, usable = geometry.nr_cache, geometry.nr_usable
    _check_zone_size(geometry)
    if cache < MIN_CACHE_ZONES:
        raise _refuse("Not enough random zones found", device, f"{cache} usable, {MIN_CACHE_ZONES} needed")
    reserve = fitting_reserve(reserved, cache)
    if reserve >= usable:
        raise _refuse("Not enough usable zones found", device)
    estimate = _estimate_set_zones(geometry, reserve, device)
    if NR_SETS * estimate > cache:
        raise _refuse(f"Insufficient number of cache zones (need {NR_SETS * estimate}, have {cache})", device)
    nr_chunks = usable - NR_SETS * estimate - reserve
    if nr_chunks < 1:
        raise _refuse(f"Not enough zones: nothing is left for data with {reserve} reserved zones", device)
    first = geometry.first_metadata_zone()
    assert first is not None  # there are cache zones
    layout = MetadataLayout.of(geometry, first, nr_chunks, reserve)
    _check_metadata_zones(geometry, layout)
    return Sizing(layout, tuple(_warnings(geometry, layout, estimate)))


def chunks_with(geometry: TargetGeometry, reserved: int) -> int | None:
    """Chunks that a format with a reserve gives a target, None when it fails; by the arithmetic alone."""
    try:
        estimate = _estimate_set_zones(geometry, reserved, geometry.members[0].path)
    except GeometryError:
        return None
    nr_chunks = geometry.nr_usable - NR_SETS * estimate - reserved
    return nr_chunks if nr_chunks > 0 and NR_SETS * estimate <= _nr_cache_of_any_kind(geometry) else None


def _nr_cache_of_any_kind(geometry: TargetGeometry) -> int:
    """As the reference counts them: sequential-write-preferred zones too."""
    return int(np.count_nonzero((geometry.cache | geometry.preferred) & geometry.counted & ~geometry.dead))


def _check_zone_size(geometry: TargetGeometry) -> None:
    blocks = geometry.zone_blocks
    if blocks > BLOCK_BITS and blocks % BLOCK_BITS:
        raise _refuse(
            f"Invalid zone size: the bitmaps cannot describe the tail of zones of {geometry.zone_bytes} bytes",
            geometry.members[0].path,
        )


def _estimate_set_zones(geometry: TargetGeometry, reserve: int, device: str) -> int:
    """Zones of one set, from a first guess of the mapping table's size."""
    bitmap_blocks = geometry.nr_zones * geometry.bitmap_blocks_per_zone
    bitmap_zones = ceil_div(bitmap_blocks, geometry.zone_blocks)
    if bitmap_zones + reserve > geometry.nr_usable:
        raise _refuse("Not enough zones", device)
    map_blocks = ceil_div(geometry.nr_usable - bitmap_zones - reserve, MAP_ENTRIES)
    return ceil_div(1 + map_blocks + bitmap_blocks, geometry.zone_blocks)


def _check_metadata_zones(geometry: TargetGeometry, layout: MetadataLayout) -> None:
    device = geometry.members[0].path
    zones = layout.metadata_zones
    part = slice(zones.start, zones.stop)
    fits = zones.stop <= geometry.members[0].nr_zones
    if not fits or not bool(geometry.cache[part].all()):
        what = "emulated zones" if geometry.is_multi else "conventional zones"
        raise _refuse(f"the {len(zones)} {what} from zone {zones.start} on are not contiguous", device)
    dead = np.flatnonzero(geometry.dead[part])
    if len(dead):
        raise _refuse(f"zone {zones.start + int(dead[0])} is needed for metadata but cannot be written", device)
    if bool(geometry.runt[part].any()):
        raise _refuse("a runt zone would hold metadata", device)
    if not nr_first_write_zones(geometry, layout) and (geometry.is_multi or bool(geometry.preferred.any())):
        raise _refuse(
            f"Not enough random zones found: none is left beside {len(zones)} metadata zones",
            device,
            "the kernel target would let every write wait for ever",
        )


def _warnings(geometry: TargetGeometry, layout: MetadataLayout, estimate: int) -> list[str]:
    found = []
    if not nr_first_write_zones(geometry, layout):
        found.append(
            "no conventional zone is left beside the metadata: the kernel target activates this device, "
            "but every write to it waits for ever"
        )
    if layout.set_zones != estimate:
        spare = NR_SETS * (estimate - layout.set_zones)
        found.append(f"{spare} zones stay unused: the mapping table came out smaller than its estimate")
    runts = int(np.count_nonzero(geometry.runt & geometry.cache)) if geometry.is_multi else 0
    unusable = len(geometry.members) - 1 + runts
    if geometry.is_multi and layout.nr_reserved_seq <= unusable:
        found.append(
            f"{unusable} of the {layout.nr_reserved_seq} reserved zones do not exist (first zones of members, "
            "runt zones): a full target cannot reclaim; use a larger --seq"
        )
    if geometry.zone_bytes & (geometry.zone_bytes - 1):
        found.append("the zone size is not a power of two: the kernel target refuses such drives")
    return found
