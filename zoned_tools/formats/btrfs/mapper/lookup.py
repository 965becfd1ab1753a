"""Looking keys up in trees: only the nodes on the way are read, and kept for the next look."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from zoned_tools.formats.btrfs.nodes import (
    NODE_HEADER_BYTES,
    NODE_POINTER_DTYPE,
    LeafItem,
    NodePointer,
    leaf_table,
    node_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.nodes import NodeRules
    from zoned_tools.formats.btrfs.trees import ChunkMap, TreeReader

Key: TypeAlias = tuple[int, int, int]
"""objectid, type, offset."""

LAST = (1 << 64) - 1
KEPT_BYTES = 32 << 20
"""Nodes that are kept."""


@dataclass(slots=True)
class _Node:
    """A decoded node: its keys, and what they stand for."""

    keys: list[Key]
    raw: bytes
    rows: list[tuple[int, int]]
    """Child and its generation; of a leaf where the item's bytes are."""


@dataclass(slots=True)
class TreeLookup:
    """Reads items of trees by key.

    Attributes:
        nodes_read: how many nodes came from the devices.
    """

    reader: TreeReader
    chunks: ChunkMap
    rules: NodeRules
    nodes_read: int = 0
    _kept: OrderedDict[tuple[int, int | None, int | None], _Node] = field(default_factory=OrderedDict)

    def items(self, root: NodePointer, low: Key, high: Key) -> Iterator[LeafItem]:
        """The items of a tree from ``low`` to ``high``, both included, in order.

        Raises:
            NodeError: a node on the way cannot be used.
        """
        node = self._node(root)
        level = root.level
        assert level is not None
        if level == 0:
            first, end = bisect_left(node.keys, low), bisect_right(node.keys, high)
            for (objectid, kind, offset), (at, length) in zip(node.keys[first:end], node.rows[first:end], strict=True):
                yield LeafItem(objectid, kind, offset, node.raw[at : at + length])
            return
        first, end = max(bisect_right(node.keys, low) - 1, 0), bisect_right(node.keys, high)
        for logical, generation in node.rows[first:end]:
            yield from self.items(NodePointer(root.tree, logical, generation, level - 1), low, high)

    def first(self, root: NodePointer, low: Key, high: Key) -> LeafItem | None:
        """The first item of a range; None where there is none."""
        return next(self.items(root, low, high), None)

    def last(self, root: NodePointer, low: Key, high: Key) -> LeafItem | None:
        """The last item of a range; None where there is none. Reads one node of each level, mostly."""
        node = self._node(root)
        level = root.level
        assert level is not None
        if level == 0:
            found = list(self.items(root, low, high))
            return found[-1] if found else None
        first, end = max(bisect_right(node.keys, low) - 1, 0), bisect_right(node.keys, high)
        for logical, generation in reversed(node.rows[first:end]):
            item = self.last(NodePointer(root.tree, logical, generation, level - 1), low, high)
            if item is not None:
                return item
        return None

    def _node(self, pointer: NodePointer) -> _Node:
        key = (pointer.logical, pointer.generation, pointer.level)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        raw = self.reader.node(self.chunks, self.rules, pointer.logical, pointer.generation, pointer.level)
        self.nodes_read += 1
        node = _decoded_leaf(raw, pointer.logical) if pointer.level == 0 else _decoded_inner(raw, pointer.logical)
        self._kept[key] = node
        while len(self._kept) * self.rules.nodesize > KEPT_BYTES:
            self._kept.popitem(last=False)
        return node


def _decoded_leaf(raw: bytes, logical: int) -> _Node:
    rows = leaf_table(raw, logical).tolist()
    places = [(NODE_HEADER_BYTES + at, length) for _, _, _, at, length in rows]
    return _Node([(objectid, kind, offset) for objectid, kind, offset, _, _ in rows], raw, places)


def _decoded_inner(raw: bytes, logical: int) -> _Node:
    rows = node_table(raw, logical, NODE_POINTER_DTYPE).tolist()
    children = [(block, generation) for _, _, _, block, generation in rows]
    return _Node([(objectid, kind, offset) for objectid, kind, offset, _, _ in rows], b"", children)
