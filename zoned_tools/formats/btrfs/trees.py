"""Reading tree nodes: the chunk map, and whether the roots of a super block can be read.

Metadata zones that are freed are reset and used again, so of all the super blocks in a
ring only the youngest few still have their trees.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.chunks import (
    CHUNK_ITEM_TYPE,
    FIRST_CHUNK_TREE_OBJECTID,
    Chunk,
    ChunkError,
    Place,
    sys_chunks,
)
from zoned_tools.formats.btrfs.layout import Roots, metadata_uuid
from zoned_tools.formats.btrfs.nodes import (
    LeafItem,
    NodeError,
    NodePointer,
    NodeRules,
    UnknownPlaceError,
    check_node,
    child_pointers,
    leaf_items,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.base import Device

DEV_ITEM_KEY = (1, 216)
"""Objectid and type of the chunk tree's device items; the key's offset is the devid."""

DEV_ITEM_BYTES = 98

MAX_TREE_NODES = 1 << 20
"""More nodes than the chunk or root tree of any file system has."""

MAX_CHUNK_MAPS = 256
"""Chunk maps that are kept: super blocks next to each other in a ring mostly share theirs."""

MAX_VERDICTS = 8192
"""Verdicts on roots and logs that are kept."""


class DeviceFacts(NamedTuple):
    """What the chunk tree says of a device: its size, what chunks take of it, its uuid."""

    total_bytes: int
    used_bytes: int
    uuid: bytes

    @classmethod
    def of(cls, raw: bytes) -> DeviceFacts:
        """From the bytes of a device item, which is as in a super block."""
        return cls(int.from_bytes(raw[8:16], "little"), int.from_bytes(raw[16:24], "little"), raw[66:82])


class ChunkMap:
    """Logical addresses to places on devices.

    Attributes:
        chunks: by logical address.
        devices: from the device items of the chunk tree, by devid; empty where only system chunks are known.
    """

    def __init__(self, chunks: Iterator[Chunk] | list[Chunk], devices: Mapping[int, DeviceFacts] | None = None) -> None:
        self.chunks = sorted(chunks, key=lambda chunk: chunk.logical)
        self.devices: Mapping[int, DeviceFacts] = devices or {}
        self._starts = [chunk.logical for chunk in self.chunks]

    def find(self, logical: int) -> Chunk | None:
        """The chunk that holds an address; None where there is none."""
        index = bisect.bisect_right(self._starts, logical) - 1
        chunk = self.chunks[index] if index >= 0 else None
        return chunk if chunk is not None and logical - chunk.logical < chunk.length_bytes else None

    def copies(self, logical: int, length_bytes: int) -> list[Place]:
        """Every copy of a range, in stripe order.

        Raises:
            NodeError: no chunk holds the range.
            UnknownPlaceError: the chunk's profile spreads it in a way that is not followed.
        """
        chunk = self.find(logical)
        if chunk is None or logical - chunk.logical + length_bytes > chunk.length_bytes:
            raise NodeError(f"no chunk holds logical address {logical}", "address")
        places = chunk.places(logical - chunk.logical, length_bytes)
        if places is None:
            raise UnknownPlaceError(f"logical address {logical} is in a {chunk.profile} chunk", "profile")
        return places

    def places(self, logical: int, length_bytes: int) -> list[tuple[int, int]]:
        """``(devid, offset)`` of every copy of a range; raises as :meth:`copies`."""
        return [(place.devid, place.offset_bytes) for place in self.copies(logical, length_bytes)]


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

    def node(
        self, chunks: ChunkMap, rules: NodeRules, logical: int, generation: int | None, level: int | None
    ) -> bytes:
        """The node at a logical address, from the first copy that passes every test.

        Raises:
            NodeError: no copy does; the message is that of the last one.
            UnknownPlaceError: so, and at least one copy is on a device that was not given.
        """
        pointer = NodePointer(0, logical, generation, level)
        failure: NodeError = NodeError(f"no chunk holds logical address {logical}", "address")
        missing = False
        for place in chunks.copies(logical, rules.nodesize):
            try:
                return self.copy(place, rules, pointer)
            except NodeError as error:
                missing = missing or isinstance(error, UnknownPlaceError)
                failure = error
        if missing and not isinstance(failure, UnknownPlaceError):
            raise UnknownPlaceError(f"{failure}; another copy is on a device that is not there")
        raise failure

    def copy(self, place: Place, rules: NodeRules, pointer: NodePointer) -> bytes:
        """One copy of a node.

        Raises:
            NodeError: it cannot be read, or is not what the pointer means.
            UnknownPlaceError: it is on a device that was not given.
        """
        device = self.devices.get(place.devid)
        if device is None:
            raise UnknownPlaceError(f"the node at {pointer.logical} is on device {place.devid}, which is not there")
        node = self._read(device, place.offset_bytes, rules.nodesize)
        check_node(node, rules, pointer.logical, pointer.generation, pointer.level)
        return node

    def _read(self, device: Device, offset_bytes: int, length_bytes: int) -> bytes:
        at = self.start_bytes + offset_bytes
        if at + length_bytes > device.geometry.size_bytes:
            raise NodeError(f"a node at byte {at} lies behind the end of {device.path}", "outside")
        try:
            return device.read(at, length_bytes)
        except DeviceError as error:
            raise NodeError(error.message, "unreadable") from None

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
        devices: dict[int, DeviceFacts] = {}
        try:
            system = ChunkMap(sys_chunks(super_block))
            chunks = {chunk.logical: chunk for chunk in system.chunks}
            for item in self.items(system, rules, *chunk_root(super_block)[1:]):
                if item.type == CHUNK_ITEM_TYPE and item.objectid == FIRST_CHUNK_TREE_OBJECTID:
                    chunks[item.offset] = Chunk.decode(item.offset, item.data)[0]
                elif (item.objectid, item.type) == DEV_ITEM_KEY and len(item.data) >= DEV_ITEM_BYTES:
                    devices[item.offset] = DeviceFacts.of(item.data)
        except ChunkError as error:
            raise NodeError(str(error)) from None
        except UnknownPlaceError as error:
            raise UnknownPlaceError(f"chunk tree: {error}") from None
        except NodeError as error:
            raise NodeError(f"chunk tree: {error}", error.why) from None
        return ChunkMap(list(chunks.values()), devices)

    def items(
        self, chunks: ChunkMap, rules: NodeRules, logical: int, generation: int | None, level: int
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


def chunk_root(super_block: Roots) -> tuple[int, int, int | None, int]:
    """``(tree, address, generation, level)`` of the chunk tree's root; a generation of 0 accepts any (chapter 4.1)."""
    return 3, super_block.chunk_root, super_block.chunk_root_generation or None, super_block.chunk_root_level


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
