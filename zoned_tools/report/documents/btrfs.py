"""Documents of ``zoned btrfs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.btrfs.mapper.extents import ExtentRow
    from zoned_tools.formats.btrfs.mapper.files import FileTree, Found
    from zoned_tools.formats.btrfs.mapper.owners import Owners
    from zoned_tools.formats.btrfs.supers import CopyRow, RingRow
    from zoned_tools.formats.btrfs.survey import DeviceSurvey
    from zoned_tools.formats.btrfs.zone_accounts import DeviceRow, ZoneAccounts
    from zoned_tools.formats.contract import Target


class BtrfsSupersDocument(TypedDict):
    """``zoned.btrfs.supers/1``; ``derived``: a raw copy whose zones are derived from the content."""

    schema: Literal["zoned.btrfs.supers/1"]
    device: str
    model: str
    derived: bool
    zone_size_bytes: int | None
    rings: list[RingRow]


class BtrfsSuperDocument(BtrfsSupersDocument):
    """The same with one super block in full, by its dump-super names."""

    super_block: dict[str, object]


def btrfs_supers_document(survey: DeviceSurvey) -> BtrfsSupersDocument:
    """Every super block of a device."""
    from zoned_tools.formats.btrfs.supers import ring_as_json

    return {
        "schema": "zoned.btrfs.supers/1",
        "device": survey.device.path,
        "model": str(survey.device.geometry.model),
        "derived": survey.placement.derived,
        "zone_size_bytes": survey.placement.zone_bytes or None,
        "rings": [ring_as_json(mirror) for mirror in survey.mirrors],
    }


def btrfs_super_document(survey: DeviceSurvey, block: bytes) -> BtrfsSuperDocument:
    """Every super block of a device, and one of them in full."""
    from zoned_tools.formats.btrfs.inspect import as_tree

    return {**btrfs_supers_document(survey), "super_block": as_tree(block)}


class BtrfsLatestDocument(TypedDict):
    """``zoned.btrfs.latest/1``; ``kernel_choice`` is null where the kernel finds none."""

    schema: Literal["zoned.btrfs.latest/1"]
    device: str
    mirror: int
    kernel_choice: CopyRow | None


def btrfs_latest_document(device: str, mirror: int, copy: CopyRow | None) -> BtrfsLatestDocument:
    """What the kernel takes for the newest super block."""
    return {"schema": "zoned.btrfs.latest/1", "device": device, "mirror": mirror, "kernel_choice": copy}


class BtrfsZonesDocument(TypedDict):
    """``zoned.btrfs.zones/1``: who owns each zone, and how much of it is in use."""

    schema: Literal["zoned.btrfs.zones/1"]
    fsid: str
    generation: int
    devices: list[DeviceRow]


def btrfs_zones_document(accounts: ZoneAccounts) -> BtrfsZonesDocument:
    """Every zone of every device."""
    return {
        "schema": "zoned.btrfs.zones/1",
        "fsid": str(accounts.block.fsid),
        "generation": accounts.block.generation,
        "devices": accounts.devices,
    }


class BtrfsRollbackDocument(TypedDict):
    """``zoned.btrfs.rollback/1``."""

    schema: Literal["zoned.btrfs.rollback/1"]
    devices: list[str]
    generation: int
    changed: bool
    messages: list[str]
    steps: list[str]


def btrfs_rollback_document(target: Target, generation: int, plan: Plan, *, changed: bool) -> BtrfsRollbackDocument:
    """Going back to an older super block."""
    return {
        "schema": "zoned.btrfs.rollback/1",
        "devices": list(target.paths),
        "generation": generation,
        "changed": changed,
        "messages": plan.messages,
        "steps": list(plan.describe(target.paths)),
    }


# -- files

BTRFS_LIST: Final = "zoned.btrfs.ls/1"


def shown_path(path: bytes) -> str:
    """A path as text; bytes that are no UTF-8 as lone surrogates, as Python has them of file names."""
    return path.decode("utf-8", "surrogateescape")


class BtrfsEntry(TypedDict):
    """A file of ``zoned.btrfs.ls/1``; where ``unread`` says why its inode cannot be read the figures are null.

    ``inode`` counts in the tree ``subvolume``; ``disk_bytes`` is what its extents take; ``mtime`` is in seconds of the
    epoch.
    """

    path: str
    type: str
    subvolume: int
    inode: int
    size_bytes: int | None
    disk_bytes: int | None
    mode: str | None
    uid: int | None
    gid: int | None
    nlink: int | None
    mtime: float | None
    target: str | None
    unread: str


def btrfs_entry(found: Found) -> BtrfsEntry:
    """One file."""
    inode = found.inode
    return {
        "path": shown_path(found.path),
        "type": found.kind,
        "subvolume": found.ref.tree,
        "inode": found.ref.inode,
        "size_bytes": None if inode is None else inode.size,
        "disk_bytes": None if inode is None else inode.nbytes,
        "mode": None if inode is None else f"{inode.mode:o}",
        "uid": None if inode is None else inode.uid,
        "gid": None if inode is None else inode.gid,
        "nlink": None if inode is None else inode.nlink,
        "mtime": None if inode is None else inode.mtime,
        "target": None if found.target is None else shown_path(found.target),
        "unread": found.reason,
    }


class BtrfsListDocument(TypedDict):
    """``zoned.btrfs.ls/1``, written piece by piece."""

    schema: Literal["zoned.btrfs.ls/1"]
    fsid: str
    generation: int
    entries: list[BtrfsEntry]


class BtrfsExtentsDocument(TypedDict):
    """``zoned.btrfs.extents/1``: where the bytes of a file are."""

    schema: Literal["zoned.btrfs.extents/1"]
    fsid: str
    generation: int
    path: str | None
    subvolume: int
    inode: int
    size_bytes: int
    extents: list[ExtentRow]


def btrfs_extents_document(tree: FileTree, found: Found, rows: list[ExtentRow]) -> BtrfsExtentsDocument:
    """The extents of one file."""
    assert found.inode is not None
    return {
        "schema": "zoned.btrfs.extents/1",
        "fsid": str(tree.block.fsid),
        "generation": tree.block.generation,
        "path": shown_path(found.path) or None,
        "subvolume": found.ref.tree,
        "inode": found.ref.inode,
        "size_bytes": found.inode.size,
        "extents": rows,
    }


class BtrfsZoneRow(TypedDict):
    """A zone that was asked for."""

    devid: int
    zone: int
    condition: str


class BtrfsTreeRow(TypedDict):
    """A tree with nodes in the zones; no other zone holds a good copy of ``alone_nodes``."""

    tree: int
    name: str | None
    nodes: int
    alone_nodes: int


class BtrfsFileRow(TypedDict):
    """A file with extents in the zones; no other zone holds a copy of ``alone_bytes``. Null: its path is lost."""

    path: str | None
    subvolume: int
    inode: int
    bytes: int
    alone_bytes: int


class BtrfsFilesDocument(TypedDict):
    """``zoned.btrfs.files/1``; files below ``unread_nodes`` are not listed."""

    schema: Literal["zoned.btrfs.files/1"]
    fsid: str
    generation: int
    zones: list[BtrfsZoneRow]
    trees: list[BtrfsTreeRow]
    files: list[BtrfsFileRow]
    unread_nodes: int


def btrfs_files_document(tree: FileTree, owners: Owners) -> BtrfsFilesDocument:
    """What zones hold."""
    from zoned_tools.formats.btrfs.mapper.owners import zone_condition
    from zoned_tools.formats.btrfs.names import TREE_NAMES

    zones: Sequence[tuple[int, int]] = owners.zones
    return {
        "schema": "zoned.btrfs.files/1",
        "fsid": str(tree.block.fsid),
        "generation": tree.block.generation,
        "zones": [
            {"devid": devid, "zone": zone, "condition": zone_condition(tree.zones[devid], zone)}
            for devid, zone in zones
        ],
        "trees": [
            {"tree": one.tree, "name": TREE_NAMES.get(one.tree), "nodes": one.nodes, "alone_nodes": one.alone}
            for one in owners.trees
        ],
        "files": [
            {
                "path": None if one.path is None else shown_path(one.path),
                "subvolume": one.ref.tree,
                "inode": one.ref.inode,
                "bytes": one.bytes,
                "alone_bytes": one.alone_bytes,
            }
            for one in owners.files
        ],
        "unread_nodes": owners.unread,
    }
