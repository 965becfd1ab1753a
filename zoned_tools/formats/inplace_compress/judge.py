"""What a super block is worth: the rules that it alone decides, and which series of the driver wrote it."""

from __future__ import annotations

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor, compressor_by_number
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SuperBlock, Version1SuperBlock

BLOCKING = frozenset({"SB_MAGIC", "SB_SIZE", "SB_DEVICE"})
"""Faults behind which nothing on the device can be trusted to lie where it is looked for."""


def super_block_faults(super_block: SuperBlock, device_bytes: int) -> tuple[str, ...]:
    """Codes of the super block's rules that are violated; ``device_bytes`` from the layout's start."""
    if super_block.magic != layout.MAGIC:
        return ("SB_MAGIC",)
    faults = []
    meta, data = super_block.meta_blocks, super_block.data_blocks
    if not layout.sizes_fit(meta, data, device_bytes // BLOCK_BYTES):
        faults.append("SB_SIZE")
    if (1 + meta + data) * BLOCK_BYTES > device_bytes:
        faults.append("SB_DEVICE")
    if compressor_by_number(super_block.comp_alg) is None:
        faults.append("SB_ALG")
    return tuple(faults)


def sizes_are_possible(super_block: SuperBlock, device_bytes: int) -> bool:
    """Whether the sizes belong together and fit the device, whatever the compressor is."""
    return not {"SB_SIZE", "SB_DEVICE"} & set(super_block_faults(super_block, device_bytes))


def is_version_1(super_block: Version1SuperBlock, device_bytes: int) -> bool:
    """Whether this is a volume of the 2013 series, whose super block has a version in front of its sizes."""
    return (
        super_block.magic == layout.MAGIC
        and super_block.version == 1
        and super_block.data_blocks > max(Compressor)
        and super_block.comp_alg in (0, 1)
        and (super_block.meta_blocks, super_block.data_blocks) == layout.solved_sizes(device_bytes // BLOCK_BYTES)
    )


def series_of(super_block: SuperBlock, device_bytes: int) -> str:
    """The year of the driver's series that made the volume, as far as its sizes tell.

    The 2016 series computed the sizes from the device, that of 2017 takes them from the table.
    """
    device_blocks = device_bytes // BLOCK_BYTES
    meta, data = super_block.meta_blocks, super_block.data_blocks
    solved = (meta, data) == layout.solved_sizes(device_blocks)
    if solved and (meta != layout.meta_blocks_for(data) or data != layout.max_data_blocks(device_blocks)):
        return "2016"
    return "2017"
