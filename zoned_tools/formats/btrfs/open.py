"""Where the mirrors of the super block are on one device.

Three modes: in a *ring* of two sequential zones, *in place* at the start of a conventional
zone, and at the *regular* places of a device without zones. An image that is a raw copy of
a zoned drive, without its zone table, is recognised by super blocks where only a ring has
any; the states of its zones are then derived from the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import DEAD_CONDITIONS, ZoneType, has_condition
from zoned_tools.formats.btrfs.chunks import ChunkError, sys_chunks
from zoned_tools.formats.btrfs.copies import Magic, Scanner, decode_one, read_block
from zoned_tools.formats.btrfs.layout import (
    MAX_ZONE_BYTES,
    MIN_ZONE_BYTES,
    MIRROR_BYTENR,
    MIRROR_RING_START_BYTES,
    SUPER_BYTES,
    mirrors_on,
    parse,
)
from zoned_tools.formats.btrfs.ring import Fill, RingPair, RingZone, older_zone, smallest_generations, zones_from_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Device

_RING_ONLY_SLOTS = MIRROR_BYTENR[0] // SUPER_BYTES
"""Slots of a ring below the first regular place; no regular file system keeps super blocks there."""


class Mode(StrEnum):
    RING = "ring"
    IN_PLACE = "in-place"
    REGULAR = "regular"


@dataclass(frozen=True, slots=True)
class Mirror:
    """One mirror of the super block on one device.

    Attributes:
        number: 0, 1 or 2.
        zones: the pair's indexes; empty on a device without zones.
        place_bytes: position of the block when it is overwritten in place, else the ring's start.
        pair: the ring's zones; None in the other modes.
        derived: zone states come from the content.
        capacity_known: False when the content does not tell how many blocks a zone takes.
        dead_zone: the conventional zone of a block that is overwritten in place is read-only or offline.
    """

    number: int
    mode: Mode
    zones: tuple[int, ...]
    place_bytes: int
    pair: RingPair | None = None
    derived: bool = False
    capacity_known: bool = True
    dead_zone: bool = False

    @property
    def bytenr(self) -> int:
        """What the field of its blocks says."""
        return MIRROR_BYTENR[self.number]


@dataclass(frozen=True, slots=True)
class Placement:
    """All mirrors of one device.

    Attributes:
        zone_bytes: zone size; 0 where only the file system could tell.
        derived: the device is a raw copy of a zoned drive without its zone table.
    """

    mirrors: tuple[Mirror, ...]
    zone_bytes: int
    derived: bool = False

    def mirror(self, number: int) -> Mirror | None:
        return next((m for m in self.mirrors if m.number == number), None)


def locate(device: Device, start_bytes: int = 0) -> Placement:
    """Find out where the mirrors of ``device`` are; reads the rings of a raw copy without a zone table."""
    if not device.geometry.is_zoned and device.emulated and start_bytes == 0:
        zone_bytes = raw_copy_zone_bytes(device)
        if zone_bytes:
            return Placement(tuple(_derived_mirrors(device, zone_bytes)), zone_bytes, derived=True)
    return locate_declared(device, start_bytes)


def locate_declared(device: Device, start_bytes: int = 0) -> Placement:
    """Where the mirrors are according to what the device says of itself; reads no block."""
    geometry = device.geometry
    if geometry.is_zoned:
        pairs = mirrors_on(geometry.nr_zones, geometry.zone_bytes)
        return Placement(tuple(_zoned_mirror(device, *pair) for pair in pairs), geometry.zone_bytes)
    places = [(number, start_bytes + place) for number, place in enumerate(MIRROR_BYTENR)]
    fitting = [(number, place) for number, place in places if place + SUPER_BYTES <= geometry.size_bytes]
    return Placement(tuple(Mirror(number, Mode.REGULAR, (), place) for number, place in fitting), 0)


def _zoned_mirror(device: Device, number: int, first_zone: int) -> Mirror:
    table = device.zones(first_zone, 2)
    zones = (first_zone, first_zone + 1)
    place = first_zone * device.geometry.zone_bytes
    if table["type"][0] == ZoneType.CONVENTIONAL:
        dead = bool(has_condition(table[:1], *DEAD_CONDITIONS)[0])
        return Mirror(number, Mode.IN_PLACE, zones, place, dead_zone=dead)
    return Mirror(number, Mode.RING, zones, place, zones_from_table(table, first_zone))


# -- raw copies of zoned drives


def raw_copy_zone_bytes(device: Device, read: Callable[[int], bytes | None] | None = None) -> int:
    """Zone size of the drive that a plain image is a raw copy of; 0 when it is none.

    A super block in front of the first regular place can only belong to a ring. When there
    is none, the ring may continue in its second zone, whose position tells the zone size;
    that is tried only if no regular place holds a super block.

    Args:
        read: reads the block at a position, None outside the device.
    """
    look: Callable[[int], bytes | None] = read or (lambda offset: read_block(device, offset))
    # A blank first slot means an empty first zone; only damage makes the next ones worth a look.
    slots = 1 if is_blank(look(0)) else _RING_ONLY_SLOTS
    damaged = False
    for slot in range(slots):
        block = look(slot * SUPER_BYTES)
        if block is None or _magic_of(block) is Magic.NONE:
            continue
        damaged = True
        zone_bytes = zone_bytes_of(block)
        if zone_bytes and 2 * zone_bytes <= device.geometry.size_bytes:
            return zone_bytes
    if not damaged and any(_has_magic(look(place)) for place in MIRROR_BYTENR):
        return 0
    for shift in range(MIN_ZONE_BYTES.bit_length() - 1, MAX_ZONE_BYTES.bit_length()):
        candidate = look(1 << shift)
        if candidate is not None and zone_bytes_of(candidate) == 1 << shift:
            return 1 << shift
    return 0


_BLANK = (bytes(SUPER_BYTES), b"\xff" * SUPER_BYTES)


def is_blank(block: bytes | None) -> bool:
    """What a block above the write pointer reads as: zeroes, or ones on some drives; False for one that cannot be."""
    return block in _BLANK


def _has_magic(block: bytes | None) -> bool:
    return block is not None and _magic_of(block) is Magic.OK


def _magic_of(block: bytes) -> Magic:
    return Magic(int(decode_one(block, 0, 0)["magic"][0]))


def zone_bytes_of(block: bytes) -> int:
    """Zone size that a super block tells: the length of its first system chunk; 0 when it is no zone size."""
    if _magic_of(block) is Magic.NONE:
        return 0
    try:
        length = sys_chunks(parse(block))[0].length_bytes
    except ChunkError:
        return 0
    return length if MIN_ZONE_BYTES <= length <= MAX_ZONE_BYTES and length & (length - 1) == 0 else 0


def _derived_mirrors(device: Device, zone_bytes: int) -> Iterator[Mirror]:
    nr_zones = -(-device.geometry.size_bytes // zone_bytes)
    for number, first_zone in mirrors_on(nr_zones, zone_bytes):
        yield _derived_mirror(device, number, first_zone, zone_bytes)


def _derived_mirror(device: Device, number: int, first_zone: int, zone_bytes: int) -> Mirror:
    scanner = Scanner(device, MIRROR_BYTENR[number])
    limits = [zone_slots(device, first_zone + index, zone_bytes) for index in (0, 1)]
    parts = [scanner.scan_written((first_zone + index) * zone_bytes, limits[index], index) for index in (0, 1)]
    table = np.concatenate(parts)
    smallest = smallest_generations(table["zone"], table["valid"], table["generation"])
    return derived_mirror(number, first_zone, zone_bytes, (len(parts[0]), len(parts[1])), limits[0], smallest)


def derived_mirror(
    number: int,
    first_zone: int,
    zone_bytes: int,
    counts: tuple[int, int],
    limit: int,
    smallest: tuple[int | None, int | None],
) -> Mirror:
    """The mirror whose zones hold ``counts`` leading blocks and these smallest valid generations."""
    pair, known = derive_pair(first_zone, zone_bytes, counts, limit, smallest)
    place = MIRROR_RING_START_BYTES[number]
    return Mirror(number, Mode.RING, (first_zone, first_zone + 1), place, pair, derived=True, capacity_known=known)


def zone_slots(device: Device, zone: int, zone_bytes: int) -> int:
    """Super blocks between the start of a zone and its end, or the end of the image."""
    return (min((zone + 1) * zone_bytes, device.geometry.size_bytes) - zone * zone_bytes) // SUPER_BYTES


def derive_pair(
    first_zone: int,
    zone_bytes: int,
    counts: tuple[int, int],
    limit: int,
    smallest: tuple[int | None, int | None],
) -> tuple[RingPair, bool]:
    """Zone states from the number of leading written slots of each zone.

    Two zones that are both in use cannot be: when both hold something, the older one is
    full (that with the smaller generations, or with more blocks where these do not tell),
    and so is the second when only it holds something. A full zone tells the number of slots.

    Returns:
        the pair, and whether the number of slots is known; when it is not, the zone is
        taken to be in use and its capacity to be ``limit`` slots.
    """
    slots, known = limit, counts[0] == limit
    if counts[1]:
        slots, known = max(counts), True
    older = older_zone(smallest) if None not in smallest else int(counts[1] >= counts[0])
    zones = []
    for index, count in enumerate(counts):
        start = (first_zone + index) * zone_bytes
        full = known and (count == slots or (counts[1 - index] > 0 and index == older))
        fill = Fill.EMPTY if count == 0 else Fill.FULL if full else Fill.IN_USE
        wp = None if fill is Fill.FULL else start + count * SUPER_BYTES
        zones.append(RingZone(first_zone + index, start, slots * SUPER_BYTES, fill, wp))
    return (zones[0], zones[1]), known
