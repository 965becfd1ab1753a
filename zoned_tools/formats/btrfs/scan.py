"""Tree nodes of btrfs, found by what they say of themselves.

A node begins with a checksum over all of it, the fsid, its own logical address, flags, its generation, the tree that
owns it, and its level (Linux fs/btrfs, struct btrfs_header). No super block is asked for the size and the checksum of
nodes: the possible ones are tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from zoned_tools.device.badareas import salvage_into
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.layout import MAX_LEVEL
from zoned_tools.formats.btrfs.nodes import NODE_HEADER_BYTES, NODE_HEADER_DTYPE, signed_tree
from zoned_tools.formats.shared.scanning import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.base import Device

_SIZES = (16384, 4096, 8192, 32768, 65536)
_FLAGS, _RELOCATED = (1 << 56) | 1, 2
"""Back references of revision 1, written; a node of a relocation tree has one bit more."""

_TREES = {
    1: "root",
    2: "extent",
    3: "chunk",
    4: "device",
    5: "files",
    7: "checksum",
    9: "uuid",
    10: "free space",
    11: "block group",
}
_MOST_ROOTS = 8
"""Newest top nodes that are listed of each tree."""


class BtrfsScanner:
    """Collects nodes whose checksum is right."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kinds = [(size, csum) for size in _SIZES for csum in ALGORITHMS]
        self._nodes: list[tuple[int, Any]] = []

    def feed(self, offset_bytes: int, data: bytearray) -> None:
        heads = np.frombuffer(data, np.uint8).reshape(-1, BLOCK_BYTES)[:, :NODE_HEADER_BYTES]
        rows = np.ascontiguousarray(heads).view(NODE_HEADER_DTYPE)[:, 0]
        likely = (rows["flags"] & ~np.uint64(_RELOCATED) == _FLAGS) & (rows["level"] < MAX_LEVEL)
        likely &= (rows["bytenr"] % BLOCK_BYTES == 0) & (rows["bytenr"] > 0)
        for row in np.flatnonzero(likely).tolist():
            if self._is_sound(offset_bytes + row * BLOCK_BYTES):
                self._nodes.append((offset_bytes + row * BLOCK_BYTES, rows[row].copy()))

    def _is_sound(self, offset_bytes: int) -> bool:
        """Whether a node of some size with a right checksum begins here; what fits once is tried first."""
        room = min(max(size for size, _ in self._kinds), self._device.geometry.size_bytes - offset_bytes)
        node = bytearray(room)
        salvage_into(self._device, offset_bytes, memoryview(node))
        for index, (size, csum) in enumerate(self._kinds):
            if size <= room and csum_matches(memoryview(node)[:size], csum):
                self._kinds.insert(0, self._kinds.pop(index))
                return True
        return False

    def result(self) -> Mapping[str, object]:
        trees: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        for offset, head in self._nodes:
            key = str(UUID(bytes=bytes(head["fsid"]))), signed_tree(int(head["owner"]))
            trees.setdefault(key, []).append((offset, head))
        rows = [_tree(fsid, tree, nodes) for (fsid, tree), nodes in sorted(trees.items())]
        return {"gives": [_sentence(row) for row in rows], "node_bytes": self._kinds[0][0], "trees": rows}


def _tree(fsid: str, tree: int, nodes: list[tuple[int, Any]]) -> dict[str, Any]:
    """One tree: how many nodes, and the newest that could be its top: of the highest level in its generation."""
    tops: dict[int, tuple[int, Any]] = {}
    for offset, head in nodes:
        generation = int(head["generation"])
        if generation not in tops or head["level"] > tops[generation][1]["level"]:
            tops[generation] = (offset, head)
    newest = sorted(tops, reverse=True)[:_MOST_ROOTS]
    return {
        "fsid": fsid,
        "tree": tree,
        "name": _TREES.get(tree, ""),
        "nodes": len(nodes),
        "oldest_generation": min(tops),
        "newest_generation": max(tops),
        "tops": [
            {
                "generation": generation,
                "offset_bytes": tops[generation][0],
                "logical": int(tops[generation][1]["bytenr"]),
                "level": int(tops[generation][1]["level"]),
                "items": int(tops[generation][1]["nritems"]),
            }
            for generation in newest
        ],
    }


def _sentence(row: Mapping[str, Any]) -> str:
    top = row["tops"][0]
    name = f"{row['name']} tree" if row["name"] else f"tree {row['tree']}"
    return (
        f"{name}: {row['nodes']} nodes of generations {row['oldest_generation']} to {row['newest_generation']}; "
        f"the newest top is at byte {top['offset_bytes']} (logical {top['logical']}, level {top['level']}, "
        f"{top['items']} items)"
    )
