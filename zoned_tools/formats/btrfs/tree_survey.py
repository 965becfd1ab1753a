"""What the trees of one super block say, measured: roots, extents, block group items (btrfs-zoned.md 8.1 and 10)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zoned_tools.formats.btrfs.chunks import ChunkError, sys_chunks
from zoned_tools.formats.btrfs.layout import COMPAT_RO_BLOCK_GROUP_TREE
from zoned_tools.formats.btrfs.names import TREE_NAMES
from zoned_tools.formats.btrfs.nodes import (
    NODE_HEADER_BYTES,
    ROOT_ITEM,
    ROOT_ITEM_TYPE,
    NodeError,
    NodePointer,
    NodeRules,
    NodeTable,
    leaf_items,
    leaf_table,
    signed_tree,
)
from zoned_tools.formats.btrfs.trees import ChunkMap, chunk_root
from zoned_tools.formats.btrfs.walk import LostNode, TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.trees import TreeReader
    from zoned_tools.formats.btrfs.zone_states import ZoneStates

    Numbers = npt.NDArray[np.uint64]

ROOT_TREE, EXTENT_TREE, CHUNK_TREE, FS_TREE, BLOCK_GROUP_TREE, LOG_TREE = 1, 2, 3, 5, 11, -6
_FIRST_SUBVOLUME = 256

_EXTENT_ITEM, _METADATA_ITEM, _BLOCK_GROUP_ITEM, _INODE_ITEM = 168, 169, 192, 1
_INODE_FLAGS_OFFSET = 64
_NODATACOW = 1 << 1


class TreeRoot(NamedTuple):
    """A tree's entry in the root tree; one that is being deleted misses nodes by design."""

    pointer: NodePointer
    deleted: bool


@dataclass(slots=True)
class TreeSurvey:
    """What was read of the trees.

    Attributes:
        block: the super block that leads to them.
        roots: in the order of the root tree.
        lost_roots: trees that the kernel reads at mount and whose root node is lost.
        cut_items: trees whose root item is too short.
        extents: ``(n, 2)`` starts and lengths in bytes, by start.
        groups: ``(n, 3)`` logical address, length and used bytes of the block group items.
        extents_known, groups_known: False where a part of the tree that holds them could not be read.
        metadata_items: whether an extent of metadata is noted by its level, which SKINNY_METADATA allows.
        nodatacow: inodes with the attribute in what was read of the subvolumes.
    """

    walk: TreeWalk
    block: SuperBlock
    deep: bool
    roots: list[TreeRoot] = field(default_factory=list)
    lost_roots: list[LostNode] = field(default_factory=list)
    cut_items: list[int] = field(default_factory=list)
    extents: Numbers = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    groups: Numbers = field(default_factory=lambda: np.zeros((0, 3), np.uint64))
    extents_known: bool = True
    groups_known: bool = True
    metadata_items: bool = False
    nodatacow: int = 0

    def has_tree(self, tree: int) -> bool | None:
        """Whether the root tree names a tree; None where a part of it is lost."""
        if any(root.pointer.tree == tree for root in self.roots):
            return True
        return None if _root_tree_lost(self.walk) else False

    @property
    def deleted(self) -> set[int]:
        """Trees that are being deleted."""
        return {root.pointer.tree for root in self.roots if root.deleted}

    def lost_root_sentences(self) -> list[str]:
        """What the kernel will object to at mount."""
        cut = [f"{TREE_NAMES[tree]}: its root item is cut off" for tree in self.cut_items]
        return cut + [f"{TREE_NAMES[lost.pointer.tree]}: {lost.reason}" for lost in self.lost_roots if not lost.unknown]


def survey_trees(
    reader: TreeReader, block: SuperBlock, zones: Mapping[int, ZoneStates], *, deep: bool = False
) -> TreeSurvey:
    """Read the chunk, root and extent trees and the roots of the others; with ``deep`` every tree to its leaves.

    Raises:
        NodeError: the chunk tree cannot be read.
    """
    walk = TreeWalk(reader, reader.chunk_map(block), NodeRules.of(block), zones)
    survey = TreeSurvey(walk, block, deep)
    _drain(walk.leaves(NodePointer(*chunk_root(block))))
    root = NodePointer(ROOT_TREE, block.root, block.generation, block.root_level)
    survey.roots = roots_in(walk.leaves(root), survey.cut_items)
    own = bool(block.compat_ro_flags & COMPAT_RO_BLOCK_GROUP_TREE) or bool(survey.has_tree(BLOCK_GROUP_TREE))
    _read_accounts(survey, in_own_tree=own)
    for entry in survey.roots:
        _read_tree(survey, entry.pointer)
    if deep and block.log_root:
        logs = walk.leaves(NodePointer(LOG_TREE, block.log_root, block.generation + 1, block.log_root_level))
        for entry in roots_in(logs, []):
            _drain(walk.leaves(entry.pointer))
    return survey


def lost_root(reader: TreeReader, block: SuperBlock, zones: Mapping[int, ZoneStates]) -> LostNode | None:
    """The node for which the roots of a super block cannot be read; None where no node is at fault."""
    try:
        rules = NodeRules.of(block)
        walk = TreeWalk(reader, ChunkMap(sys_chunks(block)), rules, zones)
        _drain(walk.leaves(NodePointer(*chunk_root(block))))
        if not walk.lost:
            walk = TreeWalk(reader, reader.chunk_map(block), rules, zones)
            walk.node_once(NodePointer(ROOT_TREE, block.root, block.generation, block.root_level))
    except (ChunkError, NodeError):  # the array, an item or the node size: the sentence of the finding says it
        return None
    return walk.lost[0] if walk.lost else None


