"""The decoded metadata as a tree: the rings, and the newest super block of every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.chunks import Chunk, ChunkError, chunk_type_text, sys_chunks
from zoned_tools.formats.btrfs.layout import (
    CSUM_BYTES,
    INCOMPAT_METADATA_UUID,
    MAGIC,
    NAME,
    TEMPORARY_MAGIC,
    BackupRoot,
    SuperBlock,
    metadata_uuid,
    parse,
)
from zoned_tools.formats.btrfs.names import (
    BACKUP_TREES,
    COMPAT_RO_NAMES,
    FLAG_NAMES,
    INCOMPAT_NAMES,
    SHOWN_DEVICE_FIELDS,
    SHOWN_FIELDS,
    bit_names,
    magic_text,
    printable,
)
from zoned_tools.formats.btrfs.supers import ring_as_json
from zoned_tools.formats.btrfs.survey import DeviceSurvey, survey_file_system

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target


def inspect(target: Target) -> dict[str, object]:
    """The rings without their single copies, and the newest valid super block in full.

    Raises:
        MetadataError: nothing that looks like btrfs is there.
    """
    fs = survey_file_system(target)
    if all(not survey.placement.mirrors for survey in fs.surveys):
        raise MetadataError("too small for a btrfs super block", device=target.device.path)
    newest = fs.newest
    return {
        "layout": NAME,
        "fsid": None if newest is None else str(newest.fsid),
        "generation": None if newest is None else newest.generation,
        "members": [_device(survey) for survey in fs.surveys],
    }


def _device(survey: DeviceSurvey) -> dict[str, object]:
    rings = []
    for mirror in survey.mirrors:
        counts = {"copies": len(mirror.copies), "valid_copies": int(mirror.copies["valid"].sum())}
        rings.append({**ring_as_json(mirror), **counts})
    best = survey.best
    return {
        "device": survey.device.path,
        "model": str(survey.device.geometry.model),
        "raw_copy_of_zoned_drive": survey.placement.derived,
        "zone_size_bytes": survey.placement.zone_bytes or None,
        "rings": rings,
        "super_block": None if best is None else as_tree(survey.block(best[1])),
    }


def as_tree(raw: bytes) -> dict[str, object]:
    """Every field of a super block by its dump-super name, numbers as numbers."""
    block = parse(raw)
    tree = _identity_tree(raw, block)
    tree |= {name: getattr(block, name) for name in SHOWN_FIELDS}
    for flags, names in (
        ("compat_flags", {}),
        ("compat_ro_flags", COMPAT_RO_NAMES),
        ("incompat_flags", INCOMPAT_NAMES),
    ):
        value = getattr(block, flags)
        tree[flags] = value
        tree[flags.removesuffix("s") + "_names"] = bit_names(value, names)
    tree |= {name: getattr(block, name) for name in ("cache_generation", "uuid_tree_generation", "nr_global_roots")}
    item = block.dev_item
    tree["dev_item"] = {
        "uuid": str(item.uuid),
        "fsid": str(item.fsid),
        "fsid_ok": item.fsid == metadata_uuid(block),
        **{name: getattr(item, name) for name in (*SHOWN_DEVICE_FIELDS, "start_offset")},
    }
    try:
        tree["sys_chunk_array"] = [_chunk_tree(chunk) for chunk in sys_chunks(block)]
    except ChunkError as error:
        tree["sys_chunk_array"] = []
        tree["sys_chunk_array_error"] = str(error)
    tree["backup_roots"] = [_backup_tree(backup) for backup in block.backup_roots]
    return tree


def _identity_tree(raw: bytes, block: SuperBlock) -> dict[str, object]:
    algorithm = ALGORITHMS.get(block.csum_type)
    return {
        "csum_type": block.csum_type,
        "csum_name": algorithm.name if algorithm else None,
        "csum": block.csum[: algorithm.size if algorithm else CSUM_BYTES].hex(),
        "csum_ok": csum_matches(raw, block.csum_type),
        "bytenr": block.bytenr,
        "flags": block.flags,
        "flag_names": bit_names(block.flags, FLAG_NAMES),
        "magic": magic_text(block.magic),
        "magic_ok": block.magic == MAGIC,
        "temporary": block.magic == TEMPORARY_MAGIC,
        "fsid": str(block.fsid),
        "metadata_uuid": str(metadata_uuid(block)),
        "metadata_uuid_in_use": bool(block.incompat_flags & INCOMPAT_METADATA_UUID),
        "label": printable(block.label),
    }


def _chunk_tree(chunk: Chunk) -> dict[str, object]:
    return {
        "logical": chunk.logical,
        "length": chunk.length_bytes,
        "owner": chunk.owner,
        "stripe_len": chunk.stripe_len,
        "type": chunk_type_text(chunk.type),
        "io_align": chunk.io_align,
        "io_width": chunk.io_width,
        "sector_size": chunk.sector_size,
        "num_stripes": len(chunk.stripes),
        "sub_stripes": chunk.sub_stripes,
        "stripes": [{"devid": s.devid, "offset": s.offset_bytes, "dev_uuid": str(s.dev_uuid)} for s in chunk.stripes],
    }


def _backup_tree(backup: BackupRoot) -> dict[str, object]:
    tree: dict[str, object] = {
        name: {
            "bytenr": getattr(backup, name),
            "generation": getattr(backup, f"{name}_gen"),
            "level": getattr(backup, f"{name}_level"),
        }
        for name in BACKUP_TREES
    }
    return tree | {name: getattr(backup, name) for name in ("total_bytes", "bytes_used", "num_devices")}
