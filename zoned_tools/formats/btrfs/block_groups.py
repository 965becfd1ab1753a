"""Block groups against zones: what the kernel compares when it mounts (btrfs-zoned.md 8.1 and 8.2).

Two tables: block groups, and their stripes, each of which occupies one zone. All rules are masks over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.btrfs.chunks import ROW_BYTES
from zoned_tools.formats.btrfs.layout import reserved_zones
from zoned_tools.formats.btrfs.zone_states import CONVENTIONAL, DEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.btrfs.chunks import Chunk
    from zoned_tools.formats.btrfs.tree_survey import TreeSurvey
    from zoned_tools.formats.btrfs.zone_states import ZoneStates

    Table: TypeAlias = npt.NDArray[np.void]

UNJUDGED = -3
"""W of a stripe that cannot be compared: its device was not given, or it is no whole zone of it."""

UNKNOWN = -1
"""U and L where the extent tree could not be read whole."""

GROUP_DTYPE = np.dtype(
    [("logical", "<u8"), ("length", "<u8"), ("type", "<u8"), ("used", "<i8"), ("last", "<i8"), ("item_used", "<i8")]
)
"""``used`` is U, ``last`` is L; ``item_used`` is :data:`UNKNOWN` where there is no block group item."""

STRIPE_DTYPE = np.dtype(
    [
        ("group", "<i8"),
        ("unit", "<i8"),
        ("stripe", "<i8"),
        ("devid", "<u8"),
        ("zone", "<i8"),
        ("written", "<i8"),
        ("capacity", "<i8"),
        ("condition", "<i8"),
    ]
)
"""``unit`` numbers what holds the same bytes: a group, a pair of RAID10, a stripe of RAID0; ``written`` is W."""

_RAID0, _RAID1, _DUP, _RAID10, _RAID1C3, _RAID1C4 = (1 << bit for bit in (3, 4, 5, 6, 9, 10))
_RAID1_ALL = _RAID1 | _RAID1C3 | _RAID1C4
_PROFILES = 0x7F8
_BIG = 1 << 62


@dataclass(frozen=True, slots=True)
class BlockGroups:
    """The block groups of a file system and their stripes."""

    groups: Table
    stripes: Table

    def of_stripes(self, name: str) -> npt.NDArray[np.generic]:
        """A column of the groups, one value for each stripe."""
        column: npt.NDArray[np.generic] = self.groups[name][self.stripes["group"]]
        return column

    def has_type(self, bits: int) -> BoolArray:
        """Mask of the stripes whose group has one of the type's bits."""
        mask: BoolArray = (self.groups["type"][self.stripes["group"]] & np.uint64(bits)) != 0
        return mask

    @property
    def is_single(self) -> BoolArray:
        mask: BoolArray = ~self.has_type(_PROFILES)
        return mask

    # -- rules over stripes

    @property
    def judged(self) -> BoolArray:
        """Stripes of groups all of whose stripes can be compared."""
        unknown = np.zeros(len(self.groups), bool)
        unknown[self.stripes["group"][self.stripes["written"] == UNJUDGED]] = True
        mask: BoolArray = np.logical_not(unknown[self.stripes["group"]])
        return mask

    @property
    def live(self) -> BoolArray:
        """Stripes with a write pointer, in groups that are judged."""
        mask: BoolArray = self.judged & (self.stripes["written"] >= 0)
        return mask

    @property
    def dead(self) -> BoolArray:
        mask: BoolArray = self.judged & (self.stripes["written"] == DEAD)
        return mask

    @property
    def skippable(self) -> BoolArray:
        """Stripes that the kernel passes over when they are dead: those of RAID1 but the first."""
        mask: BoolArray = self.has_type(_RAID1_ALL) & (self.stripes["stripe"] != 0)
        return mask

    @property
    def longest(self) -> IntArray:
        """The largest W of the live stripes that hold the same bytes, one value for each stripe."""
        return self._of_unit(np.maximum, np.where(self.live, self.stripes["written"], UNKNOWN), UNKNOWN)

    @property
    def differs(self) -> BoolArray:
        """Live stripes that are shorter than another copy."""
        mirrored = self.has_type(_RAID1_ALL | _DUP | _RAID10)
        mask: BoolArray = self.live & mirrored & (self.stripes["written"] < self.longest)
        return mask

    @property
    def beyond(self) -> BoolArray:
        """Live stripes below extents: of single groups, of equal copies, and beside conventional copies."""
        written, last = self.stripes["written"], self.of_stripes("last")
        shortest = self._of_unit(np.minimum, np.where(self.live, written, _BIG), _BIG)
        equal = shortest == self.longest
        copies = self.has_type(_RAID1_ALL | _DUP) & (equal | self.beside_conventional)
        mask: BoolArray = self.live & (self.is_single | copies) & (written < last)
        return mask

    @property
    def beside_conventional(self) -> BoolArray:
        """Stripes one copy of which lies in a conventional zone."""
        conventional = (self.stripes["written"] == CONVENTIONAL).astype(np.int64)
        mask: BoolArray = self._of_unit(np.maximum, conventional, 0) > 0
        return mask

    @property
    def over_capacity(self) -> BoolArray:
        """Stripes whose pointer, L for conventional ones, lies behind the capacity of the zone."""
        conventional = self.judged & (self.stripes["written"] == CONVENTIONAL) & ~self.has_type(_RAID0 | _RAID10)
        pointer = np.where(conventional, self.of_stripes("last"), self.stripes["written"])
        mask: BoolArray = (self.live | conventional) & (pointer > self.stripes["capacity"])
        return mask

    def _of_unit(self, reduce: np.ufunc, values: IntArray, initial: int) -> IntArray:
        units = self.stripes["unit"]
        found = np.full(int(units.max(initial=-1)) + 1, initial, np.int64)
        reduce.at(found, units, values)
        column: IntArray = found[units]
        return column

    # -- rules over groups

    def striping_faults(self) -> dict[int, str]:
        """Logical address of RAID0 and RAID10 groups to what is wrong with the order of their stripes.

        Rows of 65536 bytes are dealt over the stripes, or over pairs; groups with a conventional or dead zone are
        left out, and so are pairs that differ.
        """
        stripes, written = self.stripes, self.longest
        usable = self.live & ~self.differs
        first = np.flatnonzero(self.has_type(_RAID0) | (self.has_type(_RAID10) & (stripes["stripe"] % 2 == 0)))
        bad = set(stripes["group"][~usable].tolist())
        faults = {}
        groups = stripes["group"][first]
        for group in np.unique(groups).tolist():  # the few groups of a profile that is rarely made
            if group in bad:
                continue
            sentence = _row_fault(written[first[groups == group]])
            if sentence:
                faults[int(self.groups["logical"][group])] = sentence
        return faults

    def lost_bytes(self, rows: IntArray, extents: npt.NDArray[np.uint64]) -> IntArray:
        """For stripes, the bytes of their group's extents at or above W."""
        starts, lengths = extents[:, 0], extents[:, 1]
        ends = starts + lengths
        total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(lengths)))
        logical = self.of_stripes("logical")[rows].astype(np.uint64)
        at = logical + self.stripes["written"][rows].astype(np.uint64)
        end = logical + self.of_stripes("length")[rows].astype(np.uint64)
        first = np.searchsorted(starts, at, "left")
        cut = np.where(first > 0, ends[np.maximum(first, 1) - 1], 0).astype(np.uint64)
        inside = np.where(cut > at, np.minimum(cut, end) - np.minimum(at, end), 0)
        lost: IntArray = (total[np.searchsorted(starts, end, "left")] - total[first] + inside).astype(np.int64)
        return lost


