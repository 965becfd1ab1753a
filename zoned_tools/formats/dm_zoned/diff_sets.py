"""Where the two metadata sets give different data: chunks, blocks, and the zones that they would be read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import value_runs
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.layout import NR_SETS, UNMAPPED
from zoned_tools.formats.dm_zoned.lost import valid_blocks
from zoned_tools.formats.dm_zoned.open import bitmap_words, stream_zones
from zoned_tools.formats.shared.copies import CopyDifference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.judge import TargetState
    from zoned_tools.formats.dm_zoned.open import SetView

_NOWHERE = -1


def diff_sets(target: Target) -> list[CopyDifference]:
    """Runs of blocks that the sets place otherwise, ascending; a block that one set cannot be read of is the other's.

    Raises:
        NoValidSuperBlockError: no set can be used.
        DeviceError: something cannot be read.
    """
    return around_unreadable(target, lambda state: list(_rows(target, state)), rebuilds=True)


def _rows(target: Target, state: TargetState) -> Iterator[CopyDifference]:
    if state.chosen is None:
        raise NoValidSuperBlockError(DmZonedEvidence(target=target, state=state))
    views = [content_of(state, number) for number in range(NR_SETS)]
    entries = _entries(views)
    changed = _changed_zones(views)
    nr_zones = len(changed)
    at = np.where(entries < nr_zones, entries, 0)
    wanted = (entries[0] != entries[1]).any(axis=1) | (changed[at] & (entries < nr_zones)).any(axis=(0, 2))
    for chunk in np.flatnonzero(wanted).tolist():
        yield from _of_chunk(views, chunk, entries[:, chunk])


def _entries(views: Sequence[SetView]) -> IntArray:
    """Mapping tables of both sets, shape (2, chunks, 2); what a shorter one lacks is unmapped."""
    longest = max(view.layout.nr_chunks for view in views)
    entries = np.full((NR_SETS, longest, 2), UNMAPPED, np.int64)
    for number, view in enumerate(views):
        entries[number, : view.layout.nr_chunks] = view.read_map()[: view.layout.nr_chunks]
    return entries


def _changed_zones(views: Sequence[SetView]) -> BoolArray:
    """Zones whose bitmaps differ, shape (zones,)."""
    layout = views[0].layout
    changed = np.zeros(layout.nr_zones, np.bool_)
    step = stream_zones(layout)
    for zone in range(0, layout.nr_zones, step):
        words = [bitmap_words(layout, min(step, layout.nr_zones - zone)) for _ in views]
        for view, rows in zip(views, words, strict=True):
            view.bitmaps_into(zone, rows)
        changed[zone : zone + len(words[0])] = (words[0] != words[1]).any(axis=1)
    return changed


def _of_chunk(views: Sequence[SetView], chunk: int, entries: IntArray) -> Iterator[CopyDifference]:
    first, second = (_places(view, entry) for view, entry in zip(views, entries, strict=True))
    base = chunk * len(first)
    pairs = np.where(first != second, (first + 1) * (views[0].layout.nr_zones + 1) + second + 1, _NOWHERE)
    for start, end in value_runs(pairs).tolist():
        if pairs[start] != _NOWHERE:
            zones = [int(places[start]) if places[start] != _NOWHERE else None for places in (first, second)]
            yield CopyDifference(chunk, base + start, end - start, (zones[0], zones[1]))


def _places(view: SetView, entry: IntArray) -> IntArray:
    """The zone that each block of a chunk is read from, shape (zone blocks,); -1 for zeroes."""
    places = np.full(view.layout.zone_blocks, _NOWHERE, np.int64)
    data, buffer = (int(zone) for zone in entry)
    if data >= view.layout.nr_zones:
        return places
    for zone in (buffer, data):  # the data zone wins
        if zone < view.layout.nr_zones:
            places[valid_blocks(view, zone)] = zone
    return places
