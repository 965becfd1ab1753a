"""Making a zonefs volume: every check first, then a plan.

Order of the plan, so that no power cut leaves a super block over data that are half reset:
old signatures in a conventional zone 0 go first, then the sequential zones are reset, and the
new super block is written last. Until then the files of an old volume are still in their zones.
"""

from __future__ import annotations

import errno
import os
import uuid
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.block import BlockDevice
from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import (
    DEAD_CONDITIONS,
    SECTOR_BYTES,
    ZoneCondition,
    ZoneTable,
    has_condition,
    is_conventional,
    is_sequential,
)
from zoned_tools.errors import GeometryError
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES, SuperBlock
from zoned_tools.formats.zonefs.open import open_volume
from zoned_tools.formats.zonefs.parameters import with_settings

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Settings, Target

WIPE_BYTES = 1 << 20
"""How much of a conventional zone 0 is cleared: libblkid finds signatures up to here and calls
a device with two of them ambivalent."""


def plan_format(target: Target, settings: Settings) -> Plan:
    """Plan a new volume with the parameters that ``settings`` give.

    Raises:
        GeometryError: the drive cannot carry a volume, or its zone 0 no super block.
    """
    volume = open_volume(target)
    device, table = volume.device, volume.table
    check_zones(device.geometry, table, device.path)
    check_usable(table, device.path)
    zone_by_zone = resets_zone_by_zone(device)
    if zone_by_zone:
        check_resets(table, device.path)
    block = with_settings(SuperBlock(uuid=uuid.uuid4()), settings)
    return plan_volume(device, table, block, zone_by_zone=zone_by_zone)


def resets_zone_by_zone(device: Device) -> bool:
    """Whether this is a device-mapper device, which does not reset many zones with one request."""
    return isinstance(device, BlockDevice) and bool(device.sysfs.mapper_name)


def check_zones(geometry: Geometry, table: ZoneTable, path: str) -> None:
    """Refuse a zone table that does not make up the device.

    Raises:
        GeometryError: with the original's message.
    """
    name = os.path.basename(path)
    zone_sectors = geometry.zone_bytes // SECTOR_BYTES
    capacity_sectors = geometry.size_bytes // SECTOR_BYTES
    ends = table["start_sector"] + table["length_sectors"]
    odd = np.flatnonzero((table["length_sectors"] != zone_sectors) & (ends != capacity_sectors))
    if len(odd):
        raise GeometryError(f"{name}: Invalid zone {int(odd[0])} size")
    if not len(table) or int(ends[-1]) != capacity_sectors:
        end = int(ends[-1]) if len(table) else 0
        raise GeometryError(f"{name}: Invalid zones (last sector reported is {end}, expected {capacity_sectors})")
    if len(table) != -(-capacity_sectors // zone_sectors):
        raise GeometryError(f"{name}: Invalid number of zones ({len(table)})")


def check_usable(table: ZoneTable, path: str) -> None:
    """Refuse a device without room for files, or whose zone 0 cannot take a super block.

    Raises:
        GeometryError: no usable zone, or zone 0 is read-only or offline. (The original finds the
            latter out after it has reset every other zone.)
    """
    offline = int(np.count_nonzero(has_condition(table, ZoneCondition.OFFLINE)))
    if offline >= len(table) - 1:
        raise GeometryError("No useable zones")
    if has_condition(table[:1], *DEAD_CONDITIONS)[0]:
        state = "offline" if table["condition"][0] == ZoneCondition.OFFLINE else "read-only"
        raise GeometryError(f"{os.path.basename(path)}: Zone 0 is {state}, the super block cannot be written")


def check_resets(table: ZoneTable, path: str) -> None:
    """Refuse a device-mapper device whose zones cannot all be reset one by one.

    Raises:
        GeometryError: with the message that the original gives after it reset the zones before.
    """
    dead = np.flatnonzero(is_sequential(table) & has_condition(table, *DEAD_CONDITIONS))
    if len(dead):
        number, text = errno.EIO, os.strerror(errno.EIO)
        raise GeometryError(f"{os.path.basename(path)}: Reset zone {int(dead[0])} failed {number} ({text})")


def plan_volume(device: Device, table: ZoneTable, block: SuperBlock, *, zone_by_zone: bool = False) -> Plan:
    """Everything that is written, in order; ``zone_by_zone`` for devices that :func:`resets_zone_by_zone`.

    The device and its table have passed :func:`check_zones` and :func:`check_usable`.
    """
    plan = Plan("make a zonefs file system")
    conventional = bool(is_conventional(table[:1])[0])
    if conventional:
        length = min(WIPE_BYTES, int(table["length_sectors"][0]) * SECTOR_BYTES)
        plan.fill(0, 0, length, 0, "clear old signatures")
        plan.flush(0)
    sequential = np.flatnonzero(is_sequential(table))
    if zone_by_zone:
        for zone in sequential.tolist():
            plan.manage(0, ZoneOperation.RESET, zone)
    elif len(sequential):
        plan.manage(0, ZoneOperation.RESET, 0, len(table), "reset sequential zones")
    plan.flush(0)
    plan_super_block(plan, device, block, conventional=conventional)
    return plan


def plan_super_block(plan: Plan, device: Device, block: SuperBlock, *, conventional: bool) -> None:
    """Write a super block; a sequential zone 0 (empty by then) is finished, so that nothing can follow it."""
    geometry = device.geometry
    unit = geometry.logical_block_bytes if conventional else geometry.write_granularity_bytes
    plan.write(0, 0, block.pack() + bytes(-SUPER_BLOCK_BYTES % unit), "super block")
    if not conventional:
        plan.manage(0, ZoneOperation.FINISH, 0, note="close the super block's zone")
    plan.flush(0)
