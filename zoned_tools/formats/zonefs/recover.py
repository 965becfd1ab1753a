"""What a damaged super block still tells."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.formats.zonefs.constants import INVALID_ID, KNOWN_FEATURES, PERM_MASK, Feature
from zoned_tools.formats.zonefs.judge import checksum_fits, mounts, recognise
from zoned_tools.formats.zonefs.layout import (
    RESERVED_BYTES,
    RESERVED_OFFSET,
    SUPER_BLOCK_BYTES,
    SuperBlock,
    checksum,
    with_magic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Recovered:
    """A super block made from a damaged one.

    Attributes:
        how: what was found out about the damage, a phrase.
        sure: no other super block fits as well.
    """

    block: SuperBlock
    how: str
    sure: bool


def recover(raw: bytes) -> Recovered | None:
    """The best super block that can be made from ``raw``; None when there is nothing of one.

    Looked for in this order: a block with one damaged byte, which the checksum finds; a block that
    is right but for its magic, reserved area, invalid ids or permission bits; a block whose fields
    have to be taken as they are, which is a guess.
    """
    mended = [block for block in _one_byte_mended(raw) if mounts(block)]
    if mended:
        how = "one damaged byte was found with the checksum and put right"
        return Recovered(SuperBlock.parse(mended[0]), how, sure=len(mended) == 1)
    damaged = recognise(raw)
    if damaged is None:
        return None
    block = _legal(damaged)
    if checksum_fits(raw):
        return Recovered(block, "the checksum was right; only what a kernel refuses is changed", sure=True)
    if damaged.crc == checksum(with_magic(raw[:RESERVED_OFFSET] + bytes(RESERVED_BYTES))):
        return Recovered(block, "only the reserved area was damaged", sure=True)
    how = "the checksum was wrong and its cause is unknown: verify the parameters taken as found"
    return Recovered(block, how, sure=False)


def _legal(block: SuperBlock) -> SuperBlock:
    """The fields as found, without what a kernel refuses."""
    features = block.features & KNOWN_FEATURES
    uid, gid = block.uid, block.gid
    if features & Feature.UID and uid == INVALID_ID:
        features, uid = features & ~Feature.UID, 0
    if features & Feature.GID and gid == INVALID_ID:
        features, gid = features & ~Feature.GID, 0
    return SuperBlock(
        label_bytes=block.label_bytes,
        uuid=block.uuid,
        features=features,
        uid=uid,
        gid=gid,
        perm=block.perm & PERM_MASK if features & Feature.PERM else block.perm,
    )


def _one_byte_mended(raw: bytes) -> Iterator[bytes]:
    """``raw`` with one byte changed so that its checksum is right, for each byte where that can be.

    CRC-32 is linear: a changed byte changes the checksum by a pattern that depends on the change
    and its distance from the end only. A step of the checksum can be taken back, so that the difference is stepped back
    from the end of the block, one byte at a time, until it is the pattern of a change.
    """
    difference = checksum(raw) ^ int.from_bytes(raw[4:8], "little")
    if not difference:
        return
    steps = [zlib.crc32(bytes([b]), 0xFFFFFFFF) ^ 0xFFFFFFFF for b in range(256)]
    changes = {pattern: change for change, pattern in enumerate(steps) if change}
    by_top = {pattern >> 24: index for index, pattern in enumerate(steps)}  # 256 different top bytes
    for position in range(SUPER_BLOCK_BYTES - 1, -1, -1):
        change = changes.get(difference)
        if change is not None and not 4 <= position < 8:
            mended = bytearray(raw)
            mended[position] ^= change
            yield bytes(mended)
        index = by_top[difference >> 24]
        difference = ((difference ^ steps[index]) << 8) & 0xFFFFFFFF | index
