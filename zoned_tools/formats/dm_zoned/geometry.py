"""The devices of a target as one row of zones: kinds, conditions, write pointers, and where each zone is.

One *target* is a single zoned device, or a regular device followed by zoned ones. All zones of all members
get consecutive zone ids; ``absolute block = zone id * zone blocks + block in zone`` names every 4096-byte
block of the target. Only arithmetic here; reading is in :mod:`~zoned_tools.formats.dm_zoned.open`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.zones import SECTOR_BYTES, BoolArray, IntArray, Model, ZoneTable, make_table
from zoned_tools.errors import GeometryError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, MetadataLayout, bitmap_blocks_of, ceil_div
from zoned_tools.formats.shared.zones import ZoneFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Geometry


class ZoneKind(IntEnum):
    """The kernel target's word for a zone."""

    CACHE = 0
    """Emulated zone of the regular device of a multi-device target."""
    RANDOM = 1
    """Conventional zone of a zoned device."""
    SEQUENTIAL = 2
    """Sequential zone, write required or preferred."""


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a target.

    ``start_bytes`` is where the target's zones begin on the device, ``block_offset`` the
    absolute block number of its first block, ``size_bytes`` the length from there on.
    """

    index: int
    path: str
    model: Model
    first_zone: int
    nr_zones: int
    block_offset: int
    size_bytes: int
    start_bytes: int = 0

    @property
    def is_zoned(self) -> bool:
        return self.model is not Model.REGULAR


@dataclass(frozen=True)
class TargetGeometry:
    """Zones of all members of a target as arrays indexed by zone id.

    Attributes:
        members: the devices, in order.
        zone_bytes: size of every zone but runt ones.
        kinds: :class:`ZoneKind` of each zone, shape (zones,), uint8.
        preferred: sequential-write-preferred zones (host-aware drives).
        runt: zones shorter than ``zone_bytes`` (the last one of a member).
        read_only, offline: zones in that condition.
        wp_blocks: blocks below the write pointer, -1 where it is undefined (cache and random
            zones, read-only and offline zones); a full zone counts all its blocks.
        not_empty: sequential zones whose write pointer is not at their start.
        missing: zones that the regular device had at format and has not any more; they are ``offline``, too.
        formatted_zones: emulated zones of the regular device at format, None where it has as many still.
        derived: a member is a raw copy: its write pointers are lower bounds.
    """

    members: tuple[Member, ...]
    zone_bytes: int
    kinds: npt.NDArray[np.uint8]
    preferred: BoolArray
    runt: BoolArray
    read_only: BoolArray
    offline: BoolArray
    wp_blocks: IntArray
    not_empty: BoolArray
    missing: BoolArray
    formatted_zones: int | None = None
    derived: bool = False

    @property
    def nr_zones(self) -> int:
        """All zones: runt, read-only and offline ones included."""
        return len(self.kinds)

    @property
    def is_multi(self) -> bool:
        return len(self.members) > 1

    @property
    def nr_cache_zones_now(self) -> int:
        """Emulated zones of the regular device as large as it is."""
        return ceil_div(self.members[0].size_bytes, self.zone_bytes)

    @property
    def zone_blocks(self) -> int:
        return self.zone_bytes // BLOCK_BYTES

    @property
    def zone_sectors(self) -> int:
        return self.zone_bytes // SECTOR_BYTES

    @property
    def bitmap_blocks_per_zone(self) -> int:
        return bitmap_blocks_of(self.zone_blocks)

    @cached_property
    def sequential(self) -> BoolArray:
        mask: BoolArray = self.kinds == ZoneKind.SEQUENTIAL
        return mask

    @cached_property
    def cache(self) -> BoolArray:
        """Zones that may hold metadata and buffers: conventional ones, or the regular device's."""
        wanted = ZoneKind.CACHE if self.is_multi else ZoneKind.RANDOM
        mask: BoolArray = self.kinds == wanted
        return mask

    @cached_property
    def dead(self) -> BoolArray:
        """Zones that cannot be written any more."""
        return self.read_only | self.offline

    @cached_property
    def counted(self) -> BoolArray:
        """Zones that count as usable in the format arithmetic if they are not dead.

        A runt zone of a zoned member never does; the runt emulated zone of a regular device
        does, in the reference tool and in the kernel target.
        """
        mask: BoolArray = ~self.runt | (self.kinds == ZoneKind.CACHE)
        return mask

    @cached_property
    def nr_usable(self) -> int:
        return int(np.count_nonzero(self.counted & (~self.dead | self.missing)))

    @cached_property
    def nr_cache(self) -> int:
        """Cache zones as the format arithmetic counts them."""
        return int(np.count_nonzero(self.cache & self.counted & (~self.dead | self.missing)))

    @cached_property
    def tertiary_zones(self) -> tuple[int, ...]:
        """First zone of each zoned member of a multi-device target: it holds a super block only."""
        return tuple(m.first_zone for m in self.members[1:])

    def zone_length_blocks(self, zone: int) -> int:
        """Blocks of ``zone``, the runt's real length taken into account."""
        member = self.member_of(zone)
        start_bytes = (zone - member.first_zone) * self.zone_bytes
        return min(self.zone_bytes, member.size_bytes - start_bytes) // BLOCK_BYTES

    def member_of(self, zone: int) -> Member:
        """The device that holds ``zone``."""
        for member in reversed(self.members):
            if zone >= member.first_zone:
                return member
        raise IndexError(zone)

    def locate(self, block: int) -> tuple[int, int]:
        """``(device index, byte offset on it)`` of an absolute block."""
        member = self.member_of(block // self.zone_blocks)
        return member.index, member.start_bytes + (block - member.block_offset) * BLOCK_BYTES

    def primary_candidates(self) -> tuple[int, ...]:
        """Zones whose first block may be the primary super block, likeliest first.

        The kernel takes the first usable cache zone; when a zone died after the format the
        super block still is in the first cache zone of all.
        """
        every = np.flatnonzero(self.cache & self.counted)
        usable = self.first_metadata_zone()
        zones = [usable] if usable is not None else []
        if len(every) and int(every[0]) not in zones:
            zones.append(int(every[0]))
        return tuple(zones)

    def first_metadata_zone(self) -> int | None:
        """Lowest cache zone that is neither read-only nor offline; None when there is none."""
        usable = np.flatnonzero(self.cache & self.counted & ~self.dead)
        return int(usable[0]) if len(usable) else None


def build_geometry(
    parts: Sequence[tuple[str, Geometry, ZoneTable]],
    start_bytes: int = 0,
    formatted_zones: int | None = None,
    *,
    derived: bool = False,
) -> TargetGeometry:
    """Geometry of a target from each member's path, geometry and zone table (empty for a regular device).

    Args:
        formatted_zones: emulated zones that the regular device had at format, where it has another number now: what
            is behind them is not looked at, and those that are not there are offline.
        derived: a zone table was derived from the metadata.

    Raises:
        GeometryError: the devices cannot form a target (status 1, as the reference's open errors).
    """
    zone_bytes = _common_zone_bytes(parts)
    members: list[Member] = []
    tables: list[ZoneTable] = []
    first_zone = 0
    for index, (path, geometry, table) in enumerate(parts):
        if geometry.is_zoned:
            part = _zoned_part(path, table, zone_bytes, start_bytes)
        else:
            size_bytes = geometry.size_bytes - start_bytes
            part = _emulated_zones(
                size_bytes if not formatted_zones else formatted_zones * zone_bytes, zone_bytes, path
            )
        members.append(
            Member(
                index,
                path,
                geometry.model,
                first_zone,
                len(part),
                first_zone * (zone_bytes // BLOCK_BYTES),
                geometry.size_bytes - start_bytes,
                start_bytes,
            )
        )
        first_zone += len(part)
        tables.append(part)
    joined = _join(tuple(members), zone_bytes, tables, derived=derived)
    if not formatted_zones:
        return joined
    missing = joined.missing.copy()
    missing[joined.nr_cache_zones_now : formatted_zones] = True
    return replace(joined, missing=missing, offline=joined.offline | missing, formatted_zones=formatted_zones)


def _common_zone_bytes(parts: Sequence[tuple[str, Geometry, ZoneTable]]) -> int:
    first_path, first, _ = parts[0]
    if len(parts) == 1:
        if not first.is_zoned:
            raise GeometryError("Not a zoned block device", device=first_path)
    elif first.is_zoned:
        raise GeometryError("Not a regular block device", device=first_path)
    zone_bytes = 0
    for path, geometry, _ in parts if len(parts) == 1 else parts[1:]:
        if not geometry.is_zoned:
            raise GeometryError("Not a zoned block device", device=path)
        if zone_bytes and geometry.zone_bytes != zone_bytes:
            sectors = f"{geometry.zone_bytes // SECTOR_BYTES}/{zone_bytes // SECTOR_BYTES}"
            raise GeometryError(f"zone_nr_sectors mismatch ({sectors})", device=path)
        zone_bytes = geometry.zone_bytes
        if zone_bytes <= 0 or zone_bytes % BLOCK_BYTES:
            raise GeometryError(f"Invalid zone size of {zone_bytes} bytes", device=path)
    return zone_bytes


def _zoned_part(path: str, table: ZoneTable, zone_bytes: int, start_bytes: int) -> ZoneTable:
    """The zones from ``start_bytes`` on."""
    if start_bytes % zone_bytes or start_bytes // zone_bytes >= len(table):
        raise GeometryError(f"byte {start_bytes} is not the start of a zone", device=path)
    part = table[start_bytes // zone_bytes :]
    if bool((part["capacity_sectors"] < part["length_sectors"]).any()):
        raise GeometryError("Unsupported device with zone capacity smaller than zone size", device=path)
    return part


def _emulated_zones(size_bytes: int, zone_bytes: int, path: str) -> ZoneTable:
    """Conventional zones for a regular device, the last one shorter when the size is no multiple."""
    if size_bytes < BLOCK_BYTES:
        raise GeometryError("the device is too small", device=path)
    nr_zones = ceil_div(size_bytes, zone_bytes)
    return make_table(size_bytes // SECTOR_BYTES, zone_bytes // SECTOR_BYTES, nr_conventional=nr_zones)


def _join(members: tuple[Member, ...], zone_bytes: int, tables: list[ZoneTable], *, derived: bool) -> TargetGeometry:
    table = np.concatenate(tables)
    zones = ZoneFacts(table, BLOCK_BYTES)
    kinds = np.where(zones.conventional, ZoneKind.RANDOM, ZoneKind.SEQUENTIAL).astype(np.uint8)
    if len(members) > 1:
        kinds[: members[0].nr_zones] = ZoneKind.CACHE
    return TargetGeometry(
        members=members,
        zone_bytes=zone_bytes,
        kinds=kinds,
        preferred=zones.preferred,
        runt=table["length_sectors"] != zone_bytes // SECTOR_BYTES,
        read_only=zones.read_only,
        offline=zones.offline,
        wp_blocks=zones.wp_blocks,
        not_empty=zones.not_empty,
        missing=np.zeros(len(table), np.bool_),
        derived=derived,
    )


def max_chunks(geometry: TargetGeometry, set_zones: int, nr_reserved_seq: int) -> int:
    """Largest ``nr_chunks`` that the kernel target accepts; may be negative."""
    return geometry.nr_usable - NR_SETS * set_zones - nr_reserved_seq


def held_zones(geometry: TargetGeometry, layout: MetadataLayout) -> BoolArray:
    """Mask of the zones that never hold data: metadata zones, and first zones of zoned members."""
    mask = np.zeros(geometry.nr_zones, np.bool_)
    mask[layout.metadata_zones.start : layout.metadata_zones.stop] = True
    mask[list(geometry.tertiary_zones)] = True
    return mask


def nr_first_write_zones(geometry: TargetGeometry, layout: MetadataLayout) -> int:
    """Full-size cache and random zones that can take the first write to a chunk."""
    mask = (geometry.kinds != ZoneKind.SEQUENTIAL) & ~geometry.runt & ~geometry.dead & ~held_zones(geometry, layout)
    return int(np.count_nonzero(mask))
