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
from zoned_tools.formats.contract import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def own_devices(name: str, directory: Path) -> list[Path]:
    """The devices of a vector of block groups, for a test to change."""
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
