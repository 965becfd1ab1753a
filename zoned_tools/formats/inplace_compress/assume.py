"""Sizes and compressor of a volume whose super block cannot be read: what they are taken for.

The super block has no second copy. Assumed are the largest number of data blocks for the device, or what the 2016
series made of it, and the compressor with which the first compressed extents decode.

Source: section 1.5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.extents import Extents, join, scan
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import Volume, volume_of
from zoned_tools.formats.inplace_compress.verify import EXT_PAD, GOOD, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device

_TRIED_EXTENTS = 10
_ORDER = (Compressor.LZO, Compressor.C842, Compressor.LZ4)
"""Of two compressors that decode as much, the first; without any stream it does not matter."""


def assume_volume(device: Device, start_bytes: int, data_blocks: int | None = None) -> Volume | None:
    """The volume that most likely is there; None where no sizes are possible or no stream decodes with them.

    Args:
        data_blocks: where the user knows them.
    """
    size_bytes = device.geometry.size_bytes - start_bytes
    best, best_good = None, 0
    for meta, data in _sizes(size_bytes // BLOCK_BYTES, data_blocks):
        volume = volume_of(device, start_bytes, SuperBlock(layout.MAGIC, meta, data, int(_ORDER[0])))
        extents = _first_compressed(volume)
        if not len(extents):
            best = best or volume
            continue
        for compressor in _ORDER:
            tried = replace(volume, comp_alg=int(compressor))
            good = sum(int(np.isin(j.rule, (GOOD, EXT_PAD)).sum()) for j in judge(tried, extents))
            if good > best_good:
                best, best_good = tried, good
    return None if best is None else replace(best, is_assumed=True)


def _sizes(device_blocks: int, data_blocks: int | None) -> Iterator[tuple[int, int]]:
    """``(meta blocks, data blocks)`` in the order in which they are tried."""
    most = layout.max_data_blocks(device_blocks)
    if data_blocks is not None:
        pairs = [(layout.meta_blocks_for(data_blocks), data_blocks)]
    else:
        pairs = [(layout.meta_blocks_for(most), most), layout.solved_sizes(device_blocks)]
    for meta, data in dict.fromkeys(pairs):
        if layout.sizes_fit(meta, data, device_blocks) and 1 + meta + data <= device_blocks:
            yield meta, data


def _first_compressed(volume: Volume) -> Extents:
    """The first compressed extents whose end is known."""
    found: list[Extents] = []
    for batch in scan(volume.entry_chunks()):
        whole = batch.select(batch.is_compressed & ~batch.cut)
        found.append(whole.select(np.arange(min(len(whole), _TRIED_EXTENTS - sum(map(len, found))))))
        if sum(map(len, found)) >= _TRIED_EXTENTS:
            break
    return join(found)
