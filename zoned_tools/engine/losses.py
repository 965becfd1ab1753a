"""What of a target's logical device cannot be read, known before anything of it is read.

Source: sections 1.3, 1.4 and 2 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import known_bad_areas, missing_bytes
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.engine.rehearsing import PLACE_BITS, Lookup, look_up_in
from zoned_tools.errors import RefusedError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Journey, Settings
from zoned_tools.formats.shared.losses import REASONS, KnowsLosses, Loss, Losses, blocks_of, join_losses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Evidence, Mapper, Target

_BLOCK = LOGICAL_BLOCK_BYTES


def find_losses(target: Target, mapper: Mapper) -> Losses:
    """What cannot be read of a mapper's device; ``payload`` is always there.

    Costs nothing where every device can be read, else a lookup of the whole device: O(metadata).
    """
    found = mapper.losses() if isinstance(mapper, KnowsLosses) else Losses()
    if found.payload is None:
        found.payload = _payload_losses(target, mapper)
    return found


def _payload_losses(target: Target, mapper: Mapper) -> list[Loss]:
    bad = [known_bad_areas(device) for device in target.devices]
    if not any(map(len, bad)):
        return []
    runs = _StoredRuns(look_up_in(target, mapper))
    return join_losses(sorted(row for index, areas in enumerate(bad) for row in runs.hit_by(index, areas)))


class _StoredRuns:
    """The stored runs of a lookup in the order of their places, as columns in bytes."""

    def __init__(self, lookup: Lookup) -> None:
        stored = np.flatnonzero(lookup.places >= 0)
        lengths = np.diff(np.append(lookup.starts, lookup.size))
        order = stored[np.argsort(lookup.places[stored], kind="stable")]
        self.device: IntArray = lookup.places[order] >> PLACE_BITS
        self.place: IntArray = (lookup.places[order] & ((1 << PLACE_BITS) - 1)) * _BLOCK
        self.logical: IntArray = lookup.starts[order] * _BLOCK
        self.length: IntArray = lengths[order] * _BLOCK

    def hit_by(self, index: int, areas: BadAreas) -> Iterator[Loss]:
        """The logical ranges that the bad areas of one device make unreadable, rounded outward to sectors."""
        rows = slice(*(int(row) for row in np.searchsorted(self.device, (index, index + 1))))
        place, logical = self.place[rows], self.logical[rows]
        ends = place + self.length[rows]
        for bad_start, bad_end, status in areas:
            start, end = bad_start // SECTOR_BYTES * SECTOR_BYTES, -(-bad_end // SECTOR_BYTES) * SECTOR_BYTES
            first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(place, end, side="left")
            for row in range(int(first), int(last)):
                low, high = max(start, int(place[row])), min(end, int(ends[row]))
                if low < high:
                    yield Loss(int(logical[row]) + low - int(place[row]), high - low, status, REASONS[status])


class KnownLosses:
    """What is known to be lost before anything is read: ``rows`` ascending, without overlaps."""

    def __init__(self, target: Target, losses: Losses) -> None:
        self.target = target
        self.rows = join_losses(sorted([*losses.metadata, *(losses.payload or ())]))
        self._starts = [row.offset_bytes for row in self.rows]

    def inside(self, offset_bytes: int, length_bytes: int) -> Iterator[Loss]:
        """The parts inside a range, whole blocks only: a block that is lost in part is read sector by sector."""
        end = offset_bytes + length_bytes
        for index in range(max(bisect_right(self._starts, offset_bytes) - 1, 0), len(self.rows)):
            row = self.rows[index]
            start, stop = max(row.offset_bytes, offset_bytes), min(row.offset_bytes + row.length_bytes, end)
            if row.offset_bytes >= end:
                return
            start, stop = -(-start // _BLOCK) * _BLOCK, stop // _BLOCK * _BLOCK
            if start < stop:
                yield Loss(start, stop - start, row.status, row.reason)

    def at(self, offset_bytes: int) -> Loss | None:
        """The loss that has a byte."""
        index = bisect_right(self._starts, offset_bytes) - 1
        if index < 0 or offset_bytes >= self.rows[index].offset_bytes + self.rows[index].length_bytes:
            return None
        return self.rows[index]


def describe_losses(rows: Sequence[Loss]) -> str:
    """How much cannot be read, one phrase."""
    lost = sum(row.length_bytes for row in rows)
    ranges = "range" if len(rows) == 1 else "ranges"
    return f"{lost} bytes in {len(rows)} {ranges} of the logical device cannot be read"


def refuse_losses(target: Target, rows: Sequence[Loss]) -> None:
    """Refuse an export of which it is known before that parts cannot be read.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(describe_losses(rows), device=target.device.path, hint="--skip-errors exports the rest")


def add_media_findings(evidence: Evidence, settings: Settings) -> None:
    """Findings of images about what they lack: ``image-short``, and payload that is known to be unreadable."""
    target = evidence.target
    layout = registry.of(target)
    rules = layout.rules()
    for number, device in enumerate(target.devices):
        missing = missing_bytes(device)
        if missing and "image-short" in rules:
            text = f"device {number} is an image that ends {missing} bytes early"
            evidence.findings.add(rules.finding("image-short", text, device=number, missing_bytes=missing))
    if layout.open_mapper is None or not any(len(known_bad_areas(device)) for device in target.devices):
        return
    try:
        mapper = layout.open_mapper(target, writable=False, settings=layout.settings_of(settings, Journey.LOGICAL))
    except ZonedError:
        return  # what is wrong with the metadata is told already
    try:
        lost = find_losses(target, mapper).payload
    finally:
        mapper.close()
    if lost and "data-unreadable" in rules:
        blocks, nr_bytes = blocks_of(lost), sum(row.length_bytes for row in lost)
        ranges = "range" if len(lost) == 1 else "ranges"
        text = (
            f"{blocks} valid blocks cannot be read: {nr_bytes} bytes in {len(lost)} {ranges} of the logical device, "
            f"the first at byte {lost[0].offset_bytes}"
        )
        evidence.findings.add(rules.finding("data-unreadable", text, blocks=blocks, ranges=len(lost)))
