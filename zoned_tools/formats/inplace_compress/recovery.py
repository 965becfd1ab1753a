"""Finding the sizes of a volume whose super block is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import WRITABLE, compressor_by_name, compressor_by_number
from zoned_tools.formats.inplace_compress.judge import sizes_are_possible
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import volume_of
from zoned_tools.formats.inplace_compress.survey import verifies
from zoned_tools.formats.inplace_compress.table import arguments_from_settings, known_data_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Settings


def _with_compressors(sizes: SuperBlock) -> Iterator[SuperBlock]:
    """The super block with its own compressor, if that is known, then with the others."""
    numbers = [n for n in (sizes.comp_alg, *map(int, WRITABLE)) if compressor_by_number(n) is not None]
    for number in dict.fromkeys(numbers):
        yield SuperBlock(layout.MAGIC, sizes.meta_blocks, sizes.data_blocks, number)


def find_super_block(
    device: Device, start_bytes: int, stored: SuperBlock, settings: Settings
) -> tuple[SuperBlock | None, str]:
    """The super block that the volume must have had, and how it is known.

    From the user's table line or number of blocks; else the only sizes (those stored, the
    largest for the device, those of the 2016 series) for which bitmap and payloads verify.
    None with the reason when they cannot be known.
    """
    size_bytes = device.geometry.size_bytes - start_bytes
    expected = known_data_blocks(settings)
    if expected is not None:
        return _from_user(device, start_bytes, stored, settings, expected)
    as_stored = SuperBlock(layout.MAGIC, stored.meta_blocks, stored.data_blocks, stored.comp_alg)
    if sizes_are_possible(as_stored, size_bytes):
        for candidate in _with_compressors(as_stored):
            if verifies(volume_of(device, start_bytes, candidate)):
                return candidate, "the stored sizes verify"
    blocks = size_bytes // BLOCK_BYTES
    most = layout.max_data_blocks(blocks)
    pairs = {(layout.meta_blocks_for(most), most), layout.solved_sizes(blocks)}
    if 0 < stored.data_blocks <= most:
        pairs.add((layout.meta_blocks_for(stored.data_blocks), stored.data_blocks))
    found = []
    for meta_blocks, data_blocks in sorted(pairs):
        sizes = SuperBlock(layout.MAGIC, meta_blocks, data_blocks, stored.comp_alg)
        if sizes_are_possible(sizes, size_bytes):
            verified = (c for c in _with_compressors(sizes) if verifies(volume_of(device, start_bytes, c)))
            found += list(verified)[:1]
    if len(found) == 1:
        return found[0], "the only sizes for which bitmap and payloads verify"
    reason = "no sizes verify" if not found else "several sizes verify"
    return None, f"{reason}; give the volume's table line or number of data blocks"


def _from_user(
    device: Device, start_bytes: int, stored: SuperBlock, settings: Settings, data_blocks: int
) -> tuple[SuperBlock | None, str]:
    sizes = SuperBlock(layout.MAGIC, layout.meta_blocks_for(data_blocks), data_blocks, stored.comp_alg)
    if not sizes_are_possible(sizes, device.geometry.size_bytes - start_bytes):
        return None, f"{data_blocks} data blocks do not fit the device"
    for candidate in _with_compressors(sizes):
        if verifies(volume_of(device, start_bytes, candidate)):
            return candidate, "given, and bitmap and payloads verify"
    name = arguments_from_settings(settings).compressor
    number = int(compressor_by_name(name)) if name else stored.comp_alg
    if compressor_by_number(number) is None:
        return None, "the compressor is unknown; give a table line with compressor="
    return SuperBlock(layout.MAGIC, sizes.meta_blocks, data_blocks, number), "given"
