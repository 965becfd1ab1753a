"""Everything that a check measures of a volume: the super block's bytes, the zone table, the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.shared.zones import ZoneFacts
from zoned_tools.formats.zonefs.judge import recognise
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.mapper.tree import FileGroup, build_groups

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.open import Volume


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there, without opinion.

    Attributes:
        zones: the volume's zone table, positions in 512-byte sectors.
        raw: the 4096 bytes where the super block is; None when they cannot be read.
        unreadable: why not.
        super_block: what they say where there is a super block, damaged or not.
        groups: the files, of the default parameters where there is no super block.
    """

    volume: Volume
    zones: ZoneFacts
    raw: bytes | None
    unreadable: str
    super_block: SuperBlock | None
    groups: dict[str, FileGroup]


def survey_volume(volume: Volume) -> Survey:
    """Read the super block once, and compute the files of the zone table."""
    raw, unreadable = None, ""
    try:
        raw = volume.read_super_block()
    except DeviceError as error:
        unreadable = error.message
    block = None if raw is None else recognise(raw)
    return Survey(
        volume=volume,
        zones=ZoneFacts(volume.table, block_bytes=512),
        raw=raw,
        unreadable=unreadable,
        super_block=block,
        groups=build_groups(volume, block or SuperBlock()),
    )
