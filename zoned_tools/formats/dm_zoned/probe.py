"""Is there dm-zoned on a device, and which part of which target is it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.signatures import recognise
from zoned_tools.errors import DeviceError, GeometryError
from zoned_tools.formats.contract import Identity, Target
from zoned_tools.formats.dm_zoned.constants import NAME
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    MAGIC,
    MAX_VERSION,
    MOST_SET_ZONES,
    SuperBlock,
    ceil_div,
    superblock_crc,
)
from zoned_tools.formats.dm_zoned.open import open_blocks

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

_SMALLEST_ZONE_BITS = 15


def probe(device: Device, start_bytes: int) -> Identity | None:
    """What the super blocks on ``device`` say; None when there are none.

    The zoned members of a multi-device target carry the absolute number of their first
    block, which orders them; the regular device comes first. Damaged super blocks count when
    at least their magic is there.
    """
    first = read_superblock(device, start_bytes)
    if not device.geometry.is_zoned:
        if first is not None and is_sound(first):  # of a raw copy of a zoned member: it says its place
            return _identity(first[0], start_bytes, member=True, position=first[0].sb_block)
        found = _find_secondary(device, start_bytes) or first
        if found is None or (first is None and recognise(device) is not None):  # a remnant behind something newer
            return None
        return _identity(found[0], start_bytes, member=True)
    if first is not None and first[0].sb_block != 0 and is_sound(first):
        return _identity(first[0], start_bytes, member=True, position=first[0].sb_block)
    found_superblock, usable = _single(device, start_bytes)
    if found_superblock is None:
        return None
    if not usable and first is not None and first[0].sb_block != 0:  # a damaged member with conventional zones
        return _identity(first[0], start_bytes, member=True, position=first[0].sb_block)
    return _identity(found_superblock, start_bytes, member=False)


def read_superblock(device: Device, offset_bytes: int) -> tuple[SuperBlock, bytes] | None:
    """The super block at ``offset_bytes`` if there is anything like one."""
    if offset_bytes + BLOCK_BYTES > device.geometry.size_bytes:
        return None
    try:
        raw = device.read(offset_bytes, BLOCK_BYTES)
    except DeviceError:
        return None
    return (SuperBlock.parse(raw), raw) if int.from_bytes(raw[:4], "little") == MAGIC else None


def is_sound(found: tuple[SuperBlock, bytes]) -> bool:
    """Whether a super block has the right checksum and a version that is known."""
    superblock, raw = found
    return superblock.crc == superblock_crc(raw, superblock.gen) and superblock.version <= MAX_VERSION


def sealed_superblock(device: Device, offset_bytes: int = 0) -> SuperBlock | None:
    """The super block at ``offset_bytes``, of whatever version, where its checksum is right."""
    found = read_superblock(device, offset_bytes)
    if found is None or found[0].crc != superblock_crc(found[1], found[0].gen):
        return None
    return found[0]


def _find_secondary(device: Device, start_bytes: int) -> tuple[SuperBlock, bytes] | None:
    """A sound secondary super block on a regular device, whose zone size is not known here."""
    size_bytes = device.geometry.size_bytes - start_bytes
    for shift in range(_SMALLEST_ZONE_BITS, size_bytes.bit_length()):
        for zones in range(1, MOST_SET_ZONES + 1):
            offset_bytes = zones << shift
            found = read_superblock(device, start_bytes + offset_bytes)
            if found is None or not is_sound(found) or found[0].sb_block * BLOCK_BYTES != offset_bytes:
                continue
            if ceil_div(found[0].nr_meta_blocks * BLOCK_BYTES, 1 << shift) == zones:
                return found
    return None


def _single(device: Device, start_bytes: int) -> tuple[SuperBlock | None, bool]:
    """The super block of a zoned device that is a target of its own, and whether its set can be used."""
    try:
        state = read_state(open_blocks(Target(NAME, (device,), start_bytes)))
    except (GeometryError, DeviceError):
        return None, False
    if state.chosen is not None:
        return state.superblock, True
    return next((s.superblock for s in state.sets if s.has_magic), None), False


def _identity(superblock: SuperBlock, start_bytes: int, *, member: bool, position: int = 0) -> Identity:
    named = superblock.version > 1 and superblock.dmz_uuid != NIL_UUID
    uuid = str(superblock.dmz_uuid) if named else ""
    return Identity(
        NAME,
        str(superblock.version),
        uuid,
        superblock.label,
        start_bytes,
        str(superblock.dmz_uuid) if member else "",
        position,
    )
