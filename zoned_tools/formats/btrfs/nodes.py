"""Tree nodes as they are on disk: what every node must say of itself, and what is in it. No I/O.

Following Linux fs/btrfs: a node carries the fsid (the metadata uuid if there is one), its own
logical address and its generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from construct import Bytes, Int8ul, Int32ul, Int64ul, Padding, Struct

from zoned_tools.codec.fields import Uuid, dtype_of
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.layout import CSUM_BYTES, MAX_LEVEL, MAX_NODE_BYTES, Roots, metadata_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_HEADER = Struct(
    "csum" / Bytes(CSUM_BYTES),
    "fsid" / Uuid(),
    "bytenr" / Int64ul,
    "flags" / Int64ul,
    "chunk_tree_uuid" / Uuid(),
    "generation" / Int64ul,
    "owner" / Int64ul,
    "nritems" / Int32ul,
    "level" / Int8ul,
)
NODE_HEADER_BYTES = NODE_HEADER.sizeof()
NODE_HEADER_DTYPE = dtype_of(NODE_HEADER)

LEAF_ITEM_DTYPE = dtype_of(
    Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul, "data_offset" / Int32ul, "data_bytes" / Int32ul)
)
NODE_POINTER_DTYPE = dtype_of(
    Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul, "block" / Int64ul, "generation" / Int64ul)
)
ROOT_ITEM = Struct(
    "inode" / Padding(160),
    "generation" / Int64ul,
    "root_dirid" / Int64ul,
    "bytenr" / Int64ul,
    "byte_limit" / Int64ul,
    "bytes_used" / Int64ul,
    "last_snapshot" / Int64ul,
    "flags" / Int64ul,
    "refs" / Int32ul,
    "drop_key" / Bytes(17),
    "drop_level" / Int8ul,
    "level" / Int8ul,
)
"""Start of a tree's entry in the root tree (239 bytes of it)."""

ROOT_ITEM_TYPE = 132

NodeTable: TypeAlias = npt.NDArray[np.void]
"""1-D array of :data:`LEAF_ITEM_DTYPE` or :data:`NODE_POINTER_DTYPE`."""


class NodeError(ValueError):
    """A tree node cannot be used.

    Attributes:
        why: one word for it (``checksum``, ``generation``, ``zeroes``...), as findings tell it of each copy.
    """

    def __init__(self, message: str, why: str = "content") -> None:
        super().__init__(message)
        self.why = why


class UnknownPlaceError(NodeError):
    """A node lies on a device that was not given, or in a profile that cannot be followed."""

    def __init__(self, message: str, why: str = "missing") -> None:
        super().__init__(message, why)


class NodePointer(NamedTuple):
    """What names a node: its address, and what it must say of itself.

    Attributes:
        tree: id of the tree that it is reached through, signed.
        generation: None accepts any (a chunk root generation of 0).
        level: None accepts any.
    """

    tree: int
    logical: int
    generation: int | None
    level: int | None


def signed_tree(objectid: int) -> int:
    """A tree's id as it is spoken of: -6 for a log, -8 and -9 for relocation (btrfs-zoned.md 10)."""
    return objectid - (1 << 64) if objectid >> 63 else objectid


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What a super block says about all nodes of its file system."""

    nodesize: int
    csum_type: int
    fsid: bytes

    @classmethod
    def of(cls, super_block: Roots) -> NodeRules:
        """Raises :class:`NodeError` when no node can follow them."""
        size = super_block.nodesize
        if not 4096 <= size <= MAX_NODE_BYTES or size & (size - 1):
            raise NodeError(f"nodes of {size} bytes are not possible")
        if super_block.csum_type not in ALGORITHMS:
            raise NodeError(f"checksum type {super_block.csum_type} is unknown")
        return cls(size, super_block.csum_type, metadata_uuid(super_block).bytes)


@dataclass(frozen=True, slots=True)
class LeafItem:
    """One item of a leaf: its key and its bytes."""

    objectid: int
    type: int
    offset: int
    data: bytes


def check_node(node: bytes, rules: NodeRules, logical: int, generation: int | None, level: int | None) -> None:
    """Raises :class:`NodeError` unless the node is the one that a pointer with these numbers means."""
    head = np.frombuffer(node, NODE_HEADER_DTYPE, 1)[0]
    if not any(node):
        raise NodeError(f"the node at {logical} is gone (zeroes)", "zeroes")
    if not csum_matches(node, rules.csum_type):
        raise NodeError(f"the node at {logical} is damaged or of another file system", "checksum")
    if bytes(head["fsid"]) != rules.fsid:
        raise NodeError(f"the node at {logical} is damaged or of another file system", "fsid")
    if head["bytenr"] != logical:
        raise NodeError(f"the node at {logical} was written for address {head['bytenr']}", "address")
    if generation is not None and head["generation"] != generation:
        sentence = f"the node at {logical} has generation {head['generation']} instead of {generation}"
        raise NodeError(sentence, "generation")
    if level is not None and (head["level"] != level or level >= MAX_LEVEL):
        raise NodeError(f"the node at {logical} has level {head['level']} instead of {level}", "level")


def node_table(node: bytes, logical: int, dtype: np.dtype[np.void]) -> NodeTable:
    """The items of a leaf or the pointers of an inner node, as they stand in it.

    Raises:
        NodeError: it claims more than there is room for.
    """
    count = int(np.frombuffer(node, NODE_HEADER_DTYPE, 1)["nritems"][0])
    if NODE_HEADER_BYTES + count * dtype.itemsize > len(node):
        raise NodeError(f"the node at {logical} claims {count} items, more than there is room for")
    return np.frombuffer(node, dtype, count, NODE_HEADER_BYTES)


def leaf_table(node: bytes, logical: int) -> NodeTable:
    """The keys of a leaf (:data:`LEAF_ITEM_DTYPE`) and where the items' bytes are.

    Raises:
        NodeError: one lies outside the node.
    """
    table = node_table(node, logical, LEAF_ITEM_DTYPE)
    ends = table["data_offset"].astype(np.int64) + table["data_bytes"]
    if ends.max(initial=0) > len(node) - NODE_HEADER_BYTES:
        raise NodeError(f"an item of the node at {logical} lies outside it")
    return table


def leaf_items(node: bytes, logical: int) -> Iterator[LeafItem]:
    """The items of a leaf.

    Raises:
        NodeError: one lies outside the node.
    """
    for objectid, kind, offset, data_offset, data_bytes in leaf_table(node, logical).tolist():
        start = NODE_HEADER_BYTES + data_offset
        yield LeafItem(objectid, kind, offset, node[start : start + data_bytes])


def child_pointers(node: bytes, logical: int) -> list[tuple[int, int]]:
    """``(logical address, generation)`` of every child of an inner node."""
    table = node_table(node, logical, NODE_POINTER_DTYPE)
    return [(int(block), int(generation)) for _, _, _, block, generation in table.tolist()]
