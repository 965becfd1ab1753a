"""The zone table of a raw copy of a zoned btrfs: its super blocks tell the size of the zones, their rings what is full.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``), section 6 of ``btrfs-zoned.md``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneType
from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.btrfs.copies import read_block
from zoned_tools.formats.btrfs.layout import parse
from zoned_tools.formats.btrfs.open import Mirror, Placement, locate
from zoned_tools.formats.btrfs.ring import Fill
from zoned_tools.formats.shared.derived import Bounds, DerivedZones, ZoneWishes, zones_by_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.contract import Target

CERTAIN = ("zone size", "number of zones", "mode of each mirror", "states of the rings")
ESTIMATED = ("write pointers of other zones",)
_ESTIMATED_IN_PLACE = ("number of conventional zones", *ESTIMATED)


def derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    """The zone table of each device that is a raw copy: it has super blocks where only zoned drives have them.

    Raises:
        RefusedError: the wishes contradict the super blocks.
        MetadataError: the user says that it is one, and no super block tells the size of its zones.
    """
    rows: list[DerivedZones | None] = []
    for number, device in enumerate(target.devices):
        placement = None if device.geometry.is_zoned or target.start_bytes else locate(device)
        if placement is not None and placement.derived:
            rows.append(_zones(device, placement, wishes, wishes.conventional_of(number)))
            continue
        if wishes.insisted and placement is not None and len(target.devices) == 1:
            raise MetadataError("not a raw copy of a zoned drive with btrfs on it", device=device.path)
        rows.append(None)
    return rows


def _zones(device: Device, placement: Placement, wishes: ZoneWishes, wish: int | None) -> DerivedZones:
    if wishes.zone_bytes not in (0, placement.zone_bytes):
        raise RefusedError(
            f"zones of {wishes.zone_bytes} bytes contradict the super blocks, which say {placement.zone_bytes}",
            device=device.path,
        )
    nr_zones = -(-device.geometry.size_bytes // placement.zone_bytes)
    in_place = _first_is_in_place(device, placement)
    if in_place is None:
        bounds = Bounds.choose(0, nr_zones, 0, wish, device.path)
    else:
        bounds = Bounds.choose(int(in_place), nr_zones if in_place else 0, int(in_place), wish, device.path)
    estimated = ESTIMATED if in_place is False else _ESTIMATED_IN_PLACE
    finish = partial(_with_rings, placement, bounds.used)
    return zones_by_content(device, placement.zone_bytes, bounds, CERTAIN, estimated, finish)


def _first_is_in_place(device: Device, placement: Placement) -> bool | None:
    """Whether mirror 0 is overwritten at the start of a conventional zone; None where it could be either.

    A ring with a single super block has the one that mkfs wrote; one in place is overwritten by every commit. A kernel
    makes the UUID tree with its first commit.
    """
    mirror = placement.mirror(0)
    if mirror is None or mirror.pair is None:
        return None
    counts = [zone.written_slots if zone.fill is not Fill.FULL else zone.slots for zone in mirror.pair]
    if counts != [1, 0]:
        return False
    block = read_block(device, 0)
    if block is None:
        return None
    return True if parse(block).uuid_tree_generation else None


def _with_rings(placement: Placement, conventional: int, table: ZoneTable) -> ZoneTable:
    """The same with the zones of the rings as their super blocks tell them."""
    for mirror in placement.mirrors:
        _set_ring(table, mirror, conventional)
    return table


def _set_ring(table: ZoneTable, mirror: Mirror, conventional: int) -> None:
    for zone in mirror.pair or ():
        row = table[zone.zone : zone.zone + 1]
        if zone.zone < conventional or row["type"][0] == ZoneType.CONVENTIONAL:
            continue
        length = int(row["length_sectors"][0])
        if mirror.capacity_known:
            row["capacity_sectors"] = min(zone.capacity_bytes // SECTOR_BYTES, length)
        if zone.fill is Fill.FULL:
            row["condition"], row["wp_sector"] = ZoneCondition.FULL, row["start_sector"][0] + length
        elif zone.fill is Fill.EMPTY:
            row["condition"], row["wp_sector"] = ZoneCondition.EMPTY, row["start_sector"][0]
        elif zone.wp_bytes is not None:
            row["condition"], row["wp_sector"] = ZoneCondition.CLOSED, zone.wp_bytes // SECTOR_BYTES
