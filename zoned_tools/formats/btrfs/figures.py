"""What monitoring wants to know of a file system: how zones are used, and what relocation would give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.zone_accounts import NoZonesError, account_zones
from zoned_tools.formats.contract import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.zone_accounts import ZoneRow
    from zoned_tools.formats.contract import Target

_OWNERS = ("super-ring", "block-group", "super-place", "orphan", "free")
_BYTES = {
    "used": "Bytes of block groups that extents use; each copy of a group counts.",
    "unusable": "Bytes of block groups that were written and are not used: relocation gives them back.",
    "free": "Bytes of block groups that can still be written.",
}


def figures(target: Target) -> Iterator[Figure]:
    """Zones by owner, bytes by kind of block group, and active zones of each device; nothing without zones.

    Raises:
        MetadataError: as :func:`~.zone_accounts.account_zones`.
    """
    try:
        accounts = account_zones(target)
    except NoZonesError:
        return
    yield Figure("generation", "Generation of the newest super block.", (), accounts.block.generation)
    for device in accounts.devices:
        devid = (("devid", str(device["devid"])),)
        for owner in _OWNERS:
            count = sum(row["owner"] == owner for row in device["zones"])
            yield Figure("zones", "Zones by who owns them.", (*devid, ("owner", owner)), count)
        for kind in sorted({row["kind"] for row in device["zones"] if "kind" in row}):
            rows = [row for row in device["zones"] if row.get("kind") == kind]
            for name, about in _BYTES.items():
                yield Figure(f"{name}_bytes", about, (*devid, ("kind", kind)), _sum(rows, name))
        yield Figure("active_zones", "Zones that are open or closed.", devid, device["active_zones"])
        limit = device["max_active_zones"]
        yield Figure("max_active_zones", "Zones that may be active at once; 0 without a limit.", devid, limit)


def _sum(rows: list[ZoneRow], name: str) -> int:
    """A column in bytes; zones of which it is not known do not count."""
    columns = {
        "used": [row.get("used_bytes") for row in rows],
        "unusable": [row.get("unusable_bytes") for row in rows],
        "free": [row.get("free_bytes") for row in rows],
    }
    return sum(number or 0 for number in columns[name])
