"""The decoded metadata of a volume as a tree, every field with its meaning."""

from __future__ import annotations

from errno import EIO

import numpy as np

from zoned_tools.errors import DeviceError, MetadataError, UsageError
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.assume import assume_volume
from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.judge import series_of, super_block_faults
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.open import Volume, is_old_series, read_super_block, volume_of
from zoned_tools.formats.inplace_compress.statistics import Statistics
from zoned_tools.formats.inplace_compress.table import ACTIVATION_WARNING, table_line

_FORMS = ("unreadable entries", "invalid", "raw", "compressed")

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
    try:
        super_block = read_super_block(device, start)
    except DeviceError as error:
        if error.errno != EIO:
            raise
        return _without_super_block(target, error)
    if super_block is None:
        raise MetadataError("too small for a super block", device=device.path)
    size_bytes = device.geometry.size_bytes - start
    faults = ["OLD_SERIES"] if is_old_series(device, start) else list(super_block_faults(super_block, size_bytes))
    magic_text = "right" if super_block.magic == layout.MAGIC else f"should be {layout.MAGIC:#018x}"
    volume = volume_of(device, start, super_block)
    magic = {"magic": _field(f"{super_block.magic:#018x}", magic_text)}
    tree: dict[str, object] = {"super_block": magic | _sizes(volume), "faults": faults}
    if set(faults) - {"SB_ALG"}:
        return tree
    tree["series"] = _field(series_of(super_block, size_bytes), "of the driver, guessed from the sizes")
    _add_volume(volume, target, tree)
    return tree


def _sizes(volume: Volume) -> dict[str, object]:
    compressor = volume.compressor
    return {
        "meta_blocks": _field(volume.meta_blocks, "4096-byte blocks of bitmap behind the super block"),
        "data_blocks": _field(volume.data_blocks, "4096-byte blocks of the logical device"),
        "comp_alg": _field(volume.comp_alg, compressor.label if compressor is not None else "unknown compressor"),
    }


def _without_super_block(target: Target, error: DeviceError) -> dict[str, object]:
    """The tree of a volume whose super block cannot be read, with what is assumed instead."""
    volume = assume_volume(target.device, target.start_bytes)
    tree: dict[str, object] = {"super_block": {"unreadable": _field(None, error.message)}, "faults": ["metadata-lost"]}
    if volume is not None:
        tree["assumed"] = _sizes(volume)
        _add_volume(volume, target, tree)
    return tree


def _add_volume(volume: Volume, target: Target, tree: dict[str, object]) -> None:
    start, size_bytes = target.start_bytes, target.device.geometry.size_bytes - target.start_bytes
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


def _add_extents(volume: Volume, tree: dict[str, object]) -> None:
    statistics = Statistics(volume.data_blocks)
    listed: list[dict[str, object]] = []
    for extents in scan(volume.entry_chunks()):
        statistics.add(extents)
        part = extents.select(np.arange(min(len(extents), LISTED_MAX - len(listed))))
        forms = np.select(
            (part.unknown, part.bad_nibble, part.is_raw, part.payload > 0), _FORMS, "orphaned tails"
        ).tolist()
        payload = np.where(part.unknown, 0, part.payload).tolist()
        for head, blocks, sectors, form in zip(part.head.tolist(), part.blocks.tolist(), payload, forms, strict=True):
            listed.append({"block": head, "blocks": blocks, "payload_sectors": sectors, "form": form})
    tree["statistics"] = statistics.as_json()
    tree["extents"] = listed