def _drain(leaves: Iterable[bytes]) -> None:
    for _ in leaves:
        pass


def roots_in(leaves: Iterable[bytes], cut_items: list[int]) -> list[TreeRoot]:
    """The root items in some leaves; trees whose item is too short are added to ``cut_items``."""
    found = []
    for leaf in leaves:
        for item in leaf_items(leaf, 0):
            if item.type != ROOT_ITEM_TYPE:
                continue
            tree = signed_tree(item.objectid)
            if len(item.data) < ROOT_ITEM.sizeof():
                cut_items += [tree] if tree in TREE_NAMES else []
                continue
            entry = ROOT_ITEM.parse(item.data)
            pointer = NodePointer(tree, entry.bytenr, entry.generation, entry.level)
            found.append(TreeRoot(pointer, deleted=entry.refs == 0))
    return found


def _read_tree(survey: TreeSurvey, root: NodePointer) -> None:
    """One tree: its root node, which the kernel reads at mount for some; with ``deep`` everything below."""
    walk = survey.walk
    before = len(walk.lost)
    if survey.deep:
        for leaf in walk.leaves(root):
            if root.tree == FS_TREE or root.tree >= _FIRST_SUBVOLUME:
                survey.nodatacow += _count_nodatacow(leaf)
    elif root.tree in TREE_NAMES:
        walk.node_once(root)
    _note_lost_root(survey, root, before)


def _note_lost_root(survey: TreeSurvey, root: NodePointer, before: int) -> None:
    """A root node that was found to be lost since ``before`` is told as a tree, not as a node."""
    if root.tree in TREE_NAMES and len(survey.walk.lost) > before and survey.walk.lost[before].pointer == root:
        survey.lost_roots.append(survey.walk.lost.pop(before))


def _read_accounts(survey: TreeSurvey, *, in_own_tree: bool) -> None:
    """Extents and block group items, from the extent tree and, where the feature is on, the block group tree."""
    walk = survey.walk
    extents: list[Numbers] = []
    groups: list[Numbers] = []
    known = {}
    for tree in (EXTENT_TREE, BLOCK_GROUP_TREE) if in_own_tree else (EXTENT_TREE,):
        root = next((entry.pointer for entry in survey.roots if entry.pointer.tree == tree), None)
        lost = len(walk.lost)
        if root is not None:
            for leaf in walk.leaves(root):
                table = leaf_table(leaf, root.logical)
                if tree == EXTENT_TREE:
                    survey.metadata_items |= bool((table["type"] == _METADATA_ITEM).any())
                    extents.append(_extents(table, walk.rules.nodesize))
                if tree == BLOCK_GROUP_TREE or not in_own_tree:
                    groups.append(_group_items(table, leaf))
        known[tree] = root is not None and len(walk.lost) == lost and not _root_tree_lost(walk)
        if root is not None:
            _note_lost_root(survey, root, lost)
    survey.extents_known = known[EXTENT_TREE]
    survey.groups_known = known[BLOCK_GROUP_TREE if in_own_tree else EXTENT_TREE]
    if extents:
        survey.extents = np.concatenate(extents)
    if groups:
        survey.groups = np.concatenate(groups)


def _root_tree_lost(walk: TreeWalk) -> bool:
    """Whether a part of the root tree is lost: then a tree that it does not list may be there."""
    return any(lost.pointer.tree == ROOT_TREE for lost in walk.lost)


def _extents(table: NodeTable, nodesize: int) -> Numbers:
    """Starts and lengths of the extents in a leaf of the extent tree."""
    metadata = table["type"] == _METADATA_ITEM
    chosen = metadata | (table["type"] == _EXTENT_ITEM)
    lengths = np.where(metadata, np.uint64(nodesize), table["offset"])
    return np.column_stack((table["objectid"][chosen], lengths[chosen])).astype(np.uint64)


def _group_items(table: NodeTable, leaf: bytes) -> Numbers:
    """Logical address, length and used bytes of the block group items in a leaf."""
    rows = table[(table["type"] == _BLOCK_GROUP_ITEM) & (table["data_bytes"] >= 8)]
    return np.column_stack((rows["objectid"], rows["offset"], _numbers(leaf, rows, 0))).astype(np.uint64)


def _numbers(leaf: bytes, rows: NodeTable, offset: int) -> Numbers:
    """The 64-bit number at ``offset`` in the bytes of each item."""
    at = NODE_HEADER_BYTES + rows["data_offset"].astype(np.int64)[:, None] + offset + np.arange(8)
    found: Numbers = np.frombuffer(leaf, np.uint8)[at].reshape(-1, 8).view("<u8").ravel()
    return found


def _count_nodatacow(leaf: bytes) -> int:
    table = leaf_table(leaf, 0)
    rows = table[(table["type"] == _INODE_ITEM) & (table["data_bytes"] >= _INODE_FLAGS_OFFSET + 8)]
    flags = _numbers(leaf, rows, _INODE_FLAGS_OFFSET)
    return int(np.count_nonzero(flags & np.uint64(_NODATACOW)))
