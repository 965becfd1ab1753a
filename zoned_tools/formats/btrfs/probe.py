"""Is there a btrfs, and which one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.copies import Magic, decode_one, read_block
from zoned_tools.formats.btrfs.latest import BlockReader, count_written, find_latest
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, NAME, SUPER_BYTES, parse
from zoned_tools.formats.btrfs.open import Mirror, is_blank, locate
from zoned_tools.formats.btrfs.ring import Fill
from zoned_tools.formats.contract import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device

_NEIGHBOURS = 4
"""Blocks before a damaged head that are tried: enough to recognise a file system whose last commits were torn."""


def probe(device: Device, start_bytes: int) -> Identity | None:
    """Look for a super block where the kernel does, then in the other mirrors and around them."""
    newest: bytes | None = None
    for number in range(len(MIRROR_BYTENR)):
        row = find_latest(device, start_bytes, number)
        if row is not None and row["valid"]:
            return _identity(read_block(device, int(row["offset_bytes"])), start_bytes)
    for mirror in locate(device, start_bytes).mirrors:
        for offset in _candidates(device, mirror):
            block = read_block(device, offset)
            row = None if block is None else decode_one(block, offset, mirror.bytenr)[0]
            if row is not None and row["magic"] == Magic.OK and (newest is None or row["valid"]):
                newest = block
                if row["valid"]:
                    return _identity(block, start_bytes)
    return _identity(newest, start_bytes)


def _candidates(device: Device, mirror: Mirror) -> Iterator[int]:
    """Places of a mirror that are worth a look when the kernel's choice is damaged."""
    if mirror.pair is None:
        yield mirror.place_bytes
        return
    read = BlockReader(device)
    for zone in mirror.pair:
        count = zone.written_slots
        if zone.fill is Fill.FULL and is_blank(read(zone.last_slot_bytes)):  # finished before it was full
            count = count_written(read, zone.start_bytes, count)
        if count:
            slots = range(max(count - 1 - _NEIGHBOURS, 0), count)
            yield from (zone.start_bytes + slot * SUPER_BYTES for slot in reversed(slots))
            yield zone.start_bytes


def _identity(block: bytes | None, start_bytes: int) -> Identity | None:
    if block is None:
        return None
    parsed = parse(block)
    several = parsed.num_devices > 1
    return Identity(
        layout=NAME,
        version="zoned" if parsed.is_zoned else "regular",
        uuid=str(parsed.fsid),
        label=parsed.label,
        start_bytes=start_bytes,
        group=str(parsed.fsid) if several else "",
        members=int(parsed.num_devices) if several else 0,
    )
