"""What commands over drives print: ``zoned list``, ``zoned image``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Geometry
    from zoned_tools.device.inventory import Disk


def list_lines(disks: Sequence[Disk]) -> Iterator[str]:
    """The machine's drives as a table."""
    if not disks:
        yield "no zoned block device on this machine"
        return
    yield "NAME          MODEL         SIZE        ZONE SIZE   ZONES     OPEN  ACTIVE  VENDOR AND MODEL"
    yield from map(_disk_line, disks)


def _disk_line(disk: Disk) -> str:
    zone = format_size(disk.zone_size_bytes) if disk.nr_zones else "-"
    limits = [str(n) if n else "-" for n in (disk.max_open_zones, disk.max_active_zones)]
    return (
        f"{disk.device:<13} {disk.model:<13} {format_size(disk.size_bytes):<11} {zone:<11} "
        f"{disk.nr_zones:<9} {limits[0]:<5} {limits[1]:<7} {disk.vendor}"
    ).rstrip()


def image_lines(path: str, geometry: Geometry, nr_conventional: int) -> Iterator[str]:
    """An emulated drive."""
    if not geometry.is_zoned:
        yield f"{path}: regular, {format_size(geometry.size_bytes)}"
        return
    blocks = f"{geometry.logical_block_bytes}-byte blocks"
    yield f"{path}: {geometry.model}, {format_size(geometry.size_bytes)}, {blocks}"
    zone = format_size(geometry.zone_bytes)
    yield f"  {geometry.nr_zones} zones of {zone}, {nr_conventional} conventional"
    yield (
        f"  {geometry.max_open_zones or 'no limit on'} open, {geometry.max_active_zones or 'no limit on'} active zones"
    )


def import_line(path: str, geometry: Geometry, copied_bytes: int) -> str:
    """An image made of what was saved of a drive."""
    return f"{path}: {geometry.model}, {geometry.nr_zones} zones, {format_size(copied_bytes)} of data imported"


def convert_line(path: str, geometry: Geometry, copied_bytes: int) -> str:
    """An image or zloop directory made of the other."""
    return f"{path}: {geometry.nr_zones} zones, {format_size(copied_bytes)} of data copied"
