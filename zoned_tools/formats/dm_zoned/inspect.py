"""The decoded metadata of a target as a tree, every field with its meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.figures import usage_of
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, ZoneKind
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, SuperBlockState, TargetState
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED, MetadataLayout, superblock_crc
from zoned_tools.formats.dm_zoned.running import Running, running_on
from zoned_tools.formats.dm_zoned.settings import USE_SET
from zoned_tools.formats.dm_zoned.survey import SetSurvey, survey_set

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target

_MEANINGS = {
    "version": "metadata version: 1 has no names, 2 has label and UUIDs",
    "gen": "generation: raised by every commit, 0 in tertiary super blocks",
    "sb_block": "absolute block number of this super block",
    "nr_meta_blocks": "blocks of one metadata set, its super block included",
    "nr_reserved_seq": "sequential zones kept for reclaim",
    "nr_chunks": "logical chunks of one zone size each",
    "nr_map_blocks": "blocks of the mapping table, 512 chunks each",
    "nr_bitmap_blocks": "blocks of validity bitmaps, for every zone of every device",
}


def inspect(target: Target) -> dict[str, object]:
    """Geometry, super blocks, layout of the sets, and every mapped chunk of the set in use, or of the user's.

    Raises:
        NoValidSuperBlockError: the set that the user wants cannot be used.
        GeometryError: the devices cannot form a target.
        DeviceError: something cannot be read.
    """
    trusted = target.settings.number(USE_SET)

    def tree(state: TargetState) -> dict[str, object]:
        if trusted is not None and state.chosen is None:
            raise NoValidSuperBlockError(DmZonedEvidence(target=target, state=state, trusted=trusted))
        return _tree(state, running_on(target))

    return around_unreadable(target, tree, trusted, rebuilds=True)


def _tree(state: TargetState, running: Running | None) -> dict[str, object]:
    tree: dict[str, object] = {} if running is None else {"running": _running(running)}
    tree |= {
        "geometry": _geometry(state.geometry),
        "super_blocks": {_place(s): _superblock(s) for s in (*state.sets, *state.tertiary)},
        "set_used": state.chosen,
    }
    if state.chosen is not None and state.layout is not None:
        examined = survey_set(content_of(state, state.chosen))
        tree["places"] = _layout(state.layout)
        tree["usage"] = _usage(state, examined)
        tree["chunks"] = _chunks(state.geometry, examined)
    return tree


def _running(running: Running) -> dict[str, object]:
    """What the kernel says of the target; everything else is what is on the devices: its last commit."""
    zones = {kind.name.lower(): {"free": free, "zones": total} for kind, (free, total) in running.zones.items()}
    return {"name": running.name, **zones}


def _place(found: SuperBlockState) -> str:
    place = found.place
    return f"tertiary_{place.number}" if place.is_tertiary else SET_NAMES[place.number]


def _field(value: object, meaning: str) -> dict[str, object]:
    return {"value": value, "meaning": meaning}


def _superblock(found: SuperBlockState) -> dict[str, object]:
    tree: dict[str, object] = {
        "block": found.block,
        "valid": found.valid,
        "faults": [f"{fault.code}: {fault.message}" for fault in found.faults],
        "notes": [f"{code}: {message}" for code, message in found.notes],
    }
    sb = found.superblock
    if sb is None:
        return tree
    crc = superblock_crc(found.raw, sb.gen)
    tree["magic"] = _field(f"{sb.magic:#010x}", "right" if found.has_magic else "wrong")
    for name, meaning in _MEANINGS.items():
        tree[name] = _field(getattr(sb, name), meaning)
    seed = sb.gen & 0xFFFFFFFF
    tree["crc"] = _field(f"{sb.crc:#010x}", f"right, seed {seed}" if sb.crc == crc else f"should be {crc:#010x}")
    label = sb.label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    tree["label"] = _field(label, "name of the target (version 2)")
    tree["dmz_uuid"] = _field(str(sb.dmz_uuid), "UUID of the target (version 2)")
    tree["dev_uuid"] = _field(str(sb.dev_uuid), "UUID of the device that holds this super block (version 2)")
    used = sum(byte != 0 for byte in sb.reserved)
    tree["reserved"] = _field(f"{len(sb.reserved)} bytes", f"{used} not zero" if used else "all zero")
    return tree


def _geometry(geometry: TargetGeometry) -> dict[str, object]:
    kinds = {kind.name.lower(): int(np.count_nonzero(geometry.kinds == kind)) for kind in ZoneKind}
    return {
        "devices": [
            {
                "path": member.path,
                "model": str(member.model),
                "zones": member.nr_zones,
                "first_zone": member.first_zone,
                "block_offset": member.block_offset,
            }
            for member in geometry.members
        ],
        "zones": geometry.nr_zones,
        "zone_bytes": geometry.zone_bytes,
        "zone_blocks": geometry.zone_blocks,
        "bitmap_blocks_per_zone": geometry.bitmap_blocks_per_zone,
        "kinds": kinds,
        "usable_zones": geometry.nr_usable,
        "runt_zones": np.flatnonzero(geometry.runt).tolist(),
        "read_only_zones": np.flatnonzero(geometry.read_only).tolist(),
        "offline_zones": np.flatnonzero(geometry.offline).tolist(),
    }


def _layout(layout: MetadataLayout) -> dict[str, object]:
    zones = layout.metadata_zones
    return {
        "metadata_zones": _field([zones.start, zones.stop - 1], "first and last zone of both sets"),
        "zones_per_set": layout.set_zones,
        "sets": [
            {
                "super_block": layout.set_block(number),
                "mapping_table": [layout.map_block(number), layout.nr_map_blocks],
                "bitmaps": [layout.bitmap_block(number), layout.nr_bitmap_blocks],
            }
            for number in (0, 1)
        ],
        "set_bytes": layout.nr_meta_blocks * BLOCK_BYTES,
    }


def _usage(state: TargetState, examined: SetSurvey) -> dict[str, object]:
    geometry, mapping = state.geometry, examined.map
    valid, counted = int(examined.bits.weight.sum()), usage_of(examined)
    return {
        "logical_bytes": examined.layout.nr_chunks * geometry.zone_bytes,
        "mapped_chunks": mapping.nr_mapped,
        "buffered_chunks": mapping.nr_buffered,
        "empty_chunks": _field(len(counted.empty), "mapped without a valid block"),
        "valid_blocks": _field(valid, f"{valid * BLOCK_BYTES} bytes of data"),
        "reserved_zones": _field(counted.reserved, "unmapped sequential zones that are kept for reclaim"),
        "zones": {
            kind.name.lower(): {
                "zones": row.zones,
                "free_zones": row.free,
                "mapped_chunks": row.chunks,
                "valid_blocks": row.valid_blocks,
            }
            for kind, row in counted.kinds.items()
        },
    }


def _chunks(geometry: TargetGeometry, examined: SetSurvey) -> list[dict[str, object]]:
    mapping, weight = examined.map, examined.bits.weight
    used = np.flatnonzero((mapping.data != UNMAPPED) | (mapping.buffer != UNMAPPED))
    rows = []
    for chunk in used.tolist():
        row: dict[str, object] = {"chunk": chunk}
        for name, zone, usable in (
            ("data_zone", int(mapping.data[chunk]), mapping.data_usable[chunk]),
            ("buffer_zone", int(mapping.buffer[chunk]), mapping.buffer_usable[chunk]),
        ):
            if zone == UNMAPPED:
                continue
            row[name] = zone
            if usable:
                row[f"{name}_valid_blocks"] = int(weight[zone])
                if name == "data_zone" and geometry.wp_blocks[zone] >= 0:
                    row["write_pointer_block"] = int(geometry.wp_blocks[zone])
        rows.append(row)
    return rows
