"""The devices of a target as they are named: a part of one that is named alone, a regular device of another size.

Of a part that is named alone nothing behind its super block is looked at: the secondary set of an earlier life as a
single-device target may be there and be valid. A regular device that grew or shrank is read as it was at format.

Source: section 8.6 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import RefusedError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MAX_VERSION, SuperBlock, bitmap_blocks_of, ceil_div
from zoned_tools.formats.dm_zoned.open import open_blocks
from zoned_tools.formats.dm_zoned.probe import sealed_superblock

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.open import TargetBlocks

_FEWEST_ZONE_BLOCKS = 8


def open_target(target: Target) -> TargetBlocks:
    """Read the zone tables of a target's devices.

    Raises:
        RefusedError: the one device is a part of a target of several, or a member of several is not named.
        GeometryError: the devices cannot form a target.
        DeviceError: a zone table cannot be read.
    """
    if len(target.devices) == 1:
        _refuse_part(target.device, target.start_bytes)
        return open_blocks(target)
    if target.device.geometry.is_zoned:
        _refuse_part(target.device, target.start_bytes)
    blocks = open_blocks(target)
    formatted = _formatted_zones(blocks)
    if formatted is not None:
        return open_blocks(target, formatted)
    _refuse_gap(blocks)
    return blocks


def _formatted_zones(blocks: TargetBlocks) -> int | None:
    """Emulated zones that the regular device had at format; None where it has as many, or nobody knows.

    The super blocks of all members then lie the same number of zones away from where they say that they are.
    """
    geometry, zone_blocks = blocks.geometry, blocks.geometry.zone_blocks
    head = _read(blocks.devices[0], geometry.members[0].start_bytes, 0)
    shifts: set[int] = set()
    for member in geometry.members[1:]:
        found = _read(blocks.devices[member.index], member.start_bytes, 0)
        if found is None or found.version != MAX_VERSION or not found.sb_block:
            return None
        if head is not None and head.dmz_uuid != found.dmz_uuid:
            return None
        shifts.add(found.sb_block - member.block_offset)
        nr_zones = geometry.nr_zones + (found.sb_block - member.block_offset) // zone_blocks
        if found.nr_bitmap_blocks != nr_zones * geometry.bitmap_blocks_per_zone:
            return None
    shift = shifts.pop()
    if shifts or not shift or shift % zone_blocks:
        return None
    zones = geometry.members[0].nr_zones + shift // zone_blocks
    return zones if zones > 0 else None


def _refuse_gap(blocks: TargetBlocks) -> None:
    """Refuse devices between which, or behind which, the super blocks tell of zones that none of them has.

    Every rule about entries and places would find fault with what is only not there.

    Raises:
        RefusedError: names the zones.
    """
    geometry = blocks.geometry
    found = [_read(blocks.devices[m.index], m.start_bytes, 0) for m in geometry.members]
    known = [one for one in found if one is not None and one.version == MAX_VERSION]
    told = {one.nr_bitmap_blocks for one in known}
    if len(told) != 1 or len({one.dmz_uuid for one in known}) != 1:
        return
    nr_zones = _nr_zones(known[0], geometry.zone_blocks)
    gaps, end = [], 0
    for member, one in zip(geometry.members, found, strict=True):
        start = one.sb_block // geometry.zone_blocks if one is not None and member.index else end
        gaps.append((end, start - end))
        end = start + member.nr_zones
    gaps.append((end, nr_zones - end))
    if any(count < 0 for _, count in gaps) or nr_zones <= geometry.nr_zones:
        return
    missing = [(start, count) for start, count in gaps if count]
    names = " and ".join(f"zones {start} to {start + count - 1}" for start, count in missing)
    raise RefusedError(
        f"{names} of dm-zoned target {known[0].label!r} ({known[0].dmz_uuid}) are on a member that is not named",
        device=blocks.devices[0].path,
        hint="name all its devices",
    )


def _refuse_part(device: Device, start_bytes: int) -> None:
    found = _read(device, start_bytes, 0)
    if found is None or found.version != MAX_VERSION:
        return
    name = f"dm-zoned target {found.label!r} ({found.dmz_uuid})"
    size_blocks = (device.geometry.size_bytes - start_bytes) // BLOCK_BYTES
    if device.geometry.is_zoned:
        zone_blocks = device.geometry.zone_bytes // BLOCK_BYTES
        # Bitmaps of its own zones alone are a single-device target whose super block names another place.
        if found.sb_block and zone_blocks and _nr_zones(found, zone_blocks) > ceil_div(size_blocks, zone_blocks):
            raise RefusedError(
                f"zoned member of {name}, zones from {found.sb_block // zone_blocks} on; name its regular device first",
                device=device.path,
            )
        return
    if found.sb_block:
        return
    zone_blocks = _zone_blocks(device, start_bytes, found)
    missing = _nr_zones(found, zone_blocks) - ceil_div(size_blocks, zone_blocks) if zone_blocks else 0
    zones = f"{missing} zones are" if missing > 0 else "others are"
    raise RefusedError(
        f"regular device of {name}, {zones} on its zoned members; name them after it", device=device.path
    )


def _nr_zones(found: SuperBlock, zone_blocks: int) -> int:
    """Zones of the whole target, by its bitmaps."""
    return found.nr_bitmap_blocks // bitmap_blocks_of(zone_blocks)


def _zone_blocks(device: Device, start_bytes: int, primary: SuperBlock) -> int:
    """The zone size that puts the secondary super block where one is; 0 when none does."""
    size_blocks = (device.geometry.size_bytes - start_bytes) // BLOCK_BYTES
    zone_blocks = _FEWEST_ZONE_BLOCKS
    while zone_blocks < size_blocks:
        place = ceil_div(primary.nr_meta_blocks, zone_blocks) * zone_blocks
        found = _read(device, start_bytes, place)
        is_ours = found is not None and found.sb_block == place and found.dmz_uuid == primary.dmz_uuid
        if is_ours and _nr_zones(primary, zone_blocks) > ceil_div(size_blocks, zone_blocks):
            return zone_blocks
        zone_blocks *= 2
    return 0


def _read(device: Device, start_bytes: int, block: int) -> SuperBlock | None:
    return sealed_superblock(device, start_bytes + block * BLOCK_BYTES)
