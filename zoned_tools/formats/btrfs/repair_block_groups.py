"""Repair of block groups against their zones: tails of copies, zones to finish, orphans (btrfs-zoned.md 8.3).

Nothing is overwritten: what is written is appended, zones are finished, and only zones that nothing owns are reset.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Produce
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.btrfs.block_groups import BlockGroups, orphan_zones
from zoned_tools.formats.btrfs.mapper.files import FileTree
from zoned_tools.formats.btrfs.mapper.lookup import TreeLookup
from zoned_tools.formats.btrfs.mapper.owners import RangeFiles
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.tree_survey import survey_trees
from zoned_tools.formats.btrfs.zone_states import CONVENTIONAL
from zoned_tools.formats.contract import Consent

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.btrfs.check import BtrfsEvidence
    from zoned_tools.formats.btrfs.tree_survey import TreeSurvey
    from zoned_tools.formats.btrfs.zone_states import ZoneStates
    from zoned_tools.formats.contract import RepairPlan

PIECE_BYTES = 4 << 20
"""Of a tail, in memory at a time."""

_DATA = 1
_FINISH_BY_HAND = (
    "finishing both zones (zoned zone finish) mounts too, costs the rest of the group, and leaves the copies unequal"
)


def plan_block_groups(evidence: BtrfsEvidence, allow: frozenset[str], repair: RepairPlan) -> None:
    """Add what is proven to help: actions with their consent, and their steps."""
    if evidence.groups is not None and evidence.trees is not None:
        _GroupRepair(evidence, evidence.groups, evidence.trees, allow, repair).decide()


class _GroupRepair:
    def __init__(
        self,
        evidence: BtrfsEvidence,
        found: BlockGroups,
        trees: TreeSurvey,
        allow: frozenset[str],
        repair: RepairPlan,
    ) -> None:
        self._fs = evidence.survey
        self._found = found
        self._trees = trees
        self._allow = allow
        self._repair = repair
        self._zones = trees.walk.zones
        self._deep: TreeSurvey | None = trees if trees.deep else None
        self._activated: dict[int, int] = {}

    def decide(self) -> None:
        found = self._found
        for row in np.flatnonzero(found.differs).tolist():
            self._copy_tail(row)
        if self._trees.extents_known:
            beside = found.beside_conventional
            for row in np.flatnonzero(found.beyond & beside).tolist():
                self._append_from_conventional(row)
            for row in np.flatnonzero(found.beyond & ~beside).tolist():
                self._finish(row)
        for devid, states in self._zones.items():
            self._reset_orphans(devid, states)

    # -- one stripe

    def _number(self, row: int, name: str) -> int:
        return int(self._found.stripes[name][row])

    def _logical(self, row: int) -> int:
        return int(self._found.groups["logical"][self._number(row, "group")])

    def _device(self, devid: int) -> tuple[int, Device]:
        device = self._fs.reader.devices[devid]
        return self._fs.target.devices.index(device), device

    def _start(self, row: int) -> int:
        """First byte of a stripe's zone on its device."""
        return self._number(row, "zone") * self._zones[self._number(row, "devid")].zone_bytes

    def _where(self, row: int) -> dict[str, Any]:
        devid = self._number(row, "devid")
        where: dict[str, Any] = {"devid": devid, "zone": self._number(row, "zone")}
        where |= {"block_group": self._logical(row), "stripe": self._number(row, "stripe")}
        path = self._fs.path_of(devid)
        return {**where, "device": path} if len(self._fs.surveys) > 1 and path is not None else where

    def _name(self, row: int) -> str:
        return f"zone {self._number(row, 'zone')} of device {self._number(row, 'devid')}"

    def _leave(self, row: int, why: str) -> None:
        self._repair.plan.messages.append(f"block group {self._logical(row)}: {self._name(row)} is left: {why}")

    # -- tails

    def _copy_tail(self, row: int) -> None:
        """Append what a longer copy has more."""
        found = self._found
        end = int(found.longest[row])
        same = (found.stripes["unit"] == found.stripes["unit"][row]) & found.live
        source = int(np.flatnonzero(same & (found.stripes["written"] == end))[0])
        group = self._number(row, "group")
        if int(found.groups["type"][group]) & _DATA:
            self._leave(row, "copies of data are not compared")
            return
        full = self._number(source, "condition") == ZoneCondition.FULL
        if not self._can_append(row, source, end):
            return
        certain = self._every_node_is_readable(group)
        length = end - self._number(row, "written")
        sentence = self._tail_sentence(row, source, length)
        if not certain:
            sentence += "; some of its nodes cannot be read in any copy"
        agreed = certain or "bg-wp-differs" in self._allow
        consent = Consent.CERTAIN if certain else Consent.GUESSES
        where = self._where(row)
        self._repair.add(RULES.action("bg-wp-differs", sentence, consent=consent, agreed=agreed, **where))
        if agreed:
            self._append(row, source, end, finish=full and end < self._number(row, "capacity"))

    def _append_from_conventional(self, row: int) -> None:
        """Append what the conventional copy has up to the last extent."""
        found = self._found
        same = found.stripes["unit"] == found.stripes["unit"][row]
        source = int(np.flatnonzero(same & (found.stripes["written"] == CONVENTIONAL))[0])
        end = int(found.of_stripes("last")[row])
        if not self._can_append(row, source, end):
            return
        length = end - self._number(row, "written")
        sentence = self._tail_sentence(row, source, length)
        self._repair.add(RULES.action("bg-extents-beyond-wp", sentence, **self._where(row)))
        self._append(row, source, end, finish=False)

    def _tail_sentence(self, row: int, source: int, length: int) -> str:
        tail = f"{length} bytes of {self._name(source)} are appended to {self._name(row)}"
        return f"block group {self._logical(row)}: {tail}"

    def _can_append(self, row: int, source: int, end: int) -> bool:
        devid, written = self._number(row, "devid"), self._number(row, "written")
        if end > self._number(row, "capacity"):
            self._leave(row, "its capacity is smaller")
            return False
        states, limit = self._zones[devid], self._device(devid)[1].geometry.max_active_zones
        if self._number(row, "condition") == ZoneCondition.EMPTY and limit:
            if states.active + self._activated.get(devid, 0) >= limit:
                self._leave(row, f"the drive's active zones are used up; {_FINISH_BY_HAND}")
                return False
            self._activated[devid] = self._activated.get(devid, 0) + 1
        device = self._device(self._number(source, "devid"))[1]
        if len(known_bad_areas(device, self._start(source) + written, end - written)):
            self._leave(row, f"the longer copy cannot be read whole; {_FINISH_BY_HAND}")
            return False
        return True

    def _append(self, row: int, source: int, end: int, *, finish: bool) -> None:
        plan, written = self._repair.plan, self._number(row, "written")
        index = self._device(self._number(row, "devid"))[0]
        device = self._device(self._number(source, "devid"))[1]
        note = f"block group {self._logical(row)}: from {self._name(source)}"
        for at in range(written, end, PIECE_BYTES):
            length = min(PIECE_BYTES, end - at)
            produce = partial(device.read, self._start(source) + at, length)
            plan.steps.append(Produce(index, self._start(row) + at, length, produce, note))
        if finish:
            plan.manage(index, ZoneOperation.FINISH, self._number(row, "zone"), note="as the longer copy's")
        plan.flush(index)

    def _every_node_is_readable(self, group: int) -> bool:
        """Whether each node of a block group that a tree uses has a good copy; all trees are read for that."""
        if self._deep is None:
            block = self._trees.block
            self._deep = survey_trees(self._fs.reader, block, self._zones, deep=True)
        start = int(self._found.groups["logical"][group])
        end = start + int(self._found.groups["length"][group])
        deleted = self._deep.deleted
        lost = [*self._deep.walk.lost, *self._deep.lost_roots]
        return not any(start <= one.pointer.logical < end and one.pointer.tree not in deleted for one in lost)

    # -- zones

    def _finish(self, row: int) -> None:
        """Finish a zone behind which extents are lost: nothing is written over their addresses any more."""
        found = self._found
        lost = int(found.lost_bytes(np.array([row]), self._trees.extents)[0])
        sentence = (
            f"block group {self._logical(row)}: {self._name(row)} is finished; {lost} bytes of extents from logical "
            f"address {self._logical(row) + self._number(row, 'written')} on stay lost{self._lost_files(row)}"
        )
        self._repair.add(RULES.action("bg-extents-beyond-wp", sentence, **self._where(row)))
        index = self._device(self._number(row, "devid"))[0]
        note = f"block group {self._logical(row)}: nothing more is written to it"
        self._repair.plan.manage(index, ZoneOperation.FINISH, self._number(row, "zone"), note=note)
        self._repair.plan.flush(index)

    def _lost_files(self, row: int) -> str:
        if self._number(row, "stripe"):
            return ""  # the first stripe's action has named them
        lookup = TreeLookup(self._fs.reader, self._trees.walk.chunks, self._trees.walk.rules)
        tree = FileTree(self._fs, self._trees.block, lookup, self._zones, ())
        start = self._logical(row)
        end = start + int(self._found.of_stripes("length")[row])
        lost = (start + self._number(row, "written"), end)
        return RangeFiles(tree, [lost]).names(*lost)

    def _reset_orphans(self, devid: int, states: ZoneStates) -> None:
        """Reset zones that nothing owns; older generations may still name what lies there."""
        index, device = self._device(devid)
        if not device.geometry.is_zoned:
            return
        orphans = orphan_zones(device, devid, states, self._found)
        if not len(orphans):
            return
        agreed = "zone-orphan" in self._allow
        sentence = "zone {zone} of device {devid} is reset: {written_bytes} bytes that no block group owns"
        places: dict[str, Any] = {
            "devid": np.full(len(orphans), devid),
            "zone": orphans,
            "written_bytes": states.written[orphans],
        }
        self._repair.add(RULES.actions("zone-orphan", sentence, consent=Consent.LOSES, agreed=agreed, **places))
        if agreed:
            for zone in orphans.tolist():
                self._repair.plan.manage(index, ZoneOperation.RESET, zone, note="nothing owns it")
            self._repair.plan.flush(index)
