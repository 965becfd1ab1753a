"""Making a zonefs volume: every check first, then a plan.

Order of the plan, so that no power cut leaves a super block over data that are half reset:
old signatures in a conventional zone 0 go first, then the sequential zones are reset, and the
new super block is written last. Until then the files of an old volume are still in their zones.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import (
    DEAD_CONDITIONS,
    SECTOR_BYTES,
    Model,
    ZoneCondition,
    ZoneTable,
    has_condition,
    is_conventional,
    is_sequential,
)
from zoned_tools.errors import GeometryError, UsageError
from zoned_tools.formats.zonefs.constants import LABEL_BYTES
from zoned_tools.formats.zonefs.features import FeatureSet
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES, SuperBlock

WIPE_BYTES = 1 << 20
"""How much of a conventional zone 0 is cleared: libblkid finds signatures up to here and calls
a device with two of them ambivalent."""

_TYPE_NAMES = {1: "Conventional", 2: "Sequential-write-required", 3: "Sequential-write-preferred"}
_CONDITION_NAMES = {
    0x0: "Not-write-pointer",
    0x1: "Empty",
    0x2: "Implicit-open",
    0x3: "Explicit-open",
    0x4: "Closed",
    0xD: "Read-only",
    0xE: "Full",
    0xF: "Offline",
}
_MODEL_NAMES = {Model.HOST_MANAGED: "Host-managed", Model.HOST_AWARE: "Host-aware"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a new volume is to be; ``uuid`` None draws a random one."""

    label: bytes = b""
    features: FeatureSet = field(default_factory=FeatureSet)
    uuid: uuid.UUID | None = None

    def super_block(self) -> SuperBlock:
        """The super block: the same bytes for the same parameters.

        Raises:
            UsageError: the label is too long or holds a NUL.
        """
        if len(self.label) > LABEL_BYTES:
            raise UsageError(f"Label too long ({LABEL_BYTES} chars allowed)")
        if b"\0" in self.label:
            raise UsageError("Invalid label")
        return SuperBlock(
            label_bytes=self.label,
            uuid=self.uuid or uuid.uuid4(),
            features=self.features.features,
            uid=self.features.uid,
            gid=self.features.gid,
            perm=self.features.perm,
        )


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


def zone_lines(table: ZoneTable) -> Iterator[str]:
    """What ``-v`` prints of each zone."""
    columns = ("type", "condition", "start_sector", "length_sectors", "wp_sector")
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    for zone, (kind, condition, start, length, wp) in enumerate(rows):
        type_name = _TYPE_NAMES.get(kind, "Unknown-type")
        if condition == ZoneCondition.READ_ONLY:
            yield f"Zone {zone:05}: readonly {type_name} zone"
        elif condition == ZoneCondition.OFFLINE:
            yield f"Zone {zone:05}: offline {type_name} zone"
        elif kind == 1:
            yield f"Zone {zone:05}: Conventional, sector {start}, {length} sectors"
        else:
            condition_name = _CONDITION_NAMES.get(condition, "Unknown-condition")
            yield (
                f"Zone {zone:05}: type {kind:#x} ({type_name}), cond {condition:#x} ({condition_name}), "
                f"sector {start}, {length} sectors, wp sector {wp}"
            )


def summary_lines(geometry: Geometry, table: ZoneTable, block: SuperBlock, path: str) -> Iterator[str]:
    """The original's description of the device and of the volume."""
    capacity, zone_sectors = geometry.size_bytes // SECTOR_BYTES, geometry.zone_bytes // SECTOR_BYTES
    conventional = int(np.count_nonzero(is_conventional(table)))
    read_only = int(np.count_nonzero(has_condition(table, ZoneCondition.READ_ONLY)))
    offline = int(np.count_nonzero(has_condition(table, ZoneCondition.OFFLINE)))
    yield f"{path}: {capacity} 512-byte sectors ({geometry.size_bytes >> 30} GiB)"
    yield f"  {_MODEL_NAMES[geometry.model]} device"
    yield f"  {capacity // zone_sectors} zones of {zone_sectors} 512-byte sectors ({geometry.zone_bytes >> 20} MiB)"
    if capacity % zone_sectors:
        runt = capacity % zone_sectors
        yield f"  1 runt zone of {runt} 512-byte sectors ({runt * SECTOR_BYTES >> 20} MiB)"
    yield f"  {conventional} conventional zones, {len(table) - conventional} sequential zones"
    yield f"  {read_only} read-only zones, {offline} offline zones"
    yield "Format:"
    yield f"  {len(table) - offline - 1} usable zones"
    yield f"  Aggregate conventional zones: {'enabled' if block.aggregated else 'disabled'}"
    yield f"  File UID: {block.uid}"
    yield f"  File GID: {block.gid}"
    yield f"  File access permissions: {block.perm:o}"
    if block.label:
        yield f"  FS label: {block.label_text}"
    yield f"  FS UUID: {block.uuid}"


def plan_format(device: Device, table: ZoneTable, block: SuperBlock, *, zone_by_zone: bool = False) -> Plan:
    """Everything that is written, in order; ``zone_by_zone`` for device-mapper devices.

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
    plan.write(0, 0, block.encode() + bytes(-SUPER_BLOCK_BYTES % unit), "super block")
    if not conventional:
        plan.manage(0, ZoneOperation.FINISH, 0, note="close the super block's zone")
    plan.flush(0)
