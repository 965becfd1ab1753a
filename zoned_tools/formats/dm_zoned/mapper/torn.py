"""Payload that is known to be unreadable: the ranges of the logical device that bad areas of the drives hit.

Found from the zones that are hit, without looking up the rest of the device.

Source: section 1.3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES
from zoned_tools.formats.shared.losses import REASONS, Loss, join_losses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.dm_zoned.geometry import Member
    from zoned_tools.formats.dm_zoned.layout import MapArray
    from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk
    from zoned_tools.formats.dm_zoned.mapper.read import ContentReader


def torn_payload(disk: TargetDisk, reader: ContentReader, table: MapArray) -> list[Loss]:
    """What bad areas make unreadable of the valid blocks, in sectors: ascending, without overlaps.

    Args:
        table: the mapping table without its tail, shape (chunks, 2).
    """
    hits = [hit for member in disk.geometry.members for hit in _hits(disk, member)]
    if not hits:
        return []
    owners = _Owners(table, np.unique(np.array([hit[0] for hit in hits], np.int64)))
    rows = (
        loss
        for zone, start, end, letter in hits
        for chunk in owners.of(zone)
        for loss in _of_chunk(disk, reader, (chunk, zone), (start, end, letter))
    )
    return join_losses(sorted(rows))


def _hits(disk: TargetDisk, member: Member) -> Iterator[tuple[int, int, int, str]]:
    """``(zone, start, end, letter)`` of the bad areas of a device, cut at zones; bytes from the zone's start."""
    zone_bytes = disk.geometry.zone_bytes
    size_bytes = member.nr_zones * zone_bytes
    for bad_start, bad_end, letter in known_bad_areas(disk.devices[member.index]):
        start = max(bad_start // SECTOR_BYTES * SECTOR_BYTES - member.start_bytes, 0)
        end = min(-(-bad_end // SECTOR_BYTES) * SECTOR_BYTES - member.start_bytes, size_bytes)
        while start < end:
            zone = start // zone_bytes
            stop = min(end, (zone + 1) * zone_bytes)
            yield member.first_zone + zone, start - zone * zone_bytes, stop - zone * zone_bytes, letter
            start = stop


class _Owners:
    """The chunks that name some zones."""

    def __init__(self, table: MapArray, zones: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self._chunks: dict[int, list[int]] = {}
        for role in (0, 1):
            for chunk in np.flatnonzero(np.isin(table[:, role], zones)).tolist():
                self._chunks.setdefault(int(table[chunk, role]), []).append(chunk)

    def of(self, zone: int) -> list[int]:
        """Chunks whose data or buffer zone it is."""
        return self._chunks.get(zone, [])


def _of_chunk(
    disk: TargetDisk, reader: ContentReader, place: tuple[int, int], area: tuple[int, int, str]
) -> Iterator[Loss]:
    """What an area of a zone costs a chunk, whose valid blocks are in part there."""
    (chunk, zone), (start, end, letter) = place, area
    first = start // BLOCK_BYTES
    base = chunk * disk.geometry.zone_bytes
    for run_start, run_end in reader.stored_in(chunk, zone, first, -(-end // BLOCK_BYTES) - first):
        low, high = max(start, run_start * BLOCK_BYTES), min(end, run_end * BLOCK_BYTES)
        yield Loss(base + low, high - low, letter, REASONS[letter])
