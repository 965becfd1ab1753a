"""Reading a target's metadata: blocks by absolute number, the mapping table, bitmaps as a stream.

Shared by check, repair, dump and the mapper. Bitmaps of a large drive are hundreds of
megabytes, so they are only ever seen in pieces of a few MiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import mask_runs
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, build_geometry
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MAP_ENTRIES, MapArray, MetadataLayout
from zoned_tools.formats.dm_zoned.media import Media

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Target

STREAM_BYTES = 4 << 20
"""How much of the bitmaps is in memory at a time."""

Words = npt.NDArray[np.uint64]
"""Bitmap words: shape (zones, words per zone), bit ``b & 63`` of word ``b >> 6`` is block ``b``."""


@dataclass(frozen=True, slots=True)
class TargetBlocks:
    """The devices of a target, addressed by absolute block.

    Attributes:
        media: metadata blocks that are known to be unreadable.
    """

    devices: tuple[Device, ...]
    geometry: TargetGeometry
    media: Media = field(default_factory=Media)

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

    def read_around(self, block: int, buffer: memoryview) -> None:
        """As :meth:`read_into`, but what is known to be unreadable is not read: it becomes zeroes without meaning."""
        count = len(buffer) // BLOCK_BYTES
        if not self.media.touches(block, count):
            self.read_into(block, buffer)
            return
        bad = self.media.mask(block, count)
        for mask, is_bad in ((bad, True), (~bad, False)):
            for start, end in mask_runs(mask).tolist():
                part = buffer[start * BLOCK_BYTES : end * BLOCK_BYTES]
                if is_bad:
                    part[:] = bytes(len(part))
                else:
                    self.read_into(block + start, part)

    def unreadable(self, layout: MetadataLayout, number: int) -> BoolArray:
        """Map and bitmap blocks of a set that are known to be unreadable, counted from the map."""
        return self.media.mask(layout.map_block(number), layout.nr_meta_blocks - 1)


def open_blocks(target: Target, formatted_zones: int | None = None) -> TargetBlocks:
    """Read the zone tables of a target's devices.

    Args:
        formatted_zones: as :func:`~zoned_tools.formats.dm_zoned.geometry.build_geometry` has it.

    Raises:
        GeometryError: the devices cannot form a target.
        DeviceError: a zone table cannot be read.
    """
    parts = [(d.path, d.geometry, d.zones()) for d in target.devices]
    geometry = build_geometry(parts, target.start_bytes, formatted_zones, derived=bool(target.derived))
    return TargetBlocks(target.devices, geometry)


def read_map(blocks: TargetBlocks, layout: MetadataLayout, number: int) -> MapArray:
    """Mapping table of set ``number``, the unused tail of its last block included; zeroes where it is unreadable.

    Returns:
        Shape (map blocks * 512, 2): data zone id and buffer zone id; writable.
    """
    table = np.empty((layout.nr_map_blocks * BLOCK_BYTES // 8, 2), "<u4")
    blocks.read_around(layout.map_block(number), table.data.cast("B"))
    return table


def stream_zones(layout: MetadataLayout) -> int:
    """How many zones one piece of a bitmap stream describes."""
    return max(1, STREAM_BYTES // (layout.bitmap_blocks_per_zone * BLOCK_BYTES))


def bitmap_words(layout: MetadataLayout, zones: int) -> Words:
    """An uninitialized buffer for the bitmaps of ``zones`` zones."""
    return np.empty((zones, layout.bitmap_blocks_per_zone * BLOCK_BYTES // 8), "<u8")


@dataclass(frozen=True, slots=True)
class SetView:
    """What counts as the content of a metadata set: its own blocks, but for those that the other set has better.

    Attributes:
        number: the set.
        table: the mapping table, where it is not the set's own: shape (map blocks * 512, 2).
        taken: bitmap blocks that are read from the other set, shape (bitmap blocks,); None for none.
        joined: bitmap blocks of which the bits of both sets count; None for none.
        lost: map and bitmap blocks that no set has, counted from the map: their chunks are not mapped here, and
            their zones have no valid block; None for none.
        made: validity bits of zones that were made up, shape (words per zone,) each; None for none.
    """

    blocks: TargetBlocks
    layout: MetadataLayout
    number: int
    table: MapArray | None = None
    taken: BoolArray | None = None
    joined: BoolArray | None = None
    lost: BoolArray | None = None
    made: Mapping[int, Words] | None = None

    @property
    def is_mixed(self) -> bool:
        """Something comes from the other set, or from nowhere."""
        return any(part is not None for part in (self.table, self.taken, self.joined, self.made))

    @property
    def made_blocks(self) -> BoolArray | None:
        """Bitmap blocks that were made up, shape (bitmap blocks,)."""
        if self.made is None:
            return None
        mask = np.zeros((self.layout.nr_zones, self.layout.bitmap_blocks_per_zone), np.bool_)
        mask[list(self.made)] = True
        return mask.reshape(-1)

    @property
    def lost_map(self) -> BoolArray:
        """Map blocks that no set has, shape (map blocks,)."""
        count = self.layout.nr_map_blocks
        return np.zeros(count, np.bool_) if self.lost is None else self.lost[:count]

    @property
    def lost_chunks(self) -> BoolArray:
        """Chunks whose entries no set has, shape (chunks,)."""
        return np.repeat(self.lost_map, MAP_ENTRIES)[: self.layout.nr_chunks]

    @property
    def lost_bitmaps(self) -> BoolArray:
        """Bitmap blocks that no set has, shape (zones, bitmap blocks of a zone)."""
        shape = self.layout.nr_zones, self.layout.bitmap_blocks_per_zone
        return np.zeros(shape, np.bool_) if self.lost is None else self.lost[self.layout.nr_map_blocks :].reshape(shape)

    @property
    def lost_zones(self) -> BoolArray:
        """Zones of whose bitmap no set has a part, shape (zones,)."""
        mask: BoolArray = np.asarray(self.lost_bitmaps.any(axis=1))
        return mask

    def read_map(self) -> MapArray:
        """The mapping table in whole blocks, as :func:`read_map`; the caller's own."""
        return read_map(self.blocks, self.layout, self.number) if self.table is None else self.table.copy()

    def bitmaps_into(self, first_zone: int, words: Words) -> None:
        """Fill ``words`` with the bitmaps of the zones from ``first_zone`` on."""
        self._stored_into(first_zone, words)
        for zone, made in (self.made or {}).items():
            if first_zone <= zone < first_zone + len(words):
                words[zone - first_zone] = made

    def _stored_into(self, first_zone: int, words: Words) -> None:
        self.blocks.read_around(self.layout.bitmap_block(self.number, first_zone), words.data.cast("B"))
        if self.taken is None and self.joined is None:
            return
        rows = words.reshape(-1, BLOCK_BYTES // 8)
        first_row = first_zone * self.layout.bitmap_blocks_per_zone
        for mask, is_joined in ((self.taken, False), (self.joined, True)):
            if mask is None:
                continue
            for start, end in mask_runs(mask[first_row : first_row + len(rows)]).tolist():
                other = np.empty((end - start, rows.shape[1]), "<u8")
                place = self.layout.bitmap_block(1 - self.number) + first_row + start
                self.blocks.read_around(place, other.data.cast("B"))
                rows[start:end] = rows[start:end] | other if is_joined else other

    def stream(self) -> Iterator[tuple[int, Words]]:
        """``(first zone, words)``, ascending; the array is overwritten by the next step."""
        step = stream_zones(self.layout)
        buffer = bitmap_words(self.layout, min(step, self.layout.nr_zones))
        for zone in range(0, self.layout.nr_zones, step):
            words = buffer[: min(step, self.layout.nr_zones - zone)]
            self.bitmaps_into(zone, words)
            yield zone, words

    def rows(self, zones: IntArray) -> Words:
        """Bitmaps of some zones, in any order: shape (zones, words); runs of ascending ids are one request."""
        words = bitmap_words(self.layout, len(zones))
        breaks = np.flatnonzero(np.diff(zones) != 1) + 1
        edges = [0, *breaks.tolist(), len(zones)] if len(zones) else []
        for start, end in pairwise(edges):
            self.bitmaps_into(int(zones[start]), words[start:end])
        return words