def _row_fault(written: IntArray) -> str:
    """What is wrong with the pointers of the stripes of one group, in stripe order; empty when nothing."""
    if (np.diff(written) > 0).any():
        return "stripe position disorder"
    if np.count_nonzero(written % ROW_BYTES) > 1:
        return "multiple partial written stripes"
    return "a stripe gap that is too large" if written[0] - written[-1] > ROW_BYTES else ""


def block_groups_of(trees: TreeSurvey, zones: Mapping[int, ZoneStates]) -> BlockGroups:
    """Put chunks, extents, block group items and zones together."""
    chunks = trees.walk.chunks.chunks
    groups = np.zeros(len(chunks), GROUP_DTYPE)
    for name, values in (
        ("logical", [chunk.logical for chunk in chunks]),
        ("length", [chunk.length_bytes for chunk in chunks]),
        ("type", [chunk.type for chunk in chunks]),
    ):
        groups[name] = np.array(values, np.uint64)
    groups["used"], groups["last"] = _account(groups, trees.extents) if trees.extents_known else (UNKNOWN, UNKNOWN)
    groups["item_used"] = UNKNOWN
    at = np.searchsorted(groups["logical"], trees.groups[:, 0])
    hits = at < len(groups)
    hits[hits] = groups["logical"][at[hits]] == trees.groups[hits, 0]
    groups["item_used"][at[hits]] = np.minimum(trees.groups[hits, 2], np.uint64(_BIG)).astype(np.int64)
    return BlockGroups(groups, _stripes(chunks, zones))


