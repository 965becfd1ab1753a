"""The block devices of this machine, from sysfs alone: nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.sysfs import BlockSysfs, read_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Disk:
    """One whole disk as sysfs describes it; limits of 0 mean none."""

    device: str
    model: str
    size_bytes: int
    zone_size_bytes: int
    nr_zones: int
    logical_block_bytes: int
    max_open_zones: int
    max_active_zones: int
    vendor: str
    holders: list[str]


def list_disks() -> Iterator[Disk]:
    """Every whole disk with a medium, in name order."""
    for disk in BlockSysfs.all_disks():
        size = read_attribute(disk.directory / "size")
        if not size.isdigit() or size == "0":
            continue
        queue = disk.queue
        zoned = queue.text("zoned", "none")
        is_zoned = zoned != "none"
        yield Disk(
            device=f"/dev/{disk.name.replace('!', '/')}",
            model=zoned if is_zoned else "regular",
            size_bytes=int(size) * _SECTOR_BYTES,
            zone_size_bytes=queue.number("chunk_sectors") * _SECTOR_BYTES if is_zoned else 0,
            nr_zones=queue.number("nr_zones") if is_zoned else 0,
            logical_block_bytes=queue.number("logical_block_size"),
            max_open_zones=queue.number("max_open_zones"),
            max_active_zones=queue.number("max_active_zones"),
            vendor=disk.vendor_text,
            holders=disk.holders,
        )
