"""The findings about trees: their roots, their nodes, the tree log (btrfs-zoned.md 10)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoned_tools.formats.btrfs.layout import COMPAT_RO_BLOCK_GROUP_TREE, INCOMPAT_SKINNY_METADATA
from zoned_tools.formats.btrfs.names import DEMANDED_TREES, TREE_NAMES
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.tree_survey import BLOCK_GROUP_TREE
from zoned_tools.formats.contract import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.nodes import NodePointer
    from zoned_tools.formats.btrfs.survey import FileSystem, Where
    from zoned_tools.formats.btrfs.tree_survey import TreeSurvey
    from zoned_tools.formats.btrfs.walk import BadCopy, LostCopy, LostNode
    from zoned_tools.formats.shared.findings import FindingGroup


def roots_finding(reason: str, where: Where, lost: LostNode | None) -> FindingGroup:
    """That the roots cannot be read, and which node, in which zones."""
    place: dict[str, Any] = {**where}
    if lost is not None and lost.copies:
        place |= {**_node_place(lost.pointer), "copies": _copies(lost.copies)}
        reason += f" ({'; '.join(_copy_text(copy) for copy in lost.copies)})"
    return RULES.finding("roots-unreadable", reason, **place)


def root_findings(fs: FileSystem, block: SuperBlock, where: Where, trees: TreeSurvey) -> Iterator[FindingGroup]:
    """Trees that the kernel reads at mount, the tree log, and what zoned mode cannot honour in subvolumes."""
    for tree in trees.cut_items:
        yield RULES.finding("tree-lost", f"{TREE_NAMES[tree]}: its root item is cut off", **where, tree=tree)
    for lost in trees.lost_roots:
        if not lost.unknown:
            sentence = f"{TREE_NAMES[lost.pointer.tree]}: {lost.reason}"
            place: dict[str, Any] = {**where, **_node_place(lost.pointer), "copies": _copies(lost.copies)}
            yield RULES.finding("tree-lost", sentence, **place)
    yield from _feature_findings(block, where, trees)
    log = fs.reader.log_readable(block)
    if log.readable is False:
        yield RULES.finding("log-unreadable", f"tree log at {block.log_root}: {log.reason}", **where)
    if trees.nodatacow:
        sentence = f"{trees.nodatacow} files have the NODATACOW attribute"
        yield RULES.finding("nodatacow", sentence, **where, files=trees.nodatacow)


def _feature_findings(block: SuperBlock, where: Where, trees: TreeSurvey) -> Iterator[FindingGroup]:
    """Feature bits against what the trees hold (btrfs-zoned.md 4.1)."""
    own_groups = bool(block.compat_ro_flags & COMPAT_RO_BLOCK_GROUP_TREE)
    demanded = [(BLOCK_GROUP_TREE, "block group tree")] if own_groups else []
    demanded += [one for bit, one in DEMANDED_TREES.items() if block.incompat_flags >> bit & 1]
    for tree, name in demanded:
        if trees.has_tree(tree) is False:
            sentence = f"{name}: a feature demands it, and the root tree does not name it"
            yield RULES.finding("tree-lost", sentence, **where, tree=tree)
    if not own_groups and trees.has_tree(BLOCK_GROUP_TREE):
        sentence = "BLOCK_GROUP_TREE is off, and there is a block group tree: the first commit fails"
        yield RULES.finding("head-field", sentence, **where, field="compat_ro_flags")
    if trees.metadata_items and not block.incompat_flags & INCOMPAT_SKINNY_METADATA:
        sentence = "SKINNY_METADATA is off, and the extent tree has such items"
        yield RULES.finding("head-field", sentence, **where, field="incompat_flags")


def node_findings(
    fs: FileSystem, block: SuperBlock, trees: TreeSurvey, told: Set[tuple[int, int]]
) -> Iterator[FindingGroup]:
    """Nodes that cannot be read, and single copies that cannot.

    Args:
        told: devid and zone of stripes whose missing content is a finding of the block group.
    """
    deleted = trees.deleted
    for lost in trees.walk.lost:
        if lost.unknown or lost.pointer.logical == block.log_root:
            continue  # device-missing and log-unreadable tell them
        yield _lost_node(lost, deleted=lost.pointer.tree in deleted)
    for one in trees.walk.lost_copies:
        zone = one.copy.zone
        if one.copy.why == UNREADABLE:
            continue
        if one.copy.why in _TOLD_BY_ZONES and zone is not None and (one.copy.devid, zone) in told:
            continue
        yield _lost_copy(one)
    yield from _unreadable_copies(fs, trees)


def _unreadable_copies(fs: FileSystem, trees: TreeSurvey) -> Iterator[FindingGroup]:
    """Each run of copies of nodes that the medium does not give, where the other copies do."""
    nodesize = trees.walk.rules.nodesize
    places = sorted(
        {(one.copy.devid, one.offset_bytes) for one in trees.walk.lost_copies if one.copy.why == UNREADABLE}
    )
    while places:
        devid, first = places[0]
        count = next((i for i, place in enumerate(places) if place != (devid, first + i * nodesize)), len(places))
        places = places[count:]
        path = fs.path_of(devid)
        start = fs.reader.start_bytes + first
        nodes = "a copy of a tree node" if count == 1 else f"copies of {count} tree nodes"
        where: dict[str, Any] = {
            "what": "node",
            "devid": devid,
            "offset_bytes": start,
            "length_bytes": count * nodesize,
        }
        if len(fs.surveys) > 1 and path is not None:
            where["device"] = path
        sentence = f"{nodes} at byte {start} of device {devid} cannot be read; the other copies serve"
        yield RULES.finding("block-unreadable", sentence, repairable=False, **where)


UNREADABLE = "unreadable"
"""Why a copy is bad that the medium does not give."""

_TOLD_BY_ZONES = frozenset({"above-wp", "offline", "read-only"})


def _lost_node(lost: LostNode, *, deleted: bool) -> FindingGroup:
    pointer = lost.pointer
    sentence = f"{_tree_name(pointer.tree)}, level {pointer.level}: {lost.reason}"
    if lost.copies:
        sentence += f" ({'; '.join(_copy_text(copy) for copy in lost.copies)})"
    if pointer.level:
        sentence += "; what lies below it was not read"
    group = RULES.finding("node-lost", sentence, **_node_place(pointer), copies=_copies(lost.copies))
    return replace(group, severity=Severity.INFO) if deleted else group


def _lost_copy(one: LostCopy) -> FindingGroup:
    copy = one.copy
    sentence = (
        f"{_tree_name(one.pointer.tree)}: one copy of the node at {one.pointer.logical} is bad: {_copy_text(copy)}"
    )
    place = _node_place(one.pointer)
    return RULES.finding("node-copy-lost", sentence, **place, devid=copy.devid, zone=copy.zone, stripe=copy.stripe)


def _tree_name(tree: int) -> str:
    return TREE_NAMES.get(tree, f"tree {tree}")


def _copy_text(copy: BadCopy) -> str:
    zone = "" if copy.zone is None else f" zone {copy.zone}"
    return f"device {copy.devid}{zone}: {copy.why}"


def _node_place(pointer: NodePointer) -> dict[str, Any]:
    return {"tree": pointer.tree, "level": pointer.level, "logical": pointer.logical}


def _copies(copies: Sequence[BadCopy]) -> list[dict[str, object]]:
    return [copy._asdict() for copy in copies]
