"""Files with the NODATACOW attribute, which zoned mode cannot honour."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.nodes import ROOT_ITEM, ROOT_ITEM_TYPE, NodeError, NodeRules

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.trees import TreeReader

_FS_TREE = 5
_FIRST_SUBVOLUME = 256
_LAST_SUBVOLUME = 2**64 - 256
_INODE_ITEM_TYPE = 1
_INODE_FLAGS = struct.Struct("<Q")
_INODE_FLAGS_OFFSET = 64
_NODATACOW = 1 << 1


def count_nodatacow(reader: TreeReader, block: SuperBlock) -> int:
    """Inodes with the attribute in all subvolumes; trees that cannot be read are left out."""
    try:
        chunks, rules = reader.chunk_map(block), NodeRules.of(block)
        roots = [
            ROOT_ITEM.parse(item.data)
            for item in reader.items(chunks, rules, block.root, block.generation, block.root_level)
            if item.type == ROOT_ITEM_TYPE and _is_subvolume(item.objectid) and len(item.data) >= ROOT_ITEM.sizeof()
        ]
    except NodeError:
        return 0
    count = 0
    for root in roots:
        try:
            for item in reader.items(chunks, rules, root.bytenr, root.generation, root.level):
                if item.type == _INODE_ITEM_TYPE and len(item.data) >= _INODE_FLAGS_OFFSET + _INODE_FLAGS.size:
                    flags = _INODE_FLAGS.unpack_from(item.data, _INODE_FLAGS_OFFSET)[0]
                    count += bool(flags & _NODATACOW)
        except NodeError:
            continue
    return count


def _is_subvolume(objectid: int) -> bool:
    return objectid == _FS_TREE or _FIRST_SUBVOLUME <= objectid <= _LAST_SUBVOLUME
