"""Recognise a ZDM by its identity or, when that is damaged, by a valid key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import Identity
from zoned_tools.formats.zdm import judge, layout
from zoned_tools.formats.zdm.checksums import crc16_pages
from zoned_tools.formats.zdm.constants import NAME
from zoned_tools.formats.zdm.layout import Dialect
from zoned_tools.formats.zdm.superblock import RELEASES, SuperBlock
from zoned_tools.formats.zdm.volume import Volume

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.zdm.judge import Candidate


def _is_placed(rest: Volume, key: Candidate) -> bool:
    """Whether a key lies where it belongs.

    In the current dialect a complete generation does; older ones allow stray pages in front
    of the key, so that another block at a fixed place has to bear witness.
    """
    if key.dialect not in (Dialect.D1, Dialect.D2):
        return True
    block = layout.WP_BLOCKS[key.dialect]
    return rest.has(block) and int(crc16_pages(rest.read_rows(block, 1))[0]) == int(key.wp_crcs[0])


MOST_STARTS = 16
"""Zones at the beginning of a drive where a ZDM without a partition table is looked for."""


def find_starts(device: Device) -> list[int]:
    """Where identities lie at the beginning of zones: ``zdmadm --create --start`` needs no partition table.

    Zone 0 is left out, a partition table would lie there. Empty for a drive that cannot be read. Newer kernels show
    host-aware drives as regular ones, so those are looked at, too.
    """
    geometry = device.geometry
    if geometry.is_zoned and geometry.zone_bytes != layout.ZONE_BYTES:
        return []
    count = min(MOST_STARTS, geometry.size_bytes // layout.ZONE_BYTES)
    try:
        starts = [zone * layout.ZONE_BYTES for zone in range(1, count)]
        return [start for start in starts if SuperBlock.parse(device.read(start, layout.BLOCK_BYTES)).magic_ok]
    except ZonedError:
        return []


def probe(device: Device, start_bytes: int) -> Identity | None:
    """What is at ``start_bytes``; None when it is no ZDM, or cannot be read."""
    try:
        rest = Volume.rest_of(device, start_bytes)
        if not rest.has(0, layout.ZEROED_BLOCKS):
            return None
        identity = SuperBlock.parse(rest.read_rows(layout.IDENTITY_BLOCK, 1)[0].tobytes())
        if identity.magic_ok:
            version = identity.version_text
            if identity.form is not None:
                version += f" (zdmadm {RELEASES[identity.form]})"
            return Identity(NAME, version, str(identity.uuid), identity.label, start_bytes)
        found = judge.scan(rest)
    except ZonedError:
        return None
    if found.unsupported:
        return Identity(NAME, f"releases {found.unsupported}", start_bytes=start_bytes)
    # Keys alone prove nothing about where the partition begins: with a wrong start they are seen shifted.
    if found.chosen is None or not _is_placed(rest, found.chosen):
        return None
    return Identity(NAME, f"releases {found.chosen.dialect}", start_bytes=start_bytes)