def _account(groups: Table, extents: npt.NDArray[np.uint64]) -> tuple[IntArray, IntArray]:
    """U and L of every group."""
    used = np.zeros(len(groups), np.int64)
    last = np.zeros(len(groups), np.int64)
    index = np.searchsorted(groups["logical"], extents[:, 0], "right") - 1
    own = index >= 0
    inside = extents[own, 0] - groups["logical"][index[own]]
    own[own] = inside < groups["length"][index[own]]
    index, starts = index[own], (extents[own, 0] - groups["logical"][index[own]])
    lengths = np.minimum(extents[own, 1], np.uint64(_BIG)).astype(np.int64)
    np.add.at(used, index, lengths)
    np.maximum.at(last, index, np.minimum(starts, np.uint64(_BIG - 1)).astype(np.int64) + lengths)
    return used, last


def _stripes(chunks: list[Chunk], zones: Mapping[int, ZoneStates]) -> Table:
    """The stripes of all chunks, in order."""
    rows = []
    unit = 0
    for group, chunk in enumerate(chunks):
        copies = chunk.copies
        for number, stripe in enumerate(chunk.stripes):
            place = _zone_of(zones.get(stripe.devid), stripe.offset_bytes, chunk.stripe_bytes)
            rows.append((group, unit + number // copies, number, stripe.devid, *place))
        unit += -(-len(chunk.stripes) // copies)
    return np.array(rows, STRIPE_DTYPE)


def _zone_of(states: ZoneStates | None, offset_bytes: int, length_bytes: int) -> tuple[int, int, int, int]:
    """Zone, W, capacity and condition of a stripe."""
    zone = None if states is None else states.zone_of(offset_bytes)
    if states is None or zone is None:
        return -1, UNJUDGED, 0, 0
    whole = offset_bytes % states.zone_bytes == 0 and length_bytes == states.zone_bytes
    written = int(states.written[zone]) if whole else UNJUDGED
    return zone, written, int(states.capacity[zone]), int(states.condition[zone])


def orphan_zones(device: Device, devid: int, states: ZoneStates, found: BlockGroups) -> IntArray:
    """Sequential zones of a zoned device that hold something and that nothing owns."""
    geometry = device.geometry
    owned = np.zeros(len(states.written), bool)
    owned[sorted(reserved_zones(geometry.nr_zones, geometry.zone_bytes))] = True
    own = found.stripes[(found.stripes["devid"] == devid) & (found.stripes["zone"] >= 0)]
    owned[own["zone"]] = True
    orphans: IntArray = np.flatnonzero(states.holding & ~owned)
    return orphans
