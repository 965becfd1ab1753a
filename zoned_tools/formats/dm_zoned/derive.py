"""The zone tables of raw copies: what the metadata of a target say about the zones of its devices.

The super blocks give the size and number of the zones, the order of the members and how many metadata zones there are.
The mapping table bounds the number of conventional zones: buffer zones are conventional, data zones of buffered chunks
are not. Write pointers are lower bounds: everything marked valid, and everything that is not zero, was written.

Source: section 3.1 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import salvage_into
from zoned_tools.device.derived import (
    DerivedDrive,
    conventional_view,
    find_written,
    raw_geometry,
    set_written,
)
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, make_table
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.constants import NAME
from zoned_tools.formats.dm_zoned.derive_size import Raw, Sized, find_size
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MapArray, MetadataLayout, ceil_div
from zoned_tools.formats.dm_zoned.open import SetView
from zoned_tools.formats.dm_zoned.reclaim import judge_emptied
from zoned_tools.formats.dm_zoned.survey import survey_map
from zoned_tools.formats.shared.derived import Bounds, DerivedZones, ZoneWishes, zones_by_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray, ZoneTable
    from zoned_tools.formats.contract import Target

CERTAIN = ("zone size", "number of zones", "order of members", "metadata zones", "that a block is written (valid bit)")
ESTIMATED = ("number of conventional zones", "write pointers")

_PIECE_BLOCKS = 1024
_DEFAULT_RESERVE = 16
_HIGHEST_BIT = np.array([0] + [number.bit_length() for number in range(1, 256)], np.int64)


def derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    """The zone table of each raw member; none of a regular device that is part of a target of several.

    Raises:
        RefusedError: a zoned member alone; or the wishes contradict the metadata.
        MetadataError: nothing says the size of the zones, or several sizes fit.
    """
    raw = Raw(target.devices)
    zoned = [index for index in range(len(raw.devices)) if index or raw.is_single]
    if all(raw.devices[index].geometry.is_zoned for index in zoned):
        return [None] * len(raw.devices)
    if raw.is_single and wishes.zone_bytes and wishes.conventional and not raw.has_superblocks:
        return [_by_wishes(raw.devices[0], wishes)]
    sized = find_size(raw, wishes.zone_bytes // BLOCK_BYTES)
    if sized is None:
        return [None] * len(raw.devices)
    metadata = _Metadata(raw, sized)
    rows: list[DerivedZones | None] = [None] * len(raw.devices)
    for number, index in enumerate(zoned):
        if not raw.devices[index].geometry.is_zoned:
            rows[index] = _Member(metadata, index, wishes.conventional_of(number)).zones()
    return rows


def _by_wishes(device: Device, wishes: ZoneWishes) -> DerivedZones:
    """Without any super block there is what the user says, and the content; rebuilding them needs no more."""
    nr_zones = ceil_div(device.geometry.size_bytes, wishes.zone_bytes)
    bounds = Bounds.choose(0, nr_zones, 0, wishes.conventional_of(0), device.path)
    return zones_by_content(device, wishes.zone_bytes, bounds, (), ESTIMATED)


class _Metadata:
    """The set that is read: the newer one, set 0 of two with one generation; block by block the other where it must.

    Metadata are on the first file, from its start on.
    """

    def __init__(self, raw: Raw, sized: Sized) -> None:
        self.raw = raw
        self.sized = sized
        base = sized.reference
        places = [0, sized.set_zones * sized.zone_blocks]
        found = [raw.superblock(0, place, says=place) for place in places]
        generations = [-1 if one is None else one.gen for one in found]
        self.number = int(generations[1] > generations[0])
        self.other: int | None = 1 - self.number if generations[1 - self.number] >= 0 else None
        self.layout = MetadataLayout(
            0, sized.zone_blocks, sized.nr_zones, sized.bitmap_blocks, base.nr_chunks, base.nr_reserved_seq
        )
        self._table: MapArray | None = None
        self.sized = self._with_named_zones()

    def _with_named_zones(self) -> Sized:
        """The same with whole last zones that a chunk has: no drive's runt is ever used (dm-zoned.md 7)."""
        sized, zone_bytes = self.sized, self.sized.zone_blocks * BLOCK_BYTES
        sizes = list(sized.sizes)
        for index, (first, count) in enumerate(zip(sized.first_zones, sized.zone_counts, strict=True)):
            is_copy = (index or self.raw.is_single) and not self.raw.devices[index].geometry.is_zoned
            if (
                is_copy
                and sizes[index] % zone_bytes
                and (self.table[: self.layout.nr_chunks] == first + count - 1).any()
            ):
                sizes[index] = count * zone_bytes
        return replace(sized, sizes=tuple(sizes))

    def _blocks(self, relative: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Blocks of the set, counted from its super block; what neither set can give is all ones."""
        device = self.raw.devices[0]
        content = np.empty(count * BLOCK_BYTES, np.uint8)
        at = (self.layout.set_block(self.number) + relative) * BLOCK_BYTES
        inside = max(min(len(content), device.geometry.size_bytes - at), 0)
        content[inside:] = 0xFF
        bad = salvage_into(device, at, memoryview(content[:inside].data)) if inside else ()
        for first, end, _ in bad:
            part = content[first - at : end - at]
            part[:] = 0xFF
            if self.other is not None:
                shift = (self.layout.set_block(self.other) - self.layout.set_block(self.number)) * BLOCK_BYTES
                again = salvage_into(device, first + shift, memoryview(part.data))
                for lost, stop, _ in again:
                    content[lost - shift - at : stop - shift - at] = 0xFF
        return content

    @property
    def table(self) -> MapArray:
        """The mapping table, in whole blocks."""
        if self._table is None:
            self._table = self._blocks(1, self.layout.nr_map_blocks).view("<u4").reshape(-1, 2)
        return self._table

    def chunk_zones(self) -> tuple[IntArray, IntArray]:
        """Data and buffer zone of each buffered chunk whose zones exist."""
        data, buffer = self.table[: self.layout.nr_chunks].astype(np.int64).T
        usable = (data < self.sized.nr_zones) & (buffer < self.sized.nr_zones)
        return data[usable], buffer[usable]

    def last_valid(self, first_zone: int, count: int) -> IntArray:
        """Blocks of some zones up to the last one that is marked valid, and it."""
        per_zone = self.layout.bitmap_blocks_per_zone
        found = np.zeros(count, np.int64)
        step = max(1, _PIECE_BLOCKS // per_zone)
        first_block = 1 + self.layout.nr_map_blocks + first_zone * per_zone
        for zone in range(0, count, step):
            zones = min(step, count - zone)
            rows = self._blocks(first_block + zone * per_zone, zones * per_zone).reshape(zones, -1)
            rows = rows[:, : ceil_div(self.layout.zone_blocks, 8)]
            used = rows != 0
            last = rows.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
            bits = last * 8 + _HIGHEST_BIT[rows[np.arange(zones), last]]
            found[zone : zone + zones] = np.where(used.any(axis=1), bits, 0)
        return np.minimum(found, self.layout.zone_blocks)


@dataclass(frozen=True, slots=True)
class _Member:
    """One raw copy of a zoned drive."""

    metadata: _Metadata
    index: int
    wish: int | None

    def zones(self) -> DerivedZones:
        """What is known of its zones; the write pointers are found when they are asked for."""
        sized = self.metadata.sized
        bounds = self._bounds()
        geometry = raw_geometry(sized.sizes[self.index], sized.zone_blocks * BLOCK_BYTES)
        return DerivedZones(geometry, bounds, CERTAIN, ESTIMATED, lambda: self._table(bounds.used))

    def _bounds(self) -> Bounds:
        raw, sized, layout = self.metadata.raw, self.metadata.sized, self.metadata.layout
        first, count = sized.first_zones[self.index], sized.zone_counts[self.index]
        data, buffer = self.metadata.chunk_zones()
        own = data[(data >= first) & (data < first + count)] - first
        high = int(own.min(initial=count))
        path = raw.devices[self.index].path
        if not raw.is_single:
            return Bounds.choose(0, high, 0, self.wish, path)
        reserve = layout.nr_reserved_seq
        low = max(2 * sized.set_zones + 1, int(buffer.max(initial=-1)) + 1, reserve)
        return Bounds.choose(min(low, count), high, reserve + 1 if reserve < _DEFAULT_RESERVE else 0, self.wish, path)

    def _table(self, conventional: int) -> ZoneTable:
        raw, sized = self.metadata.raw, self.metadata.sized
        size, zone_bytes = sized.sizes[self.index], sized.zone_blocks * BLOCK_BYTES
        table = make_table(size // SECTOR_BYTES, zone_bytes // SECTOR_BYTES, nr_conventional=conventional)
        first, count = sized.first_zones[self.index] + conventional, len(table) - conventional
        if count <= 0:
            return table
        drive = conventional_view(raw.devices[self.index], raw_geometry(size, zone_bytes))
        valid = self.metadata.last_valid(first, count)
        stored = find_written(drive, conventional, np.zeros(count, np.int64) if self._may_be_emptied() else valid)
        blocks = np.zeros(len(table), np.int64)
        blocks[conventional:] = np.maximum(valid, stored)
        if not raw.is_single and not conventional:
            blocks[0] = max(int(blocks[0]), 1)
        emptied = np.zeros(len(table), np.bool_)
        emptied[conventional:] = (stored == 0) & (valid > 0)
        return self._without_emptied(set_written(table, blocks), emptied)

    def _may_be_emptied(self) -> bool:
        return bool(len(self.metadata.chunk_zones()[0]))

    def _without_emptied(self, table: ZoneTable, zeroes: BoolArray) -> ZoneTable:
        """The same, with a data zone that reclaim certainly reset before a power cut (dm-zoned.md 6.2, 8.4) empty.

        Args:
            zeroes: zones that are all zero although blocks in them are valid.
        """
        metadata = self.metadata
        first = metadata.sized.first_zones[self.index]
        buffered = np.unique(metadata.chunk_zones()[0]) - first
        inside = buffered[(buffered >= 0) & (buffered < len(table))]
        zones = inside[zeroes[inside]]
        if not len(zones):
            return table
        emptied = table.copy()
        emptied["condition"][zones] = ZoneCondition.EMPTY
        emptied["wp_sector"][zones] = emptied["start_sector"][zones]
        blocks = open_target(_target_of(metadata, self.index, emptied))
        layout = metadata.layout
        mapping = survey_map(blocks.geometry, layout, metadata.table.copy())
        found = judge_emptied(SetView(blocks, layout, metadata.number), mapping, zones + first)
        kept = zones[~found.copied]
        emptied[kept] = table[kept]
        return emptied


def _target_of(metadata: _Metadata, index: int, table: ZoneTable) -> Target:
    """The target with one member's zone table; others that are raw copies have nothing but conventional zones."""
    from zoned_tools.formats.contract import Target

    raw, sized = metadata.raw, metadata.sized
    zone_bytes = sized.zone_blocks * BLOCK_BYTES
    devices = []
    for number in range(len(raw.devices)):
        device = raw.devices[number]
        if number == index:
            device = DerivedDrive(device, raw_geometry(sized.sizes[number], zone_bytes), table)
        elif number and not device.geometry.is_zoned:
            device = conventional_view(device, raw_geometry(sized.sizes[number], zone_bytes))
        devices.append(device)
    return Target(NAME, tuple(devices))
