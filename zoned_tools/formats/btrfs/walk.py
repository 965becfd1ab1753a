"""Walking the trees of one super block: every copy of every node is read (btrfs-zoned.md 10).

What cannot be read is kept with the reason for each copy; it is never taken for an empty tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.formats.btrfs.nodes import NodeError, NodePointer, UnknownPlaceError, child_pointers, leaf_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.formats.btrfs.chunks import Place
    from zoned_tools.formats.btrfs.nodes import NodeRules
    from zoned_tools.formats.btrfs.trees import ChunkMap, TreeReader
    from zoned_tools.formats.btrfs.zone_states import ZoneStates


class BadCopy(NamedTuple):
    """A copy of a node that cannot be used; ``zone`` is None where its device is not there or ends before it."""

    devid: int
    zone: int | None
    stripe: int
    why: str


class LostNode(NamedTuple):
    """A node of which no copy is good.

    Attributes:
        copies: what is wrong with each; empty where no chunk holds the address.
        reason: one sentence.
        unknown: a copy may be good: it is on a device that was not given, or its profile is not followed.
    """

    pointer: NodePointer
    copies: tuple[BadCopy, ...]
    reason: str
    unknown: bool


class LostCopy(NamedTuple):
    """One bad copy of a node that has a good one; ``offset_bytes`` counts from the start of the layout."""

    pointer: NodePointer
    copy: BadCopy
    offset_bytes: int


@dataclass(slots=True)
class TreeWalk:
    """Reads nodes of one super block, each once, and keeps what is wrong with them.

    Attributes:
        zones: devid -> the zones of the device.
        good: logical addresses of nodes with a good copy.
        lost: the others that were looked for.
        lost_copies: bad copies of good nodes.
    """

    reader: TreeReader
    chunks: ChunkMap
    rules: NodeRules
    zones: Mapping[int, ZoneStates]
    good: set[int] = field(default_factory=set)
    lost: list[LostNode] = field(default_factory=list)
    lost_copies: list[LostCopy] = field(default_factory=list)
    _seen: set[tuple[int, int | None, int | None]] = field(default_factory=set)

    def leaves(self, root: NodePointer) -> Iterator[bytes]:
        """The leaves of a tree, in key order, that can be reached and were not visited before.

        Subvolumes share nodes: what another tree led to is not read again.
        """
        pending = [root]
        while pending:
            pointer = pending.pop()
            node = self.node_once(pointer)
            if node is None:
                continue
            if pointer.level == 0:
                yield node
                continue
            level = None if pointer.level is None else pointer.level - 1
            children = child_pointers(node, pointer.logical)
            pending += [NodePointer(root.tree, block, generation, level) for block, generation in reversed(children)]

    def node_once(self, pointer: NodePointer) -> bytes | None:
        """A node from its first good copy; None where it is lost, which is noted, or was visited before."""
        key = pointer[1:]
        if key in self._seen:
            return None
        self._seen.add(key)
        return self._node(pointer)

    def _node(self, pointer: NodePointer) -> bytes | None:
        found: bytes | None = None
        bad: list[tuple[BadCopy, int]] = []
        reason, unknown = "", False
        try:
            places = self.chunks.copies(pointer.logical, self.rules.nodesize)
        except NodeError as error:
            self.lost.append(LostNode(pointer, (), str(error), isinstance(error, UnknownPlaceError)))
            return None
        for place in places:
            try:
                node = self._copy(place, pointer)
            except NodeError as error:
                copy = BadCopy(place.devid, self._zone(place), place.stripe, error.why)
                bad.append((copy, place.offset_bytes))
                unknown = unknown or isinstance(error, UnknownPlaceError)
                reason = str(error)
            else:
                found = found or node
        if found is None:
            self.lost.append(LostNode(pointer, tuple(copy for copy, _ in bad), reason, unknown))
            return None
        self.good.add(pointer.logical)
        self.lost_copies += [LostCopy(pointer, copy, at) for copy, at in bad if copy.why != "missing"]
        return found

    def _zone(self, place: Place) -> int | None:
        states = self.zones.get(place.devid)
        return None if states is None else states.zone_of(place.offset_bytes)

    def _copy(self, place: Place, pointer: NodePointer) -> bytes:
        """One copy, whose items lie inside it too.

        Raises:
            NodeError: it cannot be used.
        """
        states = self.zones.get(place.devid)
        why = "" if states is None else states.why_not(place.offset_bytes, self.rules.nodesize)
        if why:
            where = "lies above the write pointer" if why == "above-wp" else f"is in a zone that is {why}"
            raise NodeError(f"the node at {pointer.logical} {where}", why)
        node = self.reader.copy(place, self.rules, pointer)
        if pointer.level == 0:
            leaf_table(node, pointer.logical)
        else:
            child_pointers(node, pointer.logical)
        return node
