"""Whose content a zone holds: the trees with nodes in it, and the files with extents in it.

All trees are walked, each shared node once; what is below it counts for every tree that leads to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.device.zones import condition_name
from zoned_tools.errors import UsageError
from zoned_tools.formats.btrfs.chunks import COPY_PROFILES, Chunk
from zoned_tools.formats.btrfs.items import (
    EXTENT_DATA,
    EXTENT_DTYPE,
    FIRST_SUBVOLUME,
    INLINE,
    LAST_SUBVOLUME,
    TOP_SUBVOLUME,
)
from zoned_tools.formats.btrfs.mapper.files import FileTree, Ref
from zoned_tools.formats.btrfs.nodes import (
    NODE_HEADER_BYTES,
    NodeError,
    NodePointer,
    child_pointers,
    leaf_table,
)
from zoned_tools.formats.btrfs.tree_survey import LOG_TREE, TreeRoot, roots_in
from zoned_tools.formats.btrfs.trees import chunk_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.formats.btrfs.zone_states import ZoneStates

HIT_DTYPE = np.dtype([("inode", "<u8"), ("logical", "<u8"), ("disk_bytes", "<u8"), ("bytes", "<u8")])
"""A file extent that counts: where it is on disk, and how many bytes of the file it gives."""

MAX_FILES = 64
"""Files named in one sentence; how many there are is always said."""

Hits: TypeAlias = npt.NDArray[np.void]
_NONE: Hits = np.zeros(0, HIT_DTYPE)


class Zone(NamedTuple):
    """A zone of one device."""

    devid: int
    zone: int


@dataclass(slots=True)
class _Below:
    """What of a node and everything below it lies in the zones; ``unread`` counts nodes that cannot be read."""

    nodes: int = 0
    alone: int = 0
    unread: int = 0
    hits: Hits = field(default_factory=lambda: _NONE)


class TreeInZones(NamedTuple):
    """A tree with nodes in the zones; ``alone``: no other zone holds a copy of so many."""

    tree: int
    nodes: int
    alone: int


class FileInZones(NamedTuple):
    """A file with extents in the zones; ``alone_bytes``: no other zone holds a copy of so many."""

    ref: Ref
    path: bytes | None
    bytes: int
    alone_bytes: int


@dataclass(frozen=True, slots=True)
class Owners:
    """What zones hold; ``unread``: nodes that cannot be read, files below them are not told."""

    zones: list[Zone]
    trees: list[TreeInZones]
    files: list[FileInZones]
    unread: int


def dead_zones(tree: FileTree) -> list[Zone]:
    """Zones that are offline, of all devices."""
    return [
        Zone(devid, zone)
        for devid, states in tree.zones.items()
        for zone in range(len(states.written))
        if states.is_offline(zone)
    ]


def zones_named(tree: FileTree, numbers: Sequence[int], devid: int | None) -> list[Zone]:
    """The zones with these numbers, of one device or of every one that has them.

    Raises:
        UsageError: there is no such device or zone.
    """
    if devid is not None and devid not in tree.zones:
        raise UsageError(f"there is no device {devid}", device=tree.path)
    chosen = {devid: tree.zones[devid]} if devid is not None else tree.zones
    found = []
    for number in numbers:
        having = [Zone(one, number) for one, states in chosen.items() if number < len(states.written)]
        if not having:
            raise UsageError(f"there is no zone {number}", device=tree.path)
        found += having
    return found


def zone_condition(states: ZoneStates, zone: int) -> str:
    return condition_name(int(states.condition[zone]))


def owners_of(tree: FileTree, zones: Sequence[Zone]) -> Owners:
    """Whose content is in the zones.

    Raises:
        NodeError: the root tree cannot be read.
    """
    walk = _Walk(tree, frozenset(zones))
    trees, files, unread = [], [], 0
    for root in walk.roots():
        found = walk.below(root)
        number = root.tree
        unread += found.unread
        if found.nodes:
            trees.append(TreeInZones(number, found.nodes, found.alone))
        files += list(walk.files(number, found.hits))
    return Owners(sorted(zones), trees, files, unread)


class RangeFiles:
    """The files with extents in ``(start, end)`` logical ranges, ascending and disjoint; one walk over all trees."""

    def __init__(self, tree: FileTree, ranges: Sequence[tuple[int, int]]) -> None:
        self._tree = tree
        walk = _Walk(tree, frozenset(), ranges) if ranges else None
        self._hits = [(root.tree, walk.below(root).hits) for root in walk.roots()] if walk is not None else []
        self._paths: dict[Ref, str] = {}

    def names(self, start: int, end: int) -> str:
        """``, in /a, /b and 3 more``: the files with extents in one of the ranges; empty without any."""
        refs = [Ref(tree, inode) for tree, hits in self._hits for inode in _overlapping(hits, start, end)]
        more = f" and {len(refs) - MAX_FILES} more" if len(refs) > MAX_FILES else ""
        return f", in {', '.join(map(self._name, refs[:MAX_FILES]))}{more}" if refs else ""

    def _name(self, ref: Ref) -> str:
        if ref not in self._paths:
            path = self._tree.path_of(ref)
            number = f"inode {ref.inode} of subvolume {ref.tree}"
            self._paths[ref] = number if path is None else path.decode("utf-8", "surrogateescape")
        return self._paths[ref]


def _overlapping(hits: Hits, start: int, end: int) -> list[int]:
    """Inodes of the extents that overlap a range."""
    inside = (hits["logical"] < np.uint64(end)) & (hits["logical"] + hits["disk_bytes"] > np.uint64(start))
    found: list[int] = np.unique(hits["inode"][inside]).tolist()
    return found


class _Walk:
    """One walk over all trees.

    Args:
        ranges: logical addresses whose extents count, ascending and disjoint; by default those of the zones' chunks.
    """

    def __init__(self, tree: FileTree, zones: frozenset[Zone], ranges: Sequence[tuple[int, int]] | None = None) -> None:
        self._tree = tree
        self._zones = zones
        self._chunks = [chunk for chunk in tree.lookup.chunks.chunks if self._is_in(chunk)]
        self._starts = np.array([chunk.logical for chunk in self._chunks], np.uint64)
        self._ends = np.array([chunk.logical + chunk.length_bytes for chunk in self._chunks], np.uint64)
        wanted = np.column_stack((self._starts, self._ends)) if ranges is None else np.array(ranges, np.uint64)
        self._wanted = wanted.reshape(-1, 2)
        self._done: dict[tuple[int, int | None], _Below] = {}

    def _is_in(self, chunk: Chunk) -> bool:
        return any(self._zone(stripe.devid, stripe.offset_bytes) in self._zones for stripe in chunk.stripes)

    def _zone(self, devid: int, offset_bytes: int) -> Zone | None:
        states = self._tree.zones.get(devid)
        zone = None if states is None else states.zone_of(offset_bytes)
        return None if zone is None else Zone(devid, zone)

    # -- trees

    def roots(self) -> Iterator[NodePointer]:
        """The tops of all trees: chunk, root, what the root tree names, and the logs."""
        tree, block = self._tree, self._tree.block
        yield NodePointer(*chunk_root(block))
        yield tree.root_of_roots
        yield from (root.pointer for root in self._named(tree.root_of_roots))
        if block.log_root:
            log = NodePointer(LOG_TREE, block.log_root, block.generation + 1, block.log_root_level)
            yield log
            yield from (root.pointer for root in self._named(log))

    def _named(self, root: NodePointer) -> list[TreeRoot]:
        return roots_in(self._leaves(root), [])

    def _leaves(self, pointer: NodePointer) -> Iterator[bytes]:
        """The leaves that can be read; the others are counted when the tree itself is looked at."""
        try:
            node = self._read(pointer)
            children = child_pointers(node, pointer.logical) if pointer.level else []
        except NodeError:
            return
        if not pointer.level:
            yield node
            return
        for block, generation in children:
            yield from self._leaves(NodePointer(pointer.tree, block, generation, pointer.level - 1))

    def _read(self, pointer: NodePointer) -> bytes:
        """Raises :class:`NodeError`."""
        lookup = self._tree.lookup
        return lookup.reader.node(lookup.chunks, lookup.rules, pointer.logical, pointer.generation, pointer.level)

    def below(self, pointer: NodePointer) -> _Below:
        """What of a subtree is in the zones; levels are at most eight deep, and of leaves nothing is kept."""
        if not pointer.level:
            return self._look(pointer)
        kind = (pointer.logical, pointer.generation)
        found = self._done.get(kind)
        if found is None:
            found = self._done[kind] = self._look(pointer)
        return found

    def _look(self, pointer: NodePointer) -> _Below:
        below = _Below()
        chunk = self._chunk(pointer.logical)
        if chunk is not None and self._holds(chunk, pointer.logical):
            below.nodes = 1
            below.alone = int(self._is_alone(chunk, pointer.logical))
        try:
            self._add_content(below, pointer, self._read(pointer))
        except NodeError:
            below.unread += 1
        return below

    def _add_content(self, below: _Below, pointer: NodePointer, node: bytes) -> None:
        if not pointer.level:
            below.hits = self._extents(node, pointer.logical) if _has_files(pointer.tree) else _NONE
            return
        parts = []
        for block, generation in child_pointers(node, pointer.logical):
            part = self.below(NodePointer(pointer.tree, block, generation, pointer.level - 1))
            below.nodes += part.nodes
            below.alone += part.alone
            below.unread += part.unread
            if len(part.hits):
                parts.append(part.hits)
        below.hits = np.concatenate(parts) if parts else _NONE

    def _extents(self, leaf: bytes, logical: int) -> Hits:
        """The file extents of a leaf that overlap what is looked for."""
        table = leaf_table(leaf, logical)
        rows = table[(table["type"] == EXTENT_DATA) & (table["data_bytes"] >= EXTENT_DTYPE.itemsize)]
        if not len(rows) or not len(self._wanted):
            return _NONE
        at = NODE_HEADER_BYTES + rows["data_offset"].astype(np.int64)[:, None] + np.arange(EXTENT_DTYPE.itemsize)
        items = np.frombuffer(leaf, np.uint8)[at].view(EXTENT_DTYPE).ravel()
        first = np.searchsorted(self._wanted[:, 1], items["disk_bytenr"], side="right")
        inside = (items["kind"] != INLINE) & (items["disk_bytenr"] != 0) & (first < len(self._wanted))
        starts = self._wanted[np.minimum(first, len(self._wanted) - 1), 0]
        inside &= starts < items["disk_bytenr"] + items["disk_num_bytes"]
        hits = np.zeros(int(inside.sum()), HIT_DTYPE)
        hits["inode"], hits["logical"] = rows["objectid"][inside], items["disk_bytenr"][inside]
        hits["disk_bytes"], hits["bytes"] = items["disk_num_bytes"][inside], items["num_bytes"][inside]
        return hits

    # -- copies

    def _chunk(self, logical: int) -> Chunk | None:
        index = int(np.searchsorted(self._starts, np.uint64(logical), side="right")) - 1
        return self._chunks[index] if index >= 0 and logical < int(self._ends[index]) else None

    def _places(self, chunk: Chunk, logical: int) -> list[tuple[Zone | None, int, int]]:
        places = chunk.places(logical - chunk.logical, 1) or []
        return [(self._zone(place.devid, place.offset_bytes), place.devid, place.offset_bytes) for place in places]

    def _holds(self, chunk: Chunk, logical: int) -> bool:
        """Whether an address of a chunk is in one of the zones: of RAID0 only some are."""
        return any(zone in self._zones for zone, _, _ in self._places(chunk, logical))

    def _is_alone(self, chunk: Chunk, logical: int) -> bool:
        """Whether no other zone holds a copy of an address that can be read."""
        for zone, devid, offset in self._places(chunk, logical):
            states = self._tree.zones.get(devid)
            if zone not in self._zones and states is not None and not states.why_not(offset, 1):
                return False
        return True

    # -- files

    def files(self, tree: int, hits: Hits) -> Iterator[FileInZones]:
        """The hits of one subvolume, by file."""
        if not len(hits):
            return
        held = np.ones(len(hits), bool)
        alone = np.zeros(len(hits), bool)
        index = np.searchsorted(self._starts, hits["logical"], side="right") - 1
        for number in np.unique(index).tolist():
            chunk, mine = self._chunks[number], index == number
            if chunk.profile in COPY_PROFILES:
                alone[mine] = self._is_alone(chunk, chunk.logical)
                continue
            for row in np.flatnonzero(mine).tolist():
                held[row] = self._holds(chunk, int(hits["logical"][row]))
                alone[row] = self._is_alone(chunk, int(hits["logical"][row]))
        hits, alone = hits[held], alone[held]
        inodes, of = np.unique(hits["inode"], return_inverse=True)
        of, sizes = of.ravel(), hits["bytes"].astype(np.int64)
        every, only = np.zeros(len(inodes), np.int64), np.zeros(len(inodes), np.int64)
        np.add.at(every, of, sizes)
        np.add.at(only, of, np.where(alone, sizes, 0))
        for inode, size, alone_size in zip(inodes.tolist(), every.tolist(), only.tolist(), strict=True):
            ref = Ref(tree, inode)
            yield FileInZones(ref, self._tree.path_of(ref), size, alone_size)


def _has_files(tree: int) -> bool:
    return tree == TOP_SUBVOLUME or FIRST_SUBVOLUME <= tree <= LAST_SUBVOLUME
