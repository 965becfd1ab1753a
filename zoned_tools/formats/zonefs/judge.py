"""What a kernel makes of a super block and of a zone table: which it mounts, and why not the others.

Sources: the mount checks of ``fs/zonefs/super.c`` as the specification tells them (section 1, "what
the kernel checks at mount"), verified against kernels 6.1 and 6.12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import SECTOR_BYTES, ZoneType
from zoned_tools.errors import DeviceError, GeometryError, MetadataError
from zoned_tools.formats.zonefs.constants import INVALID_ID, KNOWN_FEATURES, Feature
from zoned_tools.formats.zonefs.layout import (
    MAGIC,
    RESERVED_OFFSET,
    SUPER_BLOCK_BYTES,
    SuperBlock,
    checksum,
    with_magic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.zonefs.open import Volume


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason why a kernel refuses to mount: the finding's code, a sentence, and the field's place."""

    code: str
    message: str
    offset_bytes: int


def checksum_fits(raw: bytes) -> bool:
    """Whether the stored checksum is that of the block, or of the block with the magic put back."""
    stored = int.from_bytes(raw[4:8], "little")
    return stored in (checksum(raw), checksum(with_magic(raw)))


def recognise(raw: bytes) -> SuperBlock | None:
    """The super block in ``raw``, damaged or not, or None when there is none.

    A wrong magic is forgiven when the checksum is right: then only the magic was hit.
    """
    if len(raw) < SUPER_BLOCK_BYTES:
        return None
    block = SuperBlock.parse(raw)
    return block if block.magic == MAGIC or checksum_fits(raw) else None


def mount_faults(raw: bytes) -> Iterator[Fault]:
    """Why a kernel refuses a super block, in the order in which it looks; nothing when it mounts."""
    block = SuperBlock.parse(raw)
    if block.magic != MAGIC:
        yield Fault("sb-magic", f"super block magic is {block.magic:#010x}, not {MAGIC:#010x}", 0)
    if recognise(raw) is None:
        return  # no field means anything
    if not checksum_fits(raw):
        text = f"super block checksum is {block.crc:#010x}, its content gives {checksum(raw):#010x}"
        yield Fault("sb-crc", text, 4)
    yield from _field_faults(block)


def _field_faults(block: SuperBlock) -> Iterator[Fault]:
    unknown = block.features & ~KNOWN_FEATURES
    if unknown:
        yield Fault("sb-features", f"unknown feature bits {unknown:#x} are set", 0x58)
    if block.features & Feature.UID and block.uid == INVALID_ID:
        yield Fault("sb-uid", f"user id {block.uid} of the files is invalid", 0x60)
    if block.features & Feature.GID and block.gid == INVALID_ID:
        yield Fault("sb-gid", f"group id {block.gid} of the files is invalid", 0x64)
    if any(block.reserved):
        used = [i for i, byte in enumerate(block.reserved) if byte]
        first = RESERVED_OFFSET + used[0]
        text = f"{len(used)} bytes of the reserved area are not zero, the first at byte {first:#x}"
        yield Fault("sb-reserved", text, first)


def mounts(raw: bytes) -> bool:
    """Whether a kernel accepts a super block."""
    return next(mount_faults(raw), None) is None


class UnreadableSuperBlockError(MetadataError):
    """A super block that the device does not give; what it says is not known."""


def load_super_block(volume: Volume) -> SuperBlock:
    """The super block of a volume that a kernel would mount.

    Raises:
        MetadataError: a kernel would refuse it; the message names the first reason.
        UnreadableSuperBlockError: it cannot be read.
    """
    path = volume.device.path
    try:
        raw = volume.read_super_block()
    except DeviceError as error:
        raise UnreadableSuperBlockError(f"cannot read the super block: {error.message}", device=path) from None
    if recognise(raw) is None:
        raise MetadataError("no zonefs super block found", device=path)
    fault = next(mount_faults(raw), None)
    if fault is not None:
        raise MetadataError(fault.message, device=path, hint="zoned check --repair can rewrite the super block")
    return SuperBlock.parse(raw)


def zone_table_fault(volume: Volume) -> str:
    """Why the zone table makes a kernel fail the mount with EIO; empty when it does not."""
    table = volume.table
    zone_sectors = volume.zone_bytes // SECTOR_BYTES
    unknown = np.flatnonzero(~np.isin(table["type"][1:], list(ZoneType)))
    if len(unknown):
        zone = int(unknown[0]) + 1
        return f"zone {zone} is of unknown type {int(table['type'][zone]):#x}"
    longer = np.flatnonzero(table["length_sectors"] > zone_sectors)
    if len(longer):
        return f"zone {int(longer[0])} is longer than the zone size"
    if len(table) != -(-volume.device.geometry.size_bytes // volume.zone_bytes):
        return f"{len(table)} zones do not make up the device"
    return ""


def require_zone_table(volume: Volume) -> None:
    """Refuse a zone table that makes a kernel fail the mount with EIO, or that has no zone for a file.

    Raises:
        GeometryError: zones of an unknown type, of a wrong length, or not covering the device; one zone.
    """
    fault = zone_table_fault(volume)
    if not fault and len(volume.table) < 2:
        fault = "no usable zone besides the super block's"
    if fault:
        raise GeometryError(fault, device=volume.device.path)
