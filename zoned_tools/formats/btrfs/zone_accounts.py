"""Who owns each zone, and how much of it is in use, lost to freed blocks, and free (btrfs-zoned.md 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from zoned_tools.device.zones import ACTIVE_CONDITIONS, condition_name, type_name
from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.block_groups import UNKNOWN, block_groups_of
from zoned_tools.formats.btrfs.chosen import choose_supers
from zoned_tools.formats.btrfs.chunks import BLOCK_GROUP_TYPES, ROW_PROFILES, profile_name
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, mirrors_on
from zoned_tools.formats.btrfs.survey import survey_file_system
from zoned_tools.formats.btrfs.tree_survey import survey_trees
from zoned_tools.formats.btrfs.zone_states import CONVENTIONAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from zoned_tools.device.base import Device
    from zoned_tools.formats.btrfs.block_groups import BlockGroups
    from zoned_tools.formats.btrfs.chunks import Chunk
    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.zone_states import ZoneStates
    from zoned_tools.formats.contract import Settings, Target


MAX_ZONES = 1 << 22
"""More than any drive has: emulated zones are as many as a sparse file claims."""


class NoZonesError(MetadataError):
    """A file system that is not zoned."""


class ZoneColumns(TypedDict):
    """What every zone has; ``written_bytes`` is null without a write pointer."""

    zone: int
    start_bytes: int
    capacity_bytes: int
    type: str
    condition: str
    owner: str
    written_bytes: int | None


class ZoneRow(ZoneColumns, total=False):
    """One zone, by its owner with more keys; null where a profile or a dead zone does not tell."""

    mirror: int
    block_group: int
    kind: str
    profile: str
    stripe: int
    used_bytes: int | None
    last_extent_end_bytes: int | None
    unusable_bytes: int | None
    free_bytes: int | None


class DeviceRow(TypedDict):
    """One device and its zones; ``max_active_zones`` is 0 without a limit."""

    device: str
    devid: int
    zone_size_bytes: int
    nr_zones: int
    active_zones: int
    max_active_zones: int
    zones: list[ZoneRow]


@dataclass(frozen=True, slots=True)
class ZoneAccounts:
    """The zones of a file system's devices, after one super block of it."""

    block: SuperBlock
    chunks: list[Chunk]
    devices: list[DeviceRow]


def account_zones(target: Target, settings: Settings | None = None) -> ZoneAccounts:
    """Account for every zone of every device, after the newest super block or that of ``settings``.

    Raises:
        MetadataError: no super block is valid, its roots cannot be read, its zone size is not possible, or there
            are more than :data:`MAX_ZONES`.
    """
    fs = survey_file_system(target)
    block = fs.newest if settings is None else choose_supers(fs, settings).block
    if block is None:
        raise MetadataError("no valid super block", device=target.device.path)
    roots = fs.reader.roots_readable(block)
    if not roots.readable:
        sentence = f"the trees of generation {block.generation} cannot be read: {roots.reason}"
        raise MetadataError(sentence, device=target.device.path)
    zones = fs.zone_states(block)
    if not zones:
        raise NoZonesError("a file system without zones", device=target.device.path)
    for devid, states in zones.items():
        if len(states.written) > MAX_ZONES:
            sentence = f"{len(states.written)} zones of {states.zone_bytes} bytes are too many to list"
            raise MetadataError(sentence, device=fs.path_of(devid) or target.device.path)
    trees = survey_trees(fs.reader, block, zones)
    found = block_groups_of(trees, zones)
    rows = [_device(fs.reader.devices[devid], devid, states, found) for devid, states in zones.items()]
    return ZoneAccounts(block, trees.walk.chunks.chunks, rows)


def _device(device: Device, devid: int, states: ZoneStates, found: BlockGroups) -> DeviceRow:
    geometry = device.geometry
    zones = list(_zones(device, devid, states, found))
    active = {condition_name(condition) for condition in ACTIVE_CONDITIONS}
    return {
        "device": device.path,
        "devid": devid,
        "zone_size_bytes": states.zone_bytes,
        "nr_zones": len(zones),
        "active_zones": sum(row["condition"] in active for row in zones),
        "max_active_zones": geometry.max_active_zones,
        "zones": zones,
    }


def _zones(device: Device, devid: int, states: ZoneStates, found: BlockGroups) -> Iterator[ZoneRow]:
    """The rows of one device; the first owner of super-ring, block-group, super-place, orphan and free counts."""
    is_zoned = device.geometry.is_zoned
    count = len(states.written)
    pairs = mirrors_on(count, states.zone_bytes) if is_zoned else []
    rings = {zone: mirror for mirror, first in pairs for zone in (first, first + 1)}
    places = {place // states.zone_bytes: mirror for mirror, place in reversed(list(enumerate(MIRROR_BYTENR)))}
    stripes = {int(row["zone"]): row for row in found.stripes if row["devid"] == devid and row["zone"] >= 0}
    types = device.zones()["type"].tolist() if is_zoned else [1] * count
    columns = (states.written.tolist(), states.capacity.tolist(), states.condition.tolist())
    for zone, (kind, written, capacity, condition) in enumerate(zip(types, *columns, strict=True)):
        row: ZoneRow = {
            "zone": zone,
            "start_bytes": zone * states.zone_bytes,
            "capacity_bytes": capacity,
            "type": type_name(kind),
            "condition": condition_name(condition),
            "owner": "free",
            "written_bytes": written if written >= 0 else None,
        }
        if zone in rings:
            row["owner"], row["mirror"] = "super-ring", rings[zone]
        elif zone in stripes:
            row["owner"] = "block-group"
            _add_block_group(row, stripes[zone], found, written)
        elif zone in places:
            row["owner"], row["mirror"] = "super-place", places[zone]
        elif written > 0:
            row["owner"] = "orphan"
        yield row


def _add_block_group(row: ZoneRow, stripe: np.void, found: BlockGroups, written: int) -> None:
    """The keys of a zone that belongs to a block group; each copy carries the figures of the whole group."""
    group = found.groups[stripe["group"]]
    kind, used, last = int(group["type"]), int(group["used"]), int(group["last"])
    row["block_group"] = int(group["logical"])
    row["kind"] = "+".join(name.lower() for bit, name in BLOCK_GROUP_TYPES.items() if kind >> bit & 1)
    row["profile"] = profile_name(kind)
    row["stripe"] = int(stripe["stripe"])
    known = used != UNKNOWN and row["profile"] not in ROW_PROFILES
    row["used_bytes"] = used if known else None
    row["last_extent_end_bytes"] = last if known else None
    pointer = last if written == CONVENTIONAL else written
    counted = known and pointer >= 0
    row["unusable_bytes"] = max(pointer - used, 0) if counted else None
    row["free_bytes"] = row["capacity_bytes"] - pointer if counted else None
