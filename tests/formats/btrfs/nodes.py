"""Editing tree nodes of images behind their backs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.archives import unpack
from tests.formats.btrfs.images import VECTORS, poke
from zoned_tools.device.image import open_image
from zoned_tools.formats.btrfs.checksum import seal
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.btrfs.nodes import NODE_HEADER_BYTES, NodeRules, leaf_table
from zoned_tools.formats.btrfs.survey import survey_file_system
from zoned_tools.formats.btrfs.tree_survey import survey_trees
from zoned_tools.formats.btrfs.walk import TreeWalk
from zoned_tools.formats.contract import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def own_devices(name: str, directory: Path) -> list[Path]:
    """The devices of a vector of block groups, for a test to change."""
    directory.mkdir(exist_ok=True)
    unpack(VECTORS / f"{name}.tar.xz", directory)
    found = [path for path in (directory / "disk.img", directory / "disk2.img") if path.exists()]
    for path in found:
        path.chmod(0o644)
        zones = path.with_name(f"{path.name}.zones")
        if zones.exists():
            zones.chmod(0o644)
    return found


def edit_root(images: Sequence[Path], tree: int, edit: Callable[[bytearray], None], *, copies: int = 2) -> int:
    """Change the root node of a tree, which is a leaf, in its first copies, checksum renewed; its address."""
    with ExitStack() as stack:
        drives = tuple(stack.enter_context(open_image(str(image))) for image in images)
        fs = survey_file_system(Target(NAME, drives))
        block = fs.newest
        assert block is not None
        trees = survey_trees(fs.reader, block, fs.zone_states(block))
        [root] = [root.pointer for root in trees.roots if root.pointer.tree == tree]
        assert root.level == 0
        places = trees.walk.chunks.copies(root.logical, block.nodesize)[:copies]
        numbers = {devid: drives.index(device) for devid, device in fs.reader.devices.items()}
        node = bytearray(fs.reader.copy(places[0], NodeRules.of(block), root))
    edit(node)
    for place in places:
        poke(images[numbers[place.devid]], place.offset_bytes, seal(bytes(node), block.csum_type))
    return root.logical


def edit_leaves(images: Sequence[Path], tree: int, edit: Callable[[bytearray], None]) -> int:
    """Change every leaf of a tree in all its copies, checksums renewed; how many there are."""
    changed: list[tuple[Path, int, bytes]] = []
    count = 0
    with ExitStack() as stack:
        drives = tuple(stack.enter_context(open_image(str(image))) for image in images)
        fs = survey_file_system(Target(NAME, drives))
        block = fs.newest
        assert block is not None
        chunks = fs.reader.chunk_map(block)
        walk = TreeWalk(fs.reader, chunks, NodeRules.of(block), fs.zone_states(block))
        trees = survey_trees(fs.reader, block, fs.zone_states(block))
        [root] = [root.pointer for root in trees.roots if root.pointer.tree == tree]
        numbers = {devid: drives.index(device) for devid, device in fs.reader.devices.items()}
        for leaf in walk.leaves(root):
            count += 1
            logical = int.from_bytes(leaf[0x30:0x38], "little")
            node = bytearray(leaf)
            edit(node)
            sealed = seal(bytes(node), block.csum_type)
            places = chunks.copies(logical, block.nodesize)
            changed += [(images[numbers[place.devid]], place.offset_bytes, sealed) for place in places]
    for image, at, raw in changed:
        poke(image, at, raw)
    return count


def item_places(node: bytes | bytearray, kind: int) -> list[tuple[int, int]]:
    """Where keys and bytes of a leaf's items of one type are."""
    table = leaf_table(bytes(node), 0)
    rows = [number for number, row in enumerate(table) if row["type"] == kind]
    return [
        (
            NODE_HEADER_BYTES + number * table.dtype.itemsize,
            NODE_HEADER_BYTES + int(table["data_offset"][number]),
        )
        for number in rows
    ]
