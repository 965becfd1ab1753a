"""Where the bytes of a file are: its extents, and every copy of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from zoned_tools.formats.btrfs.items import COMPRESSIONS, ItemError
from zoned_tools.formats.btrfs.locate import CopyMap
from zoned_tools.formats.btrfs.nodes import NodeError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.items import Extent
    from zoned_tools.formats.btrfs.mapper.files import FileTree, Found


class ExtentCopy(TypedDict):
    """One copy of a run of an extent, as ``zoned map`` tells it; null where no chunk has the address."""

    logical_bytes: int
    length_bytes: int
    copy: int | None
    devid: int | None
    device: str | None
    zone: int | None
    physical_bytes: int | None
    state: str | None


class ExtentRow(TypedDict):
    """A run of a file's bytes.

    ``logical_bytes`` and ``disk_bytes`` are those of the whole extent on disk, null where nothing is stored there;
    the run begins ``extent_offset_bytes`` into it, decompressed.
    """

    file_offset_bytes: int
    length_bytes: int
    kind: str
    compression: str
    logical_bytes: int | None
    disk_bytes: int | None
    extent_offset_bytes: int
    copies: list[ExtentCopy]


def extents_of(tree: FileTree, found: Found) -> list[ExtentRow]:
    """The extents of a file, holes included.

    Raises:
        FileError: a node or an item of them cannot be used.
    """
    assert found.inode is not None
    copies = CopyMap(tree.fs, tree.lookup.chunks.chunks, tree.zones)
    try:
        return [_row(tree, copies, extent) for extent in tree.extents(found.ref, found.inode.size)]
    except (NodeError, ItemError) as error:
        name = found.path.decode("utf-8", "surrogateescape") or f"inode {found.ref.inode}"
        raise tree.refusal(name, str(error)) from None


def _row(tree: FileTree, copies: CopyMap, extent: Extent) -> ExtentRow:
    stored = bool(extent.disk_bytenr)
    return {
        "file_offset_bytes": extent.file_offset,
        "length_bytes": extent.length,
        "kind": "hole" if extent.kind == "regular" and not stored else extent.kind,
        "compression": COMPRESSIONS[extent.compression],
        "logical_bytes": extent.disk_bytenr if stored else None,
        "disk_bytes": extent.disk_num_bytes if stored else None,
        "extent_offset_bytes": extent.offset,
        "copies": list(_copies(tree, copies, extent)) if stored else [],
    }


def _copies(tree: FileTree, copies: CopyMap, extent: Extent) -> Iterator[ExtentCopy]:
    block = LOGICAL_BLOCK_BYTES
    for row in copies.rows([(extent.disk_bytenr // block, max(extent.disk_num_bytes // block, 1))]):
        where = row.place
        at, index = row.physical_block, row.device_index
        yield {
            "logical_bytes": row.logical_block * block,
            "length_bytes": row.blocks * block,
            "copy": _number(where["copy"]),
            "devid": _number(where["devid"]),
            "device": None if index is None else tree.fs.target.devices[index].path,
            "zone": _number(where["zone"]),
            "physical_bytes": None if at is None else at * block,
            "state": None if where["state"] is None else str(where["state"]),
        }


def _number(value: int | str | None) -> int | None:
    return value if isinstance(value, int) else None
