"""Reading a target's metadata: blocks by absolute number, the mapping table, bitmaps as a stream.

Shared by check, repair, dump and the mapper. Bitmaps of a large drive are hundreds of
megabytes, so they are only ever seen in pieces of a few MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, build_geometry
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MapArray, MetadataLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target

STREAM_BYTES = 4 << 20
"""How much of the bitmaps is in memory at a time."""

Words = npt.NDArray[np.uint64]
"""Bitmap words: shape (zones, words per zone), bit ``b & 63`` of word ``b >> 6`` is block ``b``."""


@dataclass(frozen=True, slots=True)
class TargetBlocks:
    """The devices of a target, addressed by absolute block."""

    devices: tuple[Device, ...]
    geometry: TargetGeometry

    def read(self, block: int, count: int) -> bytes:
        """``count`` blocks from absolute block ``block``; they must be on one device.

        Raises:
            DeviceError: beyond the device, or not readable.
        """
        device, offset_bytes = self.geometry.locate(block)
        return self.devices[device].read(offset_bytes, count * BLOCK_BYTES)

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (whole blocks) from absolute block ``block``."""
        device, offset_bytes = self.geometry.locate(block)
        self.devices[device].read_into(offset_bytes, buffer)


def open_blocks(target: Target) -> TargetBlocks:
    """Read the zone tables of a target's devices.

    Raises:
        GeometryError: the devices cannot form a target.
        DeviceError: a zone table cannot be read.
    """
    parts = [(d.path, d.geometry, d.zones()) for d in target.devices]
    return TargetBlocks(target.devices, build_geometry(parts, target.start_bytes))


def read_map(blocks: TargetBlocks, layout: MetadataLayout, number: int) -> MapArray:
    """Mapping table of set ``number``, the unused tail of its last block included.

    Returns:
        Shape (map blocks * 512, 2): data zone id and buffer zone id; writable.
    """
    table = np.empty((layout.nr_map_blocks * BLOCK_BYTES // 8, 2), "<u4")
    blocks.read_into(layout.map_block(number), table.data.cast("B"))
    return table


def stream_zones(layout: MetadataLayout) -> int:
    """How many zones one piece of a bitmap stream describes."""
    return max(1, STREAM_BYTES // (layout.bitmap_blocks_per_zone * BLOCK_BYTES))


def bitmap_words(layout: MetadataLayout, zones: int) -> Words:
    """An uninitialized buffer for the bitmaps of ``zones`` zones."""
    return np.empty((zones, layout.bitmap_blocks_per_zone * BLOCK_BYTES // 8), "<u8")


def stream_bitmaps(blocks: TargetBlocks, layout: MetadataLayout, number: int) -> Iterator[tuple[int, Words]]:
    """``(first zone, words)`` of set ``number``, ascending; the array is overwritten by the next step."""
    step = stream_zones(layout)
    buffer = bitmap_words(layout, min(step, layout.nr_zones))
    for zone in range(0, layout.nr_zones, step):
        words = buffer[: min(step, layout.nr_zones - zone)]
        blocks.read_into(layout.bitmap_block(number, zone), words.data.cast("B"))
        yield zone, words


def read_rows(blocks: TargetBlocks, layout: MetadataLayout, number: int, zones: IntArray) -> Words:
    """Bitmaps of some zones, in any order: shape (zones, words); runs of ascending ids are one request."""
    words = bitmap_words(layout, len(zones))
    breaks = np.flatnonzero(np.diff(zones) != 1) + 1
    edges = [0, *breaks.tolist(), len(zones)] if len(zones) else []
    for start, end in pairwise(edges):
        blocks.read_into(layout.bitmap_block(number, int(zones[start])), words[start:end].data.cast("B"))
    return words
