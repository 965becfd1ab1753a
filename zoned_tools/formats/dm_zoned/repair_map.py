"""Decisions about the mapping table and the bitmaps of the set that is repaired.

Everything is decided on copies. A mapping that could be right is only given up when it
cannot stay, and then the logical range that is lost is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zoned_tools.device.zones import BoolArray, IntArray
from zoned_tools.errors import UsageError
from zoned_tools.formats.dm_zoned.examine import SetExamination, sound_pairs
from zoned_tools.formats.dm_zoned.layout import UNMAPPED, MapArray, TargetGeometry, held_zones
from zoned_tools.formats.registry import RepairOptions

SETTINGS = {"overlap": ("data", "buffer"), "reclaim": ("move", "clear")}
"""``overlap``: which zone keeps a block that is valid in both; ``reclaim``: what becomes of the
valid bits of an empty data zone whose chunk has a buffer zone. The first value is the default."""


def setting(settings: Mapping[str, str], key: str) -> str:
    """A setting's value.

    Raises:
        UsageError: it is none of the possible ones.
    """
    value = settings.get(key, SETTINGS[key][0])
    if value not in SETTINGS[key]:
        raise UsageError(f"{key}={value}: only {' and '.join(SETTINGS[key])} are possible")
    return value


@dataclass(slots=True)
class BitmapEdits:
    """What changes in the bitmaps.

    Attributes:
        clear: zones whose bits all go, shape (zones,).
        cut: zones whose bits at and after the write pointer go, shape (zones,).
        merge: zone that gets the bits of another one (``{buffer zone: data zone}``).
        subtract: zone that loses the bits which another one has below the write pointer of
            the pair's data zone (``{zone: (other zone, write pointer block)}``).
    """

    clear: BoolArray
    cut: BoolArray
    merge: dict[int, int] = field(default_factory=dict)
    subtract: dict[int, tuple[int, int]] = field(default_factory=dict)


class MapRepair:
    """Decides, rule by rule, what the repaired set looks like.

    After :meth:`run` the outcome is in :attr:`table`, :attr:`edits` and :attr:`messages`;
    :attr:`left` says what was left alone for want of consent.
    """

    def __init__(self, geometry: TargetGeometry, examined: SetExamination, options: RepairOptions) -> None:
        self.geometry = geometry
        self.examined = examined
        self.allow = options.allow
        self.settings = options.settings
        self.weight = examined.bits.weight
        self.held = held_zones(geometry, examined.layout)
        self.data: IntArray = examined.map.data.copy()
        self.buffer: IntArray = examined.map.buffer.copy()
        self.messages: list[str] = []
        self.left: list[str] = []
        self.edits = BitmapEdits(np.zeros(geometry.nr_zones, np.bool_), np.zeros(geometry.nr_zones, np.bool_))

    def run(self) -> None:
        """Apply every rule, in an order in which no later rule breaks an earlier one."""
        found = self.examined.map
        self._drop_free_buffers()
        for mask, reason in ((found.data_range, "does not exist"), (found.data_meta, "holds metadata")):
            for chunk in np.flatnonzero(mask).tolist():
                self._lose_data_zone(chunk, f"data zone {self.data[chunk]} {reason}")
        for chunk in np.flatnonzero(found.buffer_without_data).tolist():
            self._lose_data_zone(chunk, "it has no data zone")
        self._drop_wrong_buffers()
        for zone, _ in found.owners.shared:
            self._unshare(zone)
        self._unmap_empty()
        self._repair_bits()

    @property
    def table(self) -> MapArray:
        """The repaired mapping table in whole blocks."""
        table = np.full_like(self.examined.map.table, UNMAPPED)
        table[: len(self.data), 0] = self.data
        table[: len(self.data), 1] = self.buffer
        return table

    # -- helpers

    def _range(self, chunk: int) -> str:
        start = chunk * self.geometry.zone_blocks
        return f"logical blocks {start} to {start + self.geometry.zone_blocks - 1}"

    def _stake(self, zone: int) -> int:
        """Valid blocks in a zone that nobody else claims."""
        if zone >= self.geometry.nr_zones or self.held[zone] or self._claims(zone) > 1:
            return 0
        return int(self.weight[zone])

    def _unmap(self, chunk: int, reason: str) -> None:
        zone = int(self.data[chunk])
        valid = self._stake(zone)
        lost = f"{valid} valid blocks in zone {zone} are lost" if valid else "no valid block is lost"
        self.messages.append(f"chunk {chunk} is unmapped, {reason}: {self._range(chunk)} read as zeroes, {lost}")
        self.data[chunk] = self.buffer[chunk] = UNMAPPED

    def _drop_buffer(self, chunk: int, reason: str) -> None:
        zone = int(self.buffer[chunk])
        valid = self._stake(zone)
        lost = f", {valid} valid blocks in it ({self._range(chunk)}) are lost" if valid else ""
        self.messages.append(f"chunk {chunk} loses its buffer zone, {reason}{lost}")
        self.buffer[chunk] = UNMAPPED

    def _can_promote(self, chunk: int) -> bool:
        """The buffer zone is sound, nobody else's, and holds something."""
        zone = int(self.buffer[chunk])
        if zone >= self.geometry.nr_zones or self.held[zone]:
            return False
        return bool(self.weight[zone]) and self._claims(zone) == 1

    def _claims(self, zone: int) -> int:
        return int(np.count_nonzero(self.data == zone) + np.count_nonzero(self.buffer == zone))

    def _lose_data_zone(self, chunk: int, reason: str) -> None:
        clear = "map-bzone-without-dzone" in self.allow
        if self._can_promote(chunk) and not clear:
            zone = int(self.buffer[chunk])
            self.messages.append(
                f"chunk {chunk}: {reason}; buffer zone {zone} with {self.weight[zone]} valid blocks becomes its data "
                f"zone, the rest of {self._range(chunk)} reads as zeroes"
            )
            self.data[chunk], self.buffer[chunk] = zone, UNMAPPED
        elif self.data[chunk] == UNMAPPED:
            self._drop_buffer(chunk, reason)
        else:
            self._unmap(chunk, reason)

    # -- rules

    def _drop_free_buffers(self) -> None:
        found = self.examined.map
        for mask, reason in (
            (found.buffer_range, "it does not exist"),
            (found.buffer_meta, "it holds metadata"),
            (found.buffer_is_data, "it is the data zone"),
        ):
            for chunk in np.flatnonzero(mask).tolist():
                self._drop_buffer(chunk, f"zone {self.buffer[chunk]}: {reason}")

    def _drop_wrong_buffers(self) -> None:
        found = self.examined.map
        for mask, code, reason in (
            (found.buffer_not_random, "map-bzone-not-random", "it is not a conventional or cache zone"),
            (found.buffer_on_random, "map-bzone-on-random", "the data zone is not sequential"),
        ):
            for chunk in np.flatnonzero(mask & (self.buffer != UNMAPPED)).tolist():
                zone = int(self.buffer[chunk])
                if not self.weight[zone] or code in self.allow:
                    self._drop_buffer(chunk, f"zone {zone}: {reason}")
                else:
                    self.left.append(
                        f"chunk {chunk}: buffer zone {zone} holds {self.weight[zone]} valid blocks but {reason}; "
                        f"it is dropped only with --allow {code}"
                    )

    def _unshare(self, zone: int) -> None:
        """Leave the zone to the claim that fits best, on a tie to the lowest chunk."""
        claims = [(c, True) for c in np.flatnonzero(self.data == zone).tolist()]
        claims += [(c, False) for c in np.flatnonzero(self.buffer == zone).tolist()]
        if len(claims) < 2:
            return
        claims.sort(key=lambda claim: (self._misfits(zone, *claim), claim[0]))
        keeper = claims[0][0]
        for chunk, is_data in claims[1:]:
            reason = f"zone {zone} and its {self.weight[zone]} valid blocks are kept for chunk {keeper}"
            if is_data:
                self._lose_data_zone(chunk, reason)
            else:
                self._drop_buffer(chunk, reason)

    def _misfits(self, zone: int, chunk: int, is_data: bool) -> int:
        """How much speaks against a claim."""
        bits = self.examined.bits
        if is_data:
            empty = self.geometry.sequential[zone] and self.geometry.wp_blocks[zone] == 0
            overlap = self.buffer[chunk] != UNMAPPED and bits.overlap[chunk] > 0
            return int(empty) + int(overlap) + int(bits.after_wp[zone] > 0)
        data = int(self.data[chunk])
        if data >= self.geometry.nr_zones or not self.geometry.sequential[data]:
            return 3
        return int(bits.overlap[chunk] > 0) + int(not self.weight[zone])

    def _unmap_empty(self) -> None:
        geometry = self.geometry
        usable = (self.data < geometry.nr_zones) & (self.buffer == UNMAPPED)
        at = np.where(usable, self.data, 0)
        empty = usable & geometry.sequential[at] & (geometry.wp_blocks[at] == 0)
        for chunk in np.flatnonzero(empty).tolist():
            self._unmap(chunk, f"zone {self.data[chunk]} is empty")

    def _repair_bits(self) -> None:
        geometry, bits = self.geometry, self.examined.bits
        named = np.zeros(geometry.nr_zones, np.bool_)
        named[self.data[self.data < geometry.nr_zones]] = True
        named[self.buffer[self.buffer < geometry.nr_zones]] = True
        self.edits.clear[:] = ~named & (bits.weight > 0)
        for zone in np.flatnonzero(self.edits.clear & ~self.examined.map.owners.named).tolist():
            self.messages.append(f"zone {zone}: {bits.weight[zone]} valid bits are cleared, no chunk names it")
        late = named & (bits.after_wp > 0)
        self.edits.cut[:] = late
        owner = np.full(geometry.nr_zones, -1, np.int64)
        mapped = np.flatnonzero(self.data < geometry.nr_zones)
        owner[self.data[mapped]] = mapped
        for zone in np.flatnonzero(late).tolist():
            self._repair_late_bits(zone, int(owner[zone]))
        for chunk in sound_pairs(geometry, self.held, self.data, self.buffer).tolist():
            self._repair_overlap(chunk)

    def _repair_late_bits(self, zone: int, chunk: int) -> None:
        count = int(self.examined.bits.after_wp[zone])
        buffer_zone = int(self.buffer[chunk]) if chunk >= 0 else UNMAPPED
        sound = buffer_zone < self.geometry.nr_zones and self.geometry.cache[buffer_zone]
        if self.geometry.wp_blocks[zone] == 0 and sound and setting(self.settings, "reclaim") == "move":
            self.edits.merge[buffer_zone] = zone
            self.messages.append(
                f"chunk {chunk} ({self._range(chunk)}): data zone {zone} was reset during reclaim, "
                f"{count} valid blocks are taken from buffer zone {buffer_zone}"
            )
            return
        where = f"chunk {chunk} ({self._range(chunk)})" if chunk >= 0 else f"zone {zone}"
        wp = int(self.geometry.wp_blocks[zone])
        self.messages.append(
            f"{where}: {count} blocks from offset {wp} of zone {zone} on are not valid any more, they are after "
            "the write pointer and read as zeroes"
        )

    def _repair_overlap(self, chunk: int) -> None:
        zone, buffer_zone = int(self.data[chunk]), int(self.buffer[chunk])
        count = int(self.examined.bits.overlap[chunk])
        if not count or buffer_zone in self.edits.merge:
            return
        wp = int(self.geometry.wp_blocks[zone])
        winner, loser = zone, buffer_zone
        if setting(self.settings, "overlap") == "buffer":
            winner, loser = buffer_zone, zone
        self.edits.subtract[loser] = (winner, wp)
        self.messages.append(
            f"chunk {chunk} ({self._range(chunk)}): {count} blocks valid in both zones are taken from zone {winner}"
        )
