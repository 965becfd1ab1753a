"""The kernel's choice alone, without reading the ring.

With a zone table at most three blocks are read. In a raw copy of a drive without one, the
end of each zone's content is found by bisection: at most ``2 log2(n) + 4`` blocks for
zones of n super blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.copies import Copy, decode_one, generation_of, read_block, unreadable_copy
from zoned_tools.formats.btrfs.layout import (
    MIRROR_BYTENR,
    SUPER_BYTES,
    mirrors_on,
)
from zoned_tools.formats.btrfs.open import (
    Mirror,
    derived_mirror,
    is_blank,
    locate_declared,
    raw_copy_zone_bytes,
    zone_slots,
)
from zoned_tools.formats.btrfs.ring import head_position, write_position

if TYPE_CHECKING:
    from zoned_tools.device.base import Device


class BlockReader:
    """Reads blocks, each only once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._blocks: dict[int, bytes | None] = {}

    def __call__(self, offset_bytes: int) -> bytes | None:
        """The block there; None when it cannot be read."""
        if offset_bytes not in self._blocks:
            self._blocks[offset_bytes] = read_block(self.device, offset_bytes)
        return self._blocks[offset_bytes]

    def has(self, offset_bytes: int) -> bool:
        return offset_bytes in self._blocks

    def generation(self, offset_bytes: int) -> int:
        return generation_of(self(offset_bytes))


def find_latest(device: Device, start_bytes: int = 0, number: int = 0) -> Copy | None:
    """The row (:data:`~.copies.COPY_DTYPE`) that the kernel takes for the newest super block of a mirror.

    None when the mirror does not exist, holds nothing, or its zones are in an invalid state.
    """
    read = BlockReader(device)
    mirror = _derived(read, number) if start_bytes == 0 else None
    if mirror is None:
        mirror = locate_declared(device, start_bytes).mirror(number)
    if mirror is None:
        return None
    position = _position(read, mirror)
    if position is None or position < 0 or position + SUPER_BYTES > device.geometry.size_bytes:
        return None
    block = read(position)
    row: Copy = (unreadable_copy(position) if block is None else decode_one(block, position, mirror.bytenr))[0]
    return row


def _position(read: BlockReader, mirror: Mirror) -> int | None:
    pair = mirror.pair
    if pair is None:
        return mirror.place_bytes
    return head_position(pair, write_position(pair, lambda index: read.generation(pair[index].last_slot_bytes)))


def _derived(read: BlockReader, number: int) -> Mirror | None:
    """The mirror of a raw copy without a zone table; None when the device is no such thing."""
    device = read.device
    if device.geometry.is_zoned or not device.emulated:
        return None
    zone_bytes = raw_copy_zone_bytes(device, read)
    if not zone_bytes or 2 * zone_bytes > device.geometry.size_bytes:
        return None
    first_zone = dict(mirrors_on(-(-device.geometry.size_bytes // zone_bytes), zone_bytes)).get(number)
    if first_zone is None:
        return None
    starts = [(first_zone + index) * zone_bytes for index in (0, 1)]
    limits = [zone_slots(device, first_zone + index, zone_bytes) for index in (0, 1)]
    counts = (count_written(read, starts[0], limits[0]), count_written(read, starts[1], limits[1]))
    smallest = (None, None) if 0 in counts else tuple(_valid_generation(read, start, number) for start in starts)
    return derived_mirror(number, first_zone, zone_bytes, counts, limits[0], (smallest[0], smallest[1]))


def _valid_generation(read: BlockReader, offset_bytes: int, number: int) -> int | None:
    block = read(offset_bytes)
    if block is None:
        return None
    row = decode_one(block, offset_bytes, MIRROR_BYTENR[number])[0]
    return int(row["generation"]) if row["valid"] else None


def count_written(read: BlockReader, start_bytes: int, limit: int) -> int:
    """Leading slots that hold something, or cannot be read, by bisection."""
    low, high = 0, limit
    if limit and read.has(start_bytes):
        if is_blank(read(start_bytes)):
            return 0
        low = 1
    while low < high:
        middle = (low + high) // 2
        if is_blank(read(start_bytes + middle * SUPER_BYTES)):
            high = middle
        else:
            low = middle + 1
    return low
