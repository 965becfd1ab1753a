"""Reading tree nodes: the chunk map, and whether the roots of a super block can be read.

Metadata zones that are freed are reset and used again, so of all the super blocks in a
ring only the youngest few still have their trees.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.chunks import (
    CHUNK_ITEM_TYPE,
    COPY_PROFILES,
    FIRST_CHUNK_TREE_OBJECTID,
    Chunk,
    ChunkError,
    sys_chunks,
)
from zoned_tools.formats.btrfs.layout import Roots, metadata_uuid
from zoned_tools.formats.btrfs.names import TREE_NAMES
from zoned_tools.formats.btrfs.nodes import (
    ROOT_ITEM,
    ROOT_ITEM_TYPE,
    LeafItem,
    NodeError,
    NodeRules,
    UnknownPlaceError,
    check_node,
    child_pointers,
    leaf_items,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.base import Device

MAX_TREE_NODES = 1 << 20
"""More nodes than the chunk or root tree of any file system has."""

MAX_CHUNK_MAPS = 256
"""Chunk maps that are kept: super blocks next to each other in a ring mostly share theirs."""

MAX_VERDICTS = 8192
"""Verdicts on roots and logs that are kept."""


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
    _verdicts: dict[tuple[object, ...], Readability] = field(default_factory=dict)

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
                check_node(node, rules, logical, generation, level)
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

    def chunk_map(self, super_block: Roots) -> ChunkMap:
        """All chunks: those of the super block's array, and those of the chunk tree.

        Raises:
            NodeError: the array or a node of the chunk tree cannot be used.
        """
        key = _chunk_key(super_block)
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

    def known_chunks(self, super_block: Roots) -> list[Chunk]:
        """All chunks; only the system chunks where the chunk tree cannot be read, which a check tells.

        Raises:
            ChunkError: the super block's array cannot be decoded.
        """
        try:
            return self.chunk_map(super_block).chunks
        except NodeError:
            return sys_chunks(super_block)

    def _read_chunk_tree(self, super_block: Roots) -> ChunkMap:
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
                yield from leaf_items(node, logical)
                continue
            for child, child_generation in reversed(child_pointers(node, logical)):
                if child in seen or len(seen) >= MAX_TREE_NODES:
                    raise NodeError(f"the node at {logical} points to {child}, which is in the tree already")
                seen.add(child)
                pending.append((child, child_generation, level - 1))

    def roots_readable(self, super_block: Roots) -> Readability:
        """Walk the chunk tree and read the root node of the root tree; what was read once is remembered."""
        return self._readable(super_block, super_block.root, super_block.generation, super_block.root_level)

    def log_readable(self, super_block: Roots) -> Readability:
        """Read the root node of the tree log, whose generation is one higher; readable when there is none."""
        if super_block.log_root == 0:
            return Readability(readable=True)
        return self._readable(super_block, super_block.log_root, super_block.generation + 1, super_block.log_root_level)

    def _readable(self, super_block: Roots, logical: int, generation: int, level: int) -> Readability:
        key = (*_chunk_key(super_block), logical, generation, level)
        if key not in self._verdicts:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            self._verdicts[key] = self._try_to_read(super_block, logical, generation, level)
        return self._verdicts[key]

    def _try_to_read(self, super_block: Roots, logical: int, generation: int, level: int) -> Readability:
        try:
            self.node(self.chunk_map(super_block), NodeRules.of(super_block), logical, generation, level)
        except UnknownPlaceError as error:
            return Readability(readable=None, reason=str(error))
        except NodeError as error:
            return Readability(readable=False, reason=str(error))
        return Readability(readable=True)

    def lost_trees(self, super_block: Roots) -> list[str]:
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


def _chunk_key(super_block: Roots) -> tuple[object, ...]:
    """What the chunk map of a super block depends on."""
    return (
        super_block.chunk_root,
        super_block.chunk_root_generation,
        super_block.chunk_root_level,
        super_block.nodesize,
        super_block.csum_type,
        metadata_uuid(super_block),
        super_block.sys_chunk_array[: super_block.sys_array_size],
    )
