"""Reading tree nodes: the chunk map, and whether the roots of a super block can be read.

Metadata zones that are freed are reset and used again, so of all the super blocks in a
ring only the youngest few still have their trees. Following Linux fs/btrfs: a node carries
the fsid (the metadata uuid if there is one), its own logical address and its generation.
"""

from __future__ import annotations

import bisect
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.layout import (
    CHUNK_ITEM_TYPE,
    COPY_PROFILES,
    FIRST_CHUNK_TREE_OBJECTID,
    LEAF_ITEM_DTYPE,
    MAX_LEVEL,
    NODE_HEADER_BYTES,
    NODE_HEADER_DTYPE,
    NODE_POINTER_DTYPE,
    ROOT_ITEM,
    ROOT_ITEM_TYPE,
    SUPER_DTYPE,
    TREE_NAMES,
    Chunk,
    ChunkError,
    metadata_uuid,
    sys_chunks,
)

MAX_NODE_BYTES = 65536
MAX_TREE_NODES = 1 << 20
"""More nodes than the chunk or root tree of any file system has."""


MAX_CHUNK_MAPS = 256
"""Chunk maps that are kept: super blocks next to each other in a ring mostly share theirs."""


class NodeError(ValueError):
    """A tree node cannot be used."""


class UnknownPlaceError(NodeError):
    """A node lies on a device that was not given, or in a profile that cannot be followed."""


class ChunkMap:
    """Logical addresses to places on devices."""

    def __init__(self, chunks: Iterator[Chunk] | list[Chunk]) -> None:
        self.chunks = sorted(chunks, key=lambda chunk: chunk.logical)
        self._starts = [chunk.logical for chunk in self.chunks]

    def places(self, logical: int, length_bytes: int) -> list[tuple[int, int]]:
        """``(devid, offset)`` of every copy of a range.

        Raises:
            NodeError: no chunk holds the range.
            UnknownPlaceError: the chunk's profile spreads it in a way that is not followed.
        """
        index = bisect.bisect_right(self._starts, logical) - 1
        if index < 0:
            raise NodeError(f"no chunk holds logical address {logical}")
        chunk = self.chunks[index]
        inside = logical - chunk.logical
        if inside + length_bytes > chunk.length_bytes:
            raise NodeError(f"no chunk holds logical address {logical}")
        if chunk.profile not in COPY_PROFILES:
            raise UnknownPlaceError(f"logical address {logical} is in a {chunk.profile} chunk")
        return [(stripe.devid, stripe.offset_bytes + inside) for stripe in chunk.stripes]


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What a super block says about all nodes of its file system."""

    nodesize: int
    csum_type: int
    fsid: bytes

    @classmethod
    def of(cls, super_block: Any) -> NodeRules:
        """Raises :class:`NodeError` when no node can follow them."""
        size = super_block.nodesize
        if not 4096 <= size <= MAX_NODE_BYTES or size & (size - 1):
            raise NodeError(f"nodes of {size} bytes are not possible")
        if super_block.csum_type not in ALGORITHMS:
            raise NodeError(f"checksum type {super_block.csum_type} is unknown")
        return cls(size, super_block.csum_type, metadata_uuid(super_block).bytes)


@dataclass(frozen=True, slots=True)
class RootFields:
    """The fields of a super block that lead to its trees; fifty times faster than parsing all of it.

    A parsed super block serves as well wherever one of these is taken.
    """

    fsid: uuid.UUID
    metadata_uuid: uuid.UUID
    generation: int
    root: int
    chunk_root: int
    log_root: int
    chunk_root_generation: int
    root_level: int
    chunk_root_level: int
    log_root_level: int
    nodesize: int
    csum_type: int
    incompat_flags: int
    sys_array_size: int
    sys_chunk_array: bytes

    @classmethod
    def of(cls, raw: bytes) -> RootFields:
        """The fields of a super block's 4096 bytes."""
        record = np.frombuffer(raw, SUPER_DTYPE, 1)[0]
        values: dict[str, Any] = {name: record[name].item() for name in _ROOT_FIELD_NAMES}
        for name in ("fsid", "metadata_uuid"):
            values[name] = uuid.UUID(bytes=bytes(values[name]))
        values["sys_chunk_array"] = bytes(values["sys_chunk_array"])
        return cls(**values)


_ROOT_FIELD_NAMES = tuple(field.name for field in fields(RootFields))


