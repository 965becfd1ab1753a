"""The devices of a file system as regular devices that any kernel mounts and btrfs restore reads.

Source: chapter 11 of the specification of btrfs (``docs/formats/btrfs-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import BAD_SECTOR, known_bad_areas
from zoned_tools.device.zones import ZoneCondition, shown_rows
from zoned_tools.formats.btrfs.chosen import choose_supers
from zoned_tools.formats.btrfs.judge import for_mirror
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, SUPER_BYTES, mirrors_on, parse
from zoned_tools.formats.btrfs.mapper.view import CopyView, without
from zoned_tools.formats.btrfs.nodes import NodeError
from zoned_tools.formats.btrfs.survey import survey_file_system
from zoned_tools.formats.btrfs.validate import known_sys_chunks
from zoned_tools.formats.shared.losses import Loss
from zoned_tools.formats.shared.views import DeviceView

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.btrfs.chunks import Chunk
    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.survey import DeviceSurvey
    from zoned_tools.formats.contract import Settings, Target


def open_views(target: Target, settings: Settings) -> list[DeviceView]:
    """Each device without its rings, with the super block of the chosen generation at the regular places.

    Raises:
        MetadataError: a device has no valid super block, none of the generation that is asked for, or is of another
            file system.
    """
    fs = survey_file_system(target)
    chosen = choose_supers(fs, settings)
    owners: Sequence[Chunk] | None = None
    try:
        owners = fs.reader.chunk_map(chosen.block).chunks
    except NodeError:  # the warnings say it; whose the zones are is not known then
        chunks: list[Chunk] = known_sys_chunks(chosen.block)
    else:
        chunks = list(owners)
    views = []
    for index, (survey, raw) in enumerate(zip(fs.surveys, chosen.blocks, strict=True)):
        own = _Zones.of(survey, parse(raw), chunks, known=owners is not None)
        warnings = chosen.warnings if index == 0 else ()
        views.append(_view(survey, index, raw, own, warnings))
    return views


def _view(survey: DeviceSurvey, index: int, raw: bytes, own: _Zones, warnings: Sequence[str]) -> DeviceView:
    block, device, start = parse(raw), survey.device, survey.start_bytes
    rows = without(shown_rows(device.zones(), device.geometry.size_bytes), own.ring_ranges())
    bad = ((a - start, b - a) for a, b, _ in known_bad_areas(device))
    parts = (part for area in bad for part in own.parts(*area))
    nobodys = [(start + at, start + at + length) for at, length, place in parts if place is None]
    places = [at for at in MIRROR_BYTENR if at + SUPER_BYTES <= survey.size_bytes]
    placed = {at: for_mirror(raw, at) for at in places}
    mapper = CopyView(device, index, start, without(rows, [(0, start), *nobodys]), placed, warnings)
    return DeviceView(f"devid-{block.dev_item.devid}", mapper, block.generation, own.gone(), own.parts)


@dataclass(frozen=True, slots=True)
class _Zones:
    """Who owns the zones of one device.

    Attributes:
        stripes: ``(n, 2)`` first byte of the stripes on the device, by it, and logical address of their block group.
        known: False where the chunk tree could not be read: then zones may have owners that are not known.
    """

    survey: DeviceSurvey
    devid: int
    zone_bytes: int
    stripes: IntArray
    known: bool

    @classmethod
    def of(cls, survey: DeviceSurvey, block: SuperBlock, chunks: Sequence[Chunk], *, known: bool) -> _Zones:
        devid = block.dev_item.devid
        rows = [
            (s.offset_bytes, c.logical, c.stripe_bytes)
            for c in chunks
            for s in c.stripes
            if s.devid == devid and max(s.offset_bytes, c.logical, c.stripe_bytes) < 1 << 62
        ]
        stripes = np.array(sorted(rows), np.int64).reshape(-1, 3)
        return cls(survey, devid, survey.zone_bytes(block), stripes, known)

    def ring_ranges(self) -> list[tuple[int, int]]:
        """The zones of every pair, in bytes of the device; none where super blocks are at their regular places."""
        placement, device = self.survey.placement, self.survey.device
        if not placement.zone_bytes:
            return []
        nr_zones = -(-device.geometry.size_bytes // placement.zone_bytes)
        pairs = mirrors_on(nr_zones, placement.zone_bytes)
        return [(first * placement.zone_bytes, (first + 2) * placement.zone_bytes) for _, first in pairs]

    def place_of(self, offset_bytes: int) -> dict[str, int | None] | None:
        """The zone and the block group of a byte of the file system's device; None where it is nobody's."""
        zone = (self.survey.start_bytes + offset_bytes) // self.zone_bytes if self.zone_bytes else None
        row = int(np.searchsorted(self.stripes[:, 0], offset_bytes, side="right")) - 1
        inside = row >= 0 and offset_bytes < int(self.stripes[row, 0] + self.stripes[row, 2])
        if not inside and (self.known or self._is_ring(offset_bytes)):
            return None
        return {"devid": self.devid, "zone": zone, "block_group": int(self.stripes[row, 1]) if inside else None}

    def parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, Mapping[str, int | None] | None]]:
        """A range of the file system's device zone by zone: ``(offset, length, place)``."""
        at, end = offset_bytes, offset_bytes + length_bytes
        start, step = self.survey.start_bytes, self.zone_bytes
        while at < end:
            stop = min(((start + at) // step + 1) * step - start, end) if step else end
            yield at, stop - at, self.place_of(at)
            at = stop

    def _is_ring(self, offset_bytes: int) -> bool:
        at = self.survey.start_bytes + offset_bytes
        return any(start <= at < end for start, end in self.ring_ranges())

    def gone(self) -> list[Loss]:
        """The zones that are offline and belong to somebody."""
        device = self.survey.device
        table = device.zones()
        rows = []
        for zone in np.flatnonzero(table["condition"] == ZoneCondition.OFFLINE).tolist():
            start, length = device.geometry.zone_range_bytes(zone, 1)
            offset = start - self.survey.start_bytes
            if self.place_of(offset) is not None:
                rows.append(Loss(offset, length, BAD_SECTOR, f"zone {zone} is offline"))
        return rows
