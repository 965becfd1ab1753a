"""The decoded metadata of a volume as a tree, every field with its meaning."""

from __future__ import annotations

import numpy as np

from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.judge import series_of, super_block_faults
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.open import Volume, is_old_series, read_super_block, volume_of
from zoned_tools.formats.inplace_compress.statistics import Statistics
from zoned_tools.formats.inplace_compress.table import ACTIVATION_WARNING, table_line

LISTED_MAX = 100_000
"""Extents that are listed; all are counted."""


def _field(value: object, meaning: str) -> dict[str, object]:
    return {"value": value, "meaning": meaning}


def inspect(target: Target) -> dict[str, object]:
    """Super block, positions, statistics and extents of a volume.

    Raises:
        MetadataError: the device is too small for a super block.
    """
    device, start = target.device, target.start_bytes
    super_block = read_super_block(device, start)
    if super_block is None:
        raise MetadataError("too small for a super block", device=device.path)
    size_bytes = device.geometry.size_bytes - start
    faults = ["OLD_SERIES"] if is_old_series(device, start) else list(super_block_faults(super_block, size_bytes))
    magic_text = "right" if super_block.magic == layout.MAGIC else f"should be {layout.MAGIC:#018x}"
    volume = volume_of(device, start, super_block)
    compressor = volume.compressor
    names = {
        "magic": _field(f"{super_block.magic:#018x}", magic_text),
        "meta_blocks": _field(super_block.meta_blocks, "4096-byte blocks of bitmap behind the super block"),
        "data_blocks": _field(super_block.data_blocks, "4096-byte blocks of the logical device"),
        "comp_alg": _field(super_block.comp_alg, compressor.label if compressor is not None else "unknown compressor"),
    }
    tree: dict[str, object] = {"super_block": names, "faults": faults}
    if set(faults) - {"SB_ALG"}:
        return tree
    tree["series"] = _field(series_of(super_block, size_bytes), "of the driver, guessed from the sizes")
    tree["positions"] = {
        "bitmap_offset_bytes": volume.bitmap_offset_bytes,
        "bitmap_bytes": volume.bitmap_bytes,
        "data_offset_bytes": volume.data_offset_bytes,
        "data_start_sector": (volume.data_offset_bytes - start) // SECTOR_BYTES,
        "logical_bytes": volume.data_blocks * BLOCK_BYTES,
        "unused_bytes": size_bytes - (1 + volume.meta_blocks + volume.data_blocks) * BLOCK_BYTES,
    }
    try:
        tree["table"] = _field(table_line(target, Settings()).line, ACTIVATION_WARNING)
    except (UsageError, MetadataError) as reason:
        tree["table"] = _field(None, reason.message)
    _add_extents(volume, tree)
    return tree


def _add_extents(volume: Volume, tree: dict[str, object]) -> None:
    statistics = Statistics(volume.data_blocks)
    listed: list[dict[str, object]] = []
    for extents in scan(volume.entry_chunks()):
        statistics.add(extents)
        part = extents.select(np.arange(min(len(extents), LISTED_MAX - len(listed))))
        raw, bad = part.is_raw.tolist(), part.bad_nibble.tolist()
        columns = part.head.tolist(), part.blocks.tolist(), part.payload.tolist(), raw, bad
        for head, blocks, payload, is_raw, is_bad in zip(*columns, strict=True):
            form = "invalid" if is_bad else "raw" if is_raw else "compressed" if payload else "orphaned tails"
            listed.append({"block": head, "blocks": blocks, "payload_sectors": payload, "form": form})
    tree["statistics"] = statistics.as_json()
    tree["extents"] = listed
