"""Create and wipe: byte for byte what the reference writes, after refusing what it would corrupt."""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.device.runs import runs
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import GeometryError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, BLOCK_SECTORS, GROUP_ZONES, ZONE_BLOCKS, CreateLayout, Geometry
from zoned_tools.formats.zdm.settings import GC_STATES
from zoned_tools.formats.zdm.superblock import SuperBlock
from zoned_tools.formats.zdm.volume import (
    Volume,
    data_zones,
    metadata_zone_refusal,
    partition_sectors,
    zone_size_refusal,
)

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Settings, Target

SEQUENTIAL_METADATA_STATUS = 4
"""Exit status of the original when the zones for metadata require sequential writes."""

_MIB_SECTORS = 2048
_MORE_ZONES = 8
"""Zones of a partition beside its tables that make the reference's parts disagree, generously."""


@dataclass(frozen=True, slots=True)
class Place:
    """A partition to be formatted: where it is on the device, and on the drive."""

    device: Device
    offset_bytes: int
    start_sector: int
    size_sectors: int

    @property
    def volume(self) -> Volume:
        return Volume(self.device, self.offset_bytes, self.start_sector, self.size_sectors // BLOCK_SECTORS)


def place_of(device: Device, start_sector: int, *, own_node: bool = False) -> Place:
    """The partition that begins at ``start_sector``; ``own_node`` when the device is the partition itself.

    Raises:
        GeometryError: the start is not on the device.
    """
    size = device.geometry.size_bytes
    if own_node:
        return Place(device, 0, start_sector, size // SECTOR_BYTES)
    start_bytes = start_sector * SECTOR_BYTES
    if start_bytes >= size:
        raise GeometryError(f"start sector {start_sector} is behind the end of the device", device=device.path)
    return Place(device, start_bytes, start_sector, partition_sectors(device, start_bytes))


def identity_for(
    place: Place, reserved: int, template: SuperBlock | None = None, uuid: uuids.UUID | None = None
) -> SuperBlock:
    """The identity that create writes; ``template`` carries the user's options."""
    created = CreateLayout.compute(place.start_sector, place.size_sectors, reserved)
    blank = template or SuperBlock(NIL_UUID, 0, 0, 0, 0)
    return replace(
        blank,
        uuid=uuid or uuids.uuid4(),
        sect_start=place.start_sector,
        sect_size=place.size_sectors,
        mz_over_provision=reserved - 3,
        zdm_blocks=created.logical_sectors % (1 << 64),
        data_start=created.data_start_zone,
    )


def check_place(place: Place, reserved: int) -> tuple[Geometry, CreateLayout]:
    """Geometry of a new ZDM.

    Raises:
        GeometryError: the reference would corrupt it, it does not fit, or the drive does not suit; the hint names a
            start and number of zones inside the place that would do, where there are any.
    """
    try:
        return _geometry_of(place, reserved)
    except GeometryError as error:
        better = None if error.hint else working_place(place, reserved)
        if better is None:
            raise
        zones = better.size_sectors // layout.ZONE_SECTORS
        hint = f"{zones} zones from sector {better.start_sector} on work"
        raise GeometryError(error.message, device=error.device, hint=hint, clone_status=error.clone_status) from None


def working_place(place: Place, reserved: int) -> Place | None:
    """The largest part of a place in which a ZDM can be; None where there is none.

    It begins where the place does, at one of the next two multiples of 1 MiB, as partitioning tools have them, or of
    zones; and ends where the place does, or has whole zones.
    """
    steps = (_MIB_SECTORS, layout.ZONE_SECTORS)
    skips = sorted({0} | {-place.start_sector % step + more for step in steps for more in (0, step)})
    found = [one for skip in skips if (one := _shortened(place, skip, reserved)) is not None]
    return max(found, key=lambda one: one.size_sectors, default=None)


def _shortened(place: Place, skip: int, reserved: int) -> Place | None:
    """What works from ``skip`` sectors on; the two parts of the reference disagree on some sizes just above others."""
    rest = place.size_sectors - skip
    most = rest // layout.ZONE_SECTORS
    # as many zones as tables take up at most, beside those that both parts count in front of them
    fewest = max(0, most - 2 * (most // GROUP_ZONES + 1) - _MORE_ZONES)
    offset, start = place.offset_bytes + skip * SECTOR_BYTES, place.start_sector + skip
    for size in (rest, *range(most * layout.ZONE_SECTORS, fewest * layout.ZONE_SECTORS, -layout.ZONE_SECTORS)):
        smaller = Place(place.device, offset, start, size)
        try:
            _geometry_of(smaller, reserved)
        except GeometryError:
            continue
        return smaller
    return None


def _geometry_of(place: Place, reserved: int) -> tuple[Geometry, CreateLayout]:
    """What :func:`check_place` gives, without a hint.

    Raises:
        GeometryError: it cannot be.
    """
    path = place.device.path
    unsuitable = zone_size_refusal(place.device)
    if unsuitable:
        raise GeometryError(unsuitable, device=path)
    if place.size_sectors < layout.ZEROED_BLOCKS * BLOCK_SECTORS:
        raise GeometryError(f"{place.size_sectors} sectors are too few for a ZDM", device=path)
    created = CreateLayout.compute(place.start_sector, place.size_sectors, reserved)
    geometry = Geometry.compute(
        place.start_sector, place.size_sectors // BLOCK_SECTORS, created.data_start_zone, device=path
    )
    refused = layout.refusal(geometry, created)
    if refused:
        raise GeometryError(refused, device=path)
    most = (geometry.data_zones - 2) * layout.ZONE_SECTORS
    if not 0 < created.logical_sectors <= most:
        raise GeometryError(
            f"the logical device would have {created.logical_sectors} sectors (1 to {most} are possible): "
            f"{reserved} zones of each 1024 are reserved of {geometry.data_zones} data zones",
            device=path,
        )
    sequential = metadata_zone_refusal(place.volume, geometry)
    if sequential:
        raise GeometryError(sequential, device=path, clone_status=SEQUENTIAL_METADATA_STATUS)
    return geometry, created


def plan_format(target: Target, settings: Settings) -> Plan:
    """Create a ZDM at ``target.start_bytes`` as the settings say.

    Raises:
        GeometryError: see :func:`check_place`.
    """
    place = place_of(target.device, target.start_bytes // SECTOR_BYTES)
    bits = {layout.DISCARD_TRIM: settings.on("trim"), layout.DISCARD_RAID: settings.on("raid-trim")}
    template = SuperBlock(
        NIL_UUID,
        0,
        0,
        0,
        0,
        label=settings.text("label"),
        discard=sum(bit for bit, wanted in bits.items() if wanted),
        gc_status=GC_STATES[settings.text("gc") or "on"],
    )
    uuid = uuids.UUID(settings.text("uuid")) if settings.text("uuid") else None
    reserved = settings.number("reserve") or DEFAULT_RESERVED
    return plan_create(place, identity_for(place, reserved, template, uuid))


def plan_create(place: Place, identity: SuperBlock) -> Plan:
    """What create writes: zeroes, empty tables, their CRC pages, and last the identity.

    An old identity goes first, so that a power cut leaves no ZDM rather than half of one.

    Raises:
        GeometryError: see :func:`check_place`.
    """
    check_place(place, identity.reserved)
    return format_plan(place, identity)


def format_plan(place: Place, identity: SuperBlock) -> Plan:
    """The writes of :func:`plan_create` without its refusals."""
    created = CreateLayout.compute(place.start_sector, place.size_sectors, identity.reserved)
    plan = Plan(f"create ZDM {identity.uuid}")
    write_pool(plan, 0, place.offset_bytes, created, identity)
    return plan


def write_pool(plan: Plan, device: int, start: int, created: CreateLayout, identity: SuperBlock) -> None:
    """Steps for the empty metadata of ``created`` and their identity, from byte ``start`` of a device of the plan."""
    table_blocks = 2 * created.table_zones * ZONE_BLOCKS
    pool = start + created.pool_start * BLOCK_BYTES
    plan.fill(device, start, layout.ZEROED_BLOCKS * BLOCK_BYTES, 0, "identity, keys, write pointers")
    plan.flush(device)
    plan.fill(device, pool, table_blocks * BLOCK_BYTES, 0xFFFF, "forward and reverse table")
    crc_start = pool + table_blocks * BLOCK_BYTES
    plan.fill(device, crc_start, created.crc_pages * BLOCK_BYTES, layout.EMPTY_PAGE_CRC, "CRC pages")
    plan.flush(device)
    plan.write(device, start, identity.pack(), "identity super block")
    plan.flush(device)


def write_wipe(plan: Plan, device: int, place: Place) -> None:
    """Steps that zero everything that could be taken for a ZDM."""
    blocks = min(layout.ZEROED_BLOCKS, place.size_sectors // BLOCK_SECTORS)
    plan.fill(device, place.offset_bytes, blocks * BLOCK_BYTES, 0, "identity, keys, write pointers")
    plan.flush(device)


def plan_wipe(place: Place, geometry: Geometry | None, *, reset_zones: bool = False) -> Plan:
    """Zero everything that could be taken for a ZDM: identity, all keys, write pointers.

    The original zeroes 6144 bytes and leaves two of three generation areas alive.
    ``reset_zones`` also empties the data zones of ``geometry``.
    """
    plan = Plan("wipe the ZDM")
    if reset_zones and geometry is not None:
        zones = data_zones(place.volume, geometry)
        used = np.flatnonzero(zones.sequential & ~zones.dead & (zones.wp_blocks > 0))
        for first, end in runs(used):
            plan.manage(0, ZoneOperation.RESET, geometry.first_device_zone + first, end - first, "data zones")
        plan.flush(0)
    write_wipe(plan, 0, place)  # last: without the identity nobody would know any more which zones are meant
    return plan
