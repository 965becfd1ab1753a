"""The decoded metadata as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.layout import ZONE_BLOCKS, Geometry
from zoned_tools.formats.zdm.open import State, load
from zoned_tools.formats.zdm.superblock import as_json

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.zdm.judge import Candidate

_FLAGS = {
    layout.WP_RRECALC: "RRECALC",
    layout.WP_NON_SEQ: "NON_SEQ",
    layout.WP_GC_READY: "GC_READY",
    layout.WP_GC_TARGET: "GC_TARGET",
    layout.WP_GC_ACTIVE: "GC_ACTIVE",
    layout.WP_GC_FULL: "GC_FULL",
}


def inspect(target: Target) -> dict[str, object]:
    """Identity, geometry, every key that was found, and what the chosen generation holds.

    Raises:
        MetadataError: there is no ZDM.
        GeometryError: its numbers cannot be those of this partition.
    """
    state = load(target)
    current = state.current
    return {
        "identity": as_json(state.identity),
        "dialect": str(state.dialect),
        "geometry": geometry_json(state.geometry),
        "usable": not state.refusal,
        "refusal": state.refusal,
        "logical_blocks": state.logical_blocks,
        "keys": [key_json(c) for c in state.generations.candidates],
        "generation": current.generation if current else None,
        "content": content_json(state, current) if current else None,
        "status": status(state),
        "zones_used": [zone_json(state, zone) for zone in used_zones(state)],
    }


def geometry_json(geometry: Geometry) -> dict[str, object]:
    """Places and sizes, in blocks from the partition's start."""
    return {
        "start_sector": geometry.start_sector,
        "partition_blocks": geometry.size_blocks,
        "data_start_zone": geometry.zdstart,
        "data_zones": geometry.data_zones,
        "table_zones": geometry.table_zones,
        "forward_start": geometry.forward_start,
        "reverse_start": geometry.reverse_start,
        "crc_start": geometry.crc_start,
        "data_start": geometry.data_start,
        "table_pages": geometry.map_count,
        "crc_pages": geometry.crc_count,
        "journal_map_blocks": geometry.journal_map_blocks,
    }


def key_json(candidate: Candidate) -> dict[str, object]:
    """One key block with its verdict."""
    key: Any = candidate.key
    return {
        "block": candidate.block,
        "area": candidate.window,
        "dialect": str(candidate.dialect),
        "generation": candidate.generation,
        "checksum_ok": candidate.valid,
        "complete": candidate.complete,
        "fault": candidate.fault,
        "uuid": str(key.super.uuid),
        "nr_zones": key.super.nr_zones,
        "zdstart": key.super.zdstart,
        "version": key.super.version,
        "flags": key.super.flags,
        "dirty": candidate.dirty,
        "map_pages": key.maps,
        "discard_pages": key.discards,
        "journal_map_blocks": key.wb_blocks,
        "next_slot": key.wb_next,
        "crc32": f"{key.crc32:08x}",
    }


def content_json(state: State, current: Candidate) -> dict[str, object]:
    """What the chosen generation holds besides the tables."""
    key: Any = current.key
    streams = current.streams
    return {
        "streams": {str(i): int(streams[i]) for i in np.flatnonzero(streams >= 0).tolist()},
        "gc_reserve": key.gc_resv & layout.RESERVE_ZONE_MASK,
        "meta_reserve": key.meta_resv & layout.RESERVE_ZONE_MASK,
        "cache_entries": len(current.cache),
        "cache_zero_entries": int(np.count_nonzero(current.cache[:, 2] == 0)),
        "discard_extents": len(current.discards),
        "journaled_pages": len(state.tables.journal),
    }


def used_zones(state: State) -> list[int]:
    """Data zones with something allocated."""
    used: list[int] = np.flatnonzero(state.wp & layout.WP_MASK).tolist()
    return used


def zone_json(state: State, zone: int) -> dict[str, object]:
    """One data zone as recorded."""
    wp, zf = int(state.wp[zone]), int(state.zf[zone])
    return {
        "zone": zone,
        "device_zone": state.geometry.first_device_zone + zone,
        "wp_blocks": wp & layout.WP_MASK,
        "flags": [name for bit, name in _FLAGS.items() if wp & bit],
        "free_estimate": zf & layout.ZF_MASK,
        "stream": zf >> layout.ZF_STREAM_SHIFT,
        "device_wp_blocks": int(state.zones.wp_blocks[zone]) if state.zones.wp_blocks[zone] >= 0 else None,
    }


def status(state: State) -> dict[str, int]:
    """The figures of the original's zdm-status, as far as an image has them; blocks."""
    current = state.current
    wp = (state.wp & layout.WP_MASK).astype(np.int64)
    free = (state.zf & layout.ZF_MASK).astype(np.int64)
    key: Any = current.key if current else None
    return {
        "used": int(wp.sum()),
        "available": int((ZONE_BLOCKS - wp).sum()),
        "discard": int(np.maximum(wp - (ZONE_BLOCKS - free), 0).sum()),
        "zones": state.geometry.data_zones,
        "empty_zones": int(np.count_nonzero(wp == 0)),
        "map_pages": int(key.maps) if key else 0,
        "discard_pages": int(key.discards) if key else 0,
        "journal_pages": int(key.wb_blocks) if key else 0,
        "journal_in_use": len(current.journal) if current else 0,
        "journal_slots": int(key.wb_blocks) * layout.PAGE_ENTRIES if key else 0,
    }
