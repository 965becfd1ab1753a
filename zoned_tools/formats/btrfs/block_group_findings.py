"""The findings about block groups and their zones (btrfs-zoned.md 8.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device.zones import condition_name
from zoned_tools.formats.btrfs.block_groups import UNKNOWN, BlockGroups, orphan_zones
from zoned_tools.formats.btrfs.chunks import chunk_type_text
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.contract import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.btrfs.survey import FileSystem
    from zoned_tools.formats.btrfs.tree_survey import TreeSurvey
    from zoned_tools.formats.btrfs.zone_states import ZoneStates
    from zoned_tools.formats.shared.findings import FindingGroup

_DIFFERS = (
    "block group {block_group}: stripe {stripe} in zone {zone} of device {devid} holds {wp_bytes} bytes, "
    "another copy {expected_bytes}"
)
_DEAD = "block group {block_group}: zone {zone} of device {devid} (stripe {stripe}) is {condition}"
_BEYOND = (
    "block group {block_group}: zone {zone} of device {devid} is written up to {wp_bytes}, "
    "its extents go on to {last_extent_end_bytes}: {lost_bytes} bytes are lost"
)
_OVER = "block group {block_group}: zone {zone} of device {devid} is written up to {wp_bytes}, behind its capacity"
_USED = "block group {block_group}: its extents have {used_bytes} bytes, its item says {item_used_bytes}"


def block_group_findings(
    fs: FileSystem, trees: TreeSurvey, zones: Mapping[int, ZoneStates], found: BlockGroups
) -> Iterator[FindingGroup]:
    """Everything that compares block groups with zones."""
    yield from _by_device(fs, found, _Stripes(found, trees).groups())
    for logical, fault in found.striping_faults().items():
        sentence = f"block group {logical}: {fault}"
        yield RULES.finding("bg-striping", sentence, block_group=logical)
    if trees.groups_known:
        yield from _unmatched(trees, found)
    if trees.groups_known and trees.extents_known:
        yield from _used(found)
    for devid, states in zones.items():
        yield from _device_findings(fs, devid, states, found)


def told_zones(found: BlockGroups) -> set[tuple[int, int]]:
    """Devid and zone of the stripes whose missing content is told by a finding of their block group."""
    rows = found.stripes[found.differs | found.dead | found.beyond]
    return set(zip(rows["devid"].tolist(), rows["zone"].tolist(), strict=True))


class _Stripes:
    """Findings over stripes, as ``(mask, code, sentence, columns, severity)``."""

    def __init__(self, found: BlockGroups, trees: TreeSurvey) -> None:
        self.found = found
        self.trees = trees

    def groups(self) -> Iterator[tuple[BoolArray, str, str, dict[str, Any], Severity]]:
        found, error = self.found, Severity.ERROR
        written: dict[str, Any] = {"wp_bytes": found.stripes["written"]}
        yield found.differs, "bg-wp-differs", _DIFFERS, {**written, "expected_bytes": found.longest}, error
        condition: dict[str, Any] = {
            "condition": np.array([condition_name(c) for c in found.stripes["condition"].tolist()], object)
        }
        yield found.dead & ~found.skippable, "bg-zone-dead", _DEAD, condition, error
        yield found.dead & found.skippable, "bg-zone-dead", _DEAD, condition, Severity.WARNING
        yield found.over_capacity, "bg-wp-over-capacity", _OVER, written, error
        if not self.trees.extents_known:
            return
        lost = np.zeros(len(found.stripes), np.int64)
        rows = np.flatnonzero(found.beyond)
        lost[rows] = found.lost_bytes(rows, self.trees.extents)
        columns: dict[str, Any] = {**written, "last_extent_end_bytes": found.of_stripes("last"), "lost_bytes": lost}
        yield found.beyond, "bg-extents-beyond-wp", _BEYOND, columns, error


def _by_device(
    fs: FileSystem,
    found: BlockGroups,
    rows: Iterator[tuple[BoolArray, str, str, dict[str, Any], Severity]],
) -> Iterator[FindingGroup]:
    """Findings over stripes; where several devices are given each has its own groups, with its path."""
    devids = np.unique(found.stripes["devid"]).tolist()
    for mask, code, sentence, columns, severity in rows:
        for devid in devids:
            chosen = np.flatnonzero(mask & (found.stripes["devid"] == devid))
            if len(chosen):
                yield _with_device(
                    fs, devid, replace(_group(found, chosen, code, sentence, columns), severity=severity)
                )


def _group(found: BlockGroups, chosen: IntArray, code: str, sentence: str, columns: Mapping[str, Any]) -> FindingGroup:
    places: dict[str, Any] = {name: found.stripes[name][chosen] for name in ("devid", "zone")}
    places |= {"block_group": found.of_stripes("logical")[chosen], "stripe": found.stripes["stripe"][chosen]}
    places |= {name: np.asarray(column)[chosen] for name, column in columns.items()}
    return RULES.findings(code, sentence, **places)


def _with_device(fs: FileSystem, devid: int, group: FindingGroup) -> FindingGroup:
    path = fs.path_of(devid)
    return group if path is None or len(fs.surveys) < 2 else group.with_place("device", path)


def _unmatched(trees: TreeSurvey, found: BlockGroups) -> Iterator[FindingGroup]:
    alone = found.groups[found.groups["item_used"] == UNKNOWN]
    for logical, kind in zip(alone["logical"].tolist(), alone["type"].tolist(), strict=True):
        sentence = f"chunk {logical} ({chunk_type_text(kind)}) has no block group item"
        yield RULES.finding("bg-unmatched", sentence, block_group=logical)
    for logical in np.setdiff1d(trees.groups[:, 0], found.groups["logical"]).tolist():
        yield RULES.finding("bg-unmatched", f"block group {logical} has no chunk", block_group=logical)


def _used(found: BlockGroups) -> Iterator[FindingGroup]:
    groups = found.groups
    rows = groups[(groups["item_used"] != UNKNOWN) & (groups["item_used"] != groups["used"])]
    if len(rows):
        places: dict[str, Any] = {
            "block_group": rows["logical"],
            "used_bytes": rows["used"],
            "item_used_bytes": rows["item_used"],
        }
        yield RULES.findings("bg-used-differs", _USED, **places)


def _device_findings(fs: FileSystem, devid: int, states: ZoneStates, found: BlockGroups) -> Iterator[FindingGroup]:
    """Rules over the zones of one device, whoever uses them."""
    geometry = fs.reader.devices[devid].geometry
    if not geometry.is_zoned:
        return
    if 0 < geometry.max_active_zones < states.active:
        sentence = f"{states.active} zones of device {devid} are active, the drive allows {geometry.max_active_zones}"
        group = RULES.finding("active-zones-exceeded", sentence, devid=devid)
        yield _with_device(fs, devid, group)
    orphans = orphan_zones(fs.reader.devices[devid], devid, states, found)
    if len(orphans):
        sentence = "zone {zone} of device {devid} holds {written_bytes} bytes that no block group owns"
        places: dict[str, Any] = {
            "devid": np.full(len(orphans), devid),
            "zone": orphans,
            "written_bytes": states.written[orphans],
        }
        yield _with_device(fs, devid, RULES.findings("zone-orphan", sentence, **places))
