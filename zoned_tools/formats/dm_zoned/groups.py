"""What belongs together when two metadata sets differ: entries and bitmaps that touch the same zones.

Source: section 8.1, rule 3, of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.dm_zoned.geometry import held_zones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.layout import MapArray
    from zoned_tools.formats.dm_zoned.survey import SetSurvey

_MAP_FAULT_WEIGHT = 100
"""A hard violation of the mapping table counts as much as that many of the others."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of chunks and zones that have to come from one set, numbered from 0 on.

    Attributes:
        of_chunk, of_zone: group of each chunk and each zone, -1 for those in none.
        number: how many groups there are.
        has_entries: groups in which the mapping table differs, shape (groups,).
    """

    of_chunk: IntArray
    of_zone: IntArray
    number: int
    has_entries: BoolArray


def find_groups(tables: Sequence[MapArray], nr_zones: int, chunks: BoolArray, zones: BoolArray) -> Groups:
    """Join what differs (``chunks`` whose entries, ``zones`` whose bitmaps) wherever it touches the same zone.

    Args:
        tables: the mapping table of each set, without its tail: shape (chunks, 2).
    """
    nr_chunks = len(chunks)
    named = np.concatenate([table.astype(np.int64) for table in tables], axis=1)
    rows, _ = np.nonzero(named < nr_zones)
    touched = named[named < nr_zones]
    of_zone, of_chunk = _components(rows, touched, nr_zones, nr_chunks)
    labels = np.concatenate((of_zone, of_chunk))
    differs = np.concatenate((zones, chunks))
    wanted = np.unique(labels[differs])
    at = np.searchsorted(wanted, labels)
    known = at < len(wanted)
    known[known] = wanted[at[known]] == labels[known]
    numbers = np.where(known, at, -1)
    has_entries = np.zeros(len(wanted), np.bool_)
    has_entries[numbers[nr_zones:][chunks]] = True
    return Groups(numbers[nr_zones:], numbers[:nr_zones], len(wanted), has_entries)


def _components(rows: IntArray, touched: IntArray, nr_zones: int, nr_chunks: int) -> tuple[IntArray, IntArray]:
    """The lowest node that each zone and each chunk is connected with; chunk ``c`` is node ``nr_zones + c``."""
    of_zone, of_chunk = np.arange(nr_zones), np.arange(nr_chunks) + nr_zones
    while True:
        lower = of_chunk.copy()
        np.minimum.at(lower, rows, of_zone[touched])
        below = of_zone.copy()
        np.minimum.at(below, touched, lower[rows])
        # A label is a node too: taking its label halves what is left of a long chain.
        labels = np.concatenate((below, lower))
        below, lower = labels[below], labels[lower]
        if np.array_equal(below, of_zone) and np.array_equal(lower, of_chunk):
            return of_zone, of_chunk
        of_zone, of_chunk = below, lower


def scores(survey: SetSurvey, groups: Groups) -> IntArray:
    """What speaks against each group as a set has it, shape (groups,): 0 is sound.

    Bits of an empty data zone whose chunk is buffered do not count: a power cut during reclaim leaves them, and
    they may be all that tells where the blocks are (section 8.4).
    """
    geometry, mapping, bits = survey.view.blocks.geometry, survey.map, survey.bits
    named = mapping.owners.named
    faults = sum((mask.astype(np.int64) for mask in mapping.hard_faults), np.zeros(len(mapping.data), np.int64))
    chunk_points = _MAP_FAULT_WEIGHT * faults + mapping.empty_sequential + (bits.overlap > 0)
    zone_points = ((bits.weight > 0) & ~named).astype(np.int64)
    zone_points += (
        geometry.sequential & ~named & geometry.not_empty & ~geometry.dead & ~held_zones(geometry, survey.layout)
    )
    zone_points += (bits.after_wp > 0) & ~survey.emptied_zones
    zone_points[mapping.owners.shared.zones] += _MAP_FAULT_WEIGHT
    total = np.zeros(groups.number, np.int64)
    for numbers, points in ((groups.of_chunk, chunk_points), (groups.of_zone, zone_points)):
        inside = numbers >= 0
        total += np.bincount(numbers[inside], points[inside], minlength=groups.number).astype(np.int64)
    return total