@dataclass(frozen=True, slots=True)
class Readability:
    """Whether the trees of a super block can be read.

    ``readable`` is None when that cannot be told, for instance because a device is
    missing; ``reason`` says what is wrong.
    """

    readable: bool | None
    reason: str = ""


@dataclass(slots=True)
class TreeReader:
    """Reads nodes of one file system from its devices.

    Attributes:
        devices: devid -> device.
        start_bytes: where the file system begins on every device.
    """

    devices: Mapping[int, Device]
    start_bytes: int = 0
    _chunk_maps: dict[tuple[object, ...], ChunkMap | NodeError] = field(default_factory=dict)

    def node(self, chunks: ChunkMap, rules: NodeRules, logical: int, generation: int, level: int | None) -> bytes:
        """The node at a logical address, from the first copy that passes every test.

        Raises:
            NodeError: no copy does; the message is that of the last one.
            UnknownPlaceError: so, and at least one copy is on a device that was not given.
        """
        failure: NodeError = NodeError(f"no chunk holds logical address {logical}")
        missing = False
        for devid, offset in chunks.places(logical, rules.nodesize):
            device = self.devices.get(devid)
            if device is None:
                missing = True
                failure = UnknownPlaceError(f"the node at {logical} is on device {devid}, which is not there")
                continue
            try:
                node = self._read(device, offset, rules.nodesize)
                _check_node(node, rules, logical, generation, level)
                return node
            except NodeError as error:
                failure = error
        if missing and not isinstance(failure, UnknownPlaceError):
            raise UnknownPlaceError(f"{failure}; another copy is on a device that is not there")
        raise failure

    def _read(self, device: Device, offset_bytes: int, length_bytes: int) -> bytes:
        at = self.start_bytes + offset_bytes
        if at + length_bytes > device.geometry.size_bytes:
            raise NodeError(f"a node at byte {at} lies behind the end of {device.path}")
        try:
            return device.read(at, length_bytes)
        except DeviceError as error:
            raise NodeError(error.message) from None

    def chunk_map(self, super_block: Any) -> ChunkMap:
        """All chunks: those of the super block's array, and those of the chunk tree.

        Raises:
            NodeError: the array or a node of the chunk tree cannot be used.
        """
        key = (
            super_block.chunk_root,
            super_block.chunk_root_generation,
            super_block.chunk_root_level,
            super_block.nodesize,
            super_block.csum_type,
            metadata_uuid(super_block),
            super_block.sys_chunk_array[: super_block.sys_array_size],
        )
        if key not in self._chunk_maps:
            if len(self._chunk_maps) >= MAX_CHUNK_MAPS:
                self._chunk_maps.clear()
            try:
                self._chunk_maps[key] = self._read_chunk_tree(super_block)
            except NodeError as error:
                self._chunk_maps[key] = error
        found = self._chunk_maps[key]
        if isinstance(found, NodeError):
            raise found
        return found

    def _read_chunk_tree(self, super_block: Any) -> ChunkMap:
        rules = NodeRules.of(super_block)
        try:
            system = ChunkMap(sys_chunks(super_block))
            chunks = {chunk.logical: chunk for chunk in system.chunks}
            root = (super_block.chunk_root, super_block.chunk_root_generation, super_block.chunk_root_level)
            for item in self.items(system, rules, *root):
                if item.type == CHUNK_ITEM_TYPE and item.objectid == FIRST_CHUNK_TREE_OBJECTID:
                    chunks[item.offset] = Chunk.decode(item.offset, item.data)[0]
        except ChunkError as error:
            raise NodeError(str(error)) from None
        except UnknownPlaceError as error:
            raise UnknownPlaceError(f"chunk tree: {error}") from None
        except NodeError as error:
            raise NodeError(f"chunk tree: {error}") from None
        return ChunkMap(list(chunks.values()))

    def items(
        self, chunks: ChunkMap, rules: NodeRules, logical: int, generation: int, level: int
    ) -> Iterator[LeafItem]:
        """Every item of a tree, in order.

        Raises:
            NodeError: a node cannot be used, or the tree has a loop or is too large.
        """
        pending = [(logical, generation, level)]
        seen = {logical}
        while pending:
            logical, generation, level = pending.pop()
            node = self.node(chunks, rules, logical, generation, level)
            if level == 0:
                yield from _leaf_items(node, logical)
                continue
            for child, child_generation in reversed(_children(node, logical)):
                if child in seen or len(seen) >= MAX_TREE_NODES:
                    raise NodeError(f"the node at {logical} points to {child}, which is in the tree already")
                seen.add(child)
                pending.append((child, child_generation, level - 1))

    def roots_readable(self, super_block: Any) -> Readability:
        """Walk the chunk tree and read the root node of the root tree."""
        try:
            chunks = self.chunk_map(super_block)
            rules = NodeRules.of(super_block)
            self.node(chunks, rules, super_block.root, super_block.generation, super_block.root_level)
        except UnknownPlaceError as error:
            return Readability(None, str(error))
        except NodeError as error:
            return Readability(False, str(error))
        return Readability(True)

    def log_readable(self, super_block: Any) -> Readability:
        """Read the root node of the tree log, whose generation is one higher; readable when there is none."""
        if super_block.log_root == 0:
            return Readability(True)
        try:
            chunks, rules = self.chunk_map(super_block), NodeRules.of(super_block)
            root = (super_block.log_root, super_block.generation + 1, super_block.log_root_level)
            self.node(chunks, rules, *root)
        except UnknownPlaceError as error:
            return Readability(None, str(error))
        except NodeError as error:
            return Readability(False, str(error))
        return Readability(True)

    def lost_trees(self, super_block: Any) -> list[str]:
        """Trees that the kernel reads at mount and whose root node is gone, with the reason.

        Walks the root tree; empty when every tree listed there has its root node.
        """
        lost = []
        try:
            chunks, rules = self.chunk_map(super_block), NodeRules.of(super_block)
            root = (super_block.root, super_block.generation, super_block.root_level)
            for item in self.items(chunks, rules, *root):
                if item.type != ROOT_ITEM_TYPE or item.objectid not in TREE_NAMES:
                    continue
                if len(item.data) < ROOT_ITEM.sizeof():
                    lost.append(f"{TREE_NAMES[item.objectid]}: its root item is cut off")
                    continue
                entry = ROOT_ITEM.parse(item.data)
                try:
                    self.node(chunks, rules, entry.bytenr, entry.generation, entry.level)
                except UnknownPlaceError:
                    continue
                except NodeError as error:
                    lost.append(f"{TREE_NAMES[item.objectid]}: {error}")
        except UnknownPlaceError:
            return lost
        except NodeError as error:
            lost.append(f"root tree: {error}")
        return lost


