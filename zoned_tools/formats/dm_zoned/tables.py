"""Whole metadata sets for a target on other devices: the mapping table and bitmaps with other zone ids.

Bitmaps of a large drive are hundreds of megabytes, so they are made when their step runs, from the set that they come
from; long stretches of zeroes become fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Fill, Produce
from zoned_tools.device.runs import mask_runs
from zoned_tools.formats.dm_zoned.judge import SET_NAMES
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, UNMAPPED, MapArray, MetadataLayout
from zoned_tools.formats.dm_zoned.open import bitmap_words, stream_zones
from zoned_tools.formats.dm_zoned.survey import take_beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.open import SetView, Words

_FILL_BLOCKS = 16
"""Zeroes are a step of their own from so many blocks on."""


@dataclass(frozen=True, slots=True)
class ShiftedBitmaps:
    """The bitmaps of a set, seen from a target in which the same zones have other ids.

    Attributes:
        view: the set that they come from.
        shift: what is added to a zone id; zones that come from nowhere have no valid blocks.
        nr_zones: zones of the other target.
        replaced: zones, by their new ids, whose bits are not those of the set.
    """

    view: SetView
    shift: int
    nr_zones: int
    replaced: Mapping[int, Words]

    def read(self, first_zone: int, count: int) -> Words:
        """Bitmaps of ``count`` zones: shape (zones, words)."""
        words = bitmap_words(self.view.layout, count)
        words[...] = 0
        start = max(first_zone, self.shift, 0)
        end = min(first_zone + count, self.shift + self.view.layout.nr_zones)
        if start < end:
            part = words[start - first_zone : end - first_zone]
            self.view.bitmaps_into(start - self.shift, part)
            take_beyond(part, self.view.layout.zone_blocks)
        for zone, bits in self.replaced.items():
            if first_zone <= zone < first_zone + count:
                words[zone - first_zone] = bits
        return words

    def pieces(self) -> Iterator[tuple[int, int, bool]]:
        """``(first zone, zones, any valid)`` of runs of zones, ascending and without gaps."""
        step = stream_zones(self.view.layout)
        for first in range(0, self.nr_zones, step):
            count = min(step, self.nr_zones - first)
            used: BoolArray = np.asarray(self.read(first, count).any(axis=1))
            edges = [0]
            for start, end in mask_runs(~used).tolist():
                if (end - start) * self.view.layout.bitmap_blocks_per_zone >= _FILL_BLOCKS:
                    edges += [start, end]
            edges.append(count)
            for start, end in pairwise(edges):
                if start < end:
                    yield first + start, end - start, bool(used[start:end].any())


def plan_tables(
    plan: Plan,
    geometry: TargetGeometry,
    layout: MetadataLayout,
    table: MapArray,
    bitmaps: ShiftedBitmaps,
    device: int,
) -> int:
    """Map and bitmaps of both sets; the super blocks are the caller's.

    Args:
        geometry, layout: of the target that the sets are for.
        table: zone ids of its chunks: shape (chunks, 2).
        device: number in the plan of the device that holds the sets.

    Returns:
        Bytes of metadata.
    """
    whole = np.full((layout.nr_map_blocks * BLOCK_BYTES // 8, 2), UNMAPPED, "<u4")
    whole[: len(table)] = table
    pieces = list(bitmaps.pieces())
    for number in range(NR_SETS):
        _, offset = geometry.locate(layout.map_block(number))
        plan.write(device, offset, whole.tobytes(), f"{SET_NAMES[number]} mapping table")
        for zone, count, used in pieces:
            _, offset = geometry.locate(layout.bitmap_block(number, zone))
            length = count * layout.bitmap_blocks_per_zone * BLOCK_BYTES
            note = f"{SET_NAMES[number]} bitmap blocks"
            if used:
                plan.steps.append(Produce(device, offset, length, _produce(bitmaps, zone, count), note))
            else:
                plan.steps.append(Fill(device, offset, length, 0, note))
    return NR_SETS * (layout.nr_meta_blocks - 1) * BLOCK_BYTES


def _produce(bitmaps: ShiftedBitmaps, zone: int, count: int) -> Callable[[], bytes]:
    return lambda: bitmaps.read(zone, count).tobytes()


def shifted(table: MapArray, shift: int) -> MapArray:
    """A mapping table with other zone ids; what is not mapped stays so."""
    ids = table.astype(np.int64)
    moved: MapArray = np.where(ids == UNMAPPED, UNMAPPED, ids + shift).astype("<u4")
    return moved
