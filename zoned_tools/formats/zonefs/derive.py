"""The zone table of a raw copy of a zonefs volume: nothing on it says the size of its zones, so the user has to.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import RefusedError
from zoned_tools.formats.shared.derived import Bounds, DerivedZones, ZoneWishes, zones_by_content
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.contract import Target

ESTIMATED = ("zone size", "number of conventional zones", "write pointers")


def derive_zones(target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
    """The zone table of a raw copy whose zone size the user knows; nothing without.

    Raises:
        UsageError: the wish is no zone size.
        RefusedError: none is named although a zone table is wanted, or there are not as many zones.
    """
    device = target.device
    if device.geometry.is_zoned or not (wishes.zone_bytes or wishes.insisted):
        return [None]
    if not wishes.zone_bytes:
        raise RefusedError(
            "nothing on a raw copy of a zonefs volume says the size of its zones",
            device=device.path,
            hint="zoned image adopt --zone-size BYTES [--conventional N] writes a zone table for it",
        )
    nr_zones = -(-device.geometry.size_bytes // wishes.zone_bytes)
    bounds = Bounds.choose(0, nr_zones, 0, wishes.conventional_of(0), device.path)
    return [zones_by_content(device, wishes.zone_bytes, bounds, (), ESTIMATED, finish=_finish)]


def _finish(table: ZoneTable) -> ZoneTable:
    """mkzonefs finishes a sequential zone 0 behind the super block."""
    from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, ZoneType

    if table["type"][0] != ZoneType.CONVENTIONAL and table["length_sectors"][0] * SECTOR_BYTES >= SUPER_BLOCK_BYTES:
        table["condition"][0] = ZoneCondition.FULL
        table["wp_sector"][0] = table["start_sector"][0] + table["length_sectors"][0]
    return table