@dataclass(frozen=True, slots=True)
class LeafItem:
    """One item of a leaf: its key and its bytes."""

    objectid: int
    type: int
    offset: int
    data: bytes


def _check_node(node: bytes, rules: NodeRules, logical: int, generation: int, level: int | None) -> None:
    head = np.frombuffer(node, NODE_HEADER_DTYPE, 1)[0]
    if not any(node):
        raise NodeError(f"the node at {logical} is gone (zeroes)")
    if bytes(head["fsid"]) != rules.fsid or not csum_matches(node, rules.csum_type):
        raise NodeError(f"the node at {logical} is damaged or of another file system")
    if head["bytenr"] != logical:
        raise NodeError(f"the node at {logical} was written for address {head['bytenr']}")
    if head["generation"] != generation:
        raise NodeError(f"the node at {logical} has generation {head['generation']} instead of {generation}")
    if level is not None and (head["level"] != level or level >= MAX_LEVEL):
        raise NodeError(f"the node at {logical} has level {head['level']} instead of {level}")


def _table(node: bytes, logical: int, dtype: np.dtype[np.void]) -> np.ndarray:
    count = int(np.frombuffer(node, NODE_HEADER_DTYPE, 1)["nritems"][0])
    if NODE_HEADER_BYTES + count * dtype.itemsize > len(node):
        raise NodeError(f"the node at {logical} claims {count} items, more than there is room for")
    return np.frombuffer(node, dtype, count, NODE_HEADER_BYTES)


def _leaf_items(node: bytes, logical: int) -> Iterator[LeafItem]:
    for objectid, kind, offset, data_offset, data_bytes in _table(node, logical, LEAF_ITEM_DTYPE).tolist():
        start = NODE_HEADER_BYTES + data_offset
        if start + data_bytes > len(node):
            raise NodeError(f"an item of the node at {logical} lies outside it")
        yield LeafItem(objectid, kind, offset, node[start : start + data_bytes])


def _children(node: bytes, logical: int) -> list[tuple[int, int]]:
    table = _table(node, logical, NODE_POINTER_DTYPE)
    return [(int(block), int(generation)) for _, _, _, block, generation in table.tolist()]
