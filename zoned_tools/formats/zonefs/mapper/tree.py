"""The files of a zonefs volume, computed for all zones at once.

Follows ``zonefs_init_zgroups`` and ``zonefs_get_zgroup_inodes`` in ``fs/zonefs/super.c``:
which zones make a file, what it is called, and what ``stat`` and ``statfs`` show.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from zoned_tools.device.runs import run_starts
from zoned_tools.device.zones import (
    SECTOR_BYTES,
    BoolArray,
    IntArray,
    ZoneCondition,
    ZoneTable,
    has_condition,
    is_conventional,
    written_sectors,
)
from zoned_tools.formats.zonefs.constants import ACCESS_MASK, GROUPS, NAME_MAX_BYTES

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.open import Volume

STATFS_TYPE = 0x5A4F4653


@dataclass(slots=True)
class FileGroup:
    """The files of one directory; arrays have one element a file, in name order ("0", "1", ...).

    Attributes:
        name: ``cnv`` or ``seq``.
        zone: first zone of each file, counted from the volume's first; also its inode number.
        zone_count: zones of each file; more than one only for aggregated conventional zones.
        start_bytes: where the content begins on the device.
        capacity_bytes: the largest size that a file can have.
        size_bytes: size now.
        condition: condition of the zone, or of the worst zone of an aggregated file.
        mode: ``st_mode``, file type included.
    """

    name: str
    zone: IntArray
    zone_count: IntArray
    start_bytes: IntArray
    capacity_bytes: IntArray
    size_bytes: IntArray
    condition: IntArray
    mode: IntArray

    def __len__(self) -> int:
        return len(self.zone)

    @property
    def sequential(self) -> bool:
        return self.name == "seq"

    @property
    def dead(self) -> BoolArray:
        """Files that nobody may read or write: their zone was read-only or offline at mount."""
        mask: BoolArray = np.isin(self.condition, (ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE))
        return mask


class StatFsRow(TypedDict):
    """What ``statfs`` shows, as in the documents."""

    type: str
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namemax: int
    fsid: str


@dataclass(frozen=True, slots=True)
class StatFs:
    """What ``statfs`` shows; ``blocks`` count ``bsize`` bytes."""

    bsize: int
    blocks: int
    bfree: int
    files: int
    fsid: int

    def as_json(self) -> StatFsRow:
        """As in the ``zoned.zonefs.ls/1`` schema; ``fsid`` as ``stat -f`` prints it."""
        return {
            "type": f"{STATFS_TYPE:x}",
            "bsize": self.bsize,
            "blocks": self.blocks,
            "bfree": self.bfree,
            "bavail": self.bfree,
            "files": self.files,
            "ffree": 0,
            "namemax": NAME_MAX_BYTES,
            "fsid": f"{(self.fsid & 0xFFFFFFFF) << 32 | self.fsid >> 32:x}",
        }


def build_groups(volume: Volume, super_block: SuperBlock) -> dict[str, FileGroup]:
    """The directories that exist, in the order ``cnv``, ``seq``; empty groups are left out."""
    table = volume.table
    conventional = is_conventional(table)
    sequential = ~conventional
    conventional[0] = sequential[0] = False  # the super block's zone is no file
    groups = {}
    for name, chosen in zip(GROUPS, (conventional, sequential), strict=True):
        zones = np.flatnonzero(chosen)
        if not len(zones):
            continue
        aggregated = name == "cnv" and super_block.aggregated
        first = run_starts(zones) if aggregated else np.arange(len(zones))
        groups[name] = _make_group(name, volume, zones, first, super_block)
    return groups


def _make_group(name: str, volume: Volume, zones: IntArray, first: IntArray, super_block: SuperBlock) -> FileGroup:
    members = volume.table[zones]
    capacity = np.add.reduceat(_bytes(members["capacity_sectors"]), first)
    offline = np.logical_or.reduceat(has_condition(members, ZoneCondition.OFFLINE), first)
    read_only = np.logical_or.reduceat(has_condition(members, ZoneCondition.READ_ONLY), first) & ~offline
    condition = members["condition"][first].astype(np.int64)
    condition[read_only] = ZoneCondition.READ_ONLY
    condition[offline] = ZoneCondition.OFFLINE
    size = np.where(offline, 0, capacity) if name == "cnv" else sequential_sizes(members)
    perm = super_block.file_perm
    mode = np.where(read_only | offline, perm & ~ACCESS_MASK, perm) | stat.S_IFREG
    return FileGroup(
        name=name,
        zone=zones[first].astype(np.int64),
        zone_count=np.diff(np.append(first, len(zones))),
        start_bytes=_bytes(members["start_sector"])[first],
        capacity_bytes=capacity,
        size_bytes=size.astype(np.int64),
        condition=condition,
        mode=mode.astype(np.int64),
    )


def _bytes(sectors: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> IntArray:
    return sectors.astype(np.int64) * SECTOR_BYTES


def sequential_sizes(table: ZoneTable) -> IntArray:
    """File sizes of sequential zones as at mount: the write pointer counts only where it is valid."""
    written = np.clip(written_sectors(table), 0, None) * SECTOR_BYTES
    sizes: IntArray = np.minimum(written, _bytes(table["capacity_sectors"]))
    return sizes


def make_statfs(volume: Volume, super_block: SuperBlock, groups: dict[str, FileGroup]) -> StatFs:
    """Totals over all files, offline and read-only ones included."""
    block_bytes = volume.block_bytes
    total = sum(int(g.capacity_bytes.sum()) for g in groups.values()) // block_bytes
    used = sum(int(g.size_bytes.sum()) for g in groups.values()) // block_bytes
    return StatFs(
        bsize=block_bytes,
        blocks=total,
        bfree=total - used,
        files=sum(len(g) + 1 for g in groups.values()),
        fsid=super_block.fsid,
    )
