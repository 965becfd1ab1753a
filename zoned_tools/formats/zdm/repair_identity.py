"""An identity for block 0 where that is damaged: from geometry and key, with what can still be read."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED, MAX_RESERVED
from zoned_tools.formats.zdm.layout import CreateLayout
from zoned_tools.formats.zdm.superblock import SuperBlock
from zoned_tools.formats.zdm.volume import partition_sectors

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.open import State


def rebuilt_identity(state: State) -> SuperBlock:
    """An identity from geometry and key, with those old fields that can be right."""
    old, geometry = state.identity, state.geometry
    size = state.volume.size_blocks * layout.BLOCK_SECTORS
    rest = partition_sectors(state.volume.device, state.volume.offset_bytes)
    reserved = _plausible_reserve(old, geometry.start_sector, size)
    created = CreateLayout.compute(geometry.start_sector, size, reserved)
    label = old.label if old.label.isprintable() and len(old.label.encode()) < 64 else ""
    readable = old.magic_ok or old.version == layout.IDENTITY_VERSION
    base = old if readable else SuperBlock(NIL_UUID, 0, 0, 0, 0)
    uuid = old.uuid if old.uuid != NIL_UUID else uuids.uuid4()
    return replace(
        base.as_current(),
        uuid=uuid,
        version=layout.IDENTITY_VERSION,
        sect_start=geometry.start_sector,
        sect_size=old.sect_size if size <= old.sect_size <= rest else rest,
        mz_metadata_zones=3,
        mz_over_provision=reserved - 3,
        zdm_blocks=created.logical_sectors,
        label=label,
        data_start=geometry.zdstart,
        zone_size=layout.ZONE_SECTORS,
        discard=old.discard & (layout.DISCARD_TRIM | layout.DISCARD_RAID) if readable else layout.DISCARD_TRIM,
        disk_type=old.disk_type & (layout.DISK_HOST_AWARE | layout.DISK_HOST_MANAGED),
        zac_zbc=old.zac_zbc & 3,
    )


def _plausible_reserve(old: SuperBlock, start_sector: int, size_sectors: int) -> int:
    """Reserve that the old identity names directly, or through its logical size."""
    by_size = [
        reserved
        for reserved in range(DEFAULT_RESERVED, MAX_RESERVED + 1)
        if CreateLayout.compute(start_sector, size_sectors, reserved).logical_sectors == old.zdm_blocks
    ]
    if (
        old.mz_metadata_zones == 3
        and DEFAULT_RESERVED <= old.reserved <= MAX_RESERVED
        and (not by_size or old.reserved in by_size)
    ):
        return old.reserved
    return by_size[0] if by_size else DEFAULT_RESERVED
