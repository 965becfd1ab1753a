"""Which layouts are on the devices that a user named, and which devices belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

from zoned_tools.device.base import Device
from zoned_tools.device.partition import PartitionView, partition_starts, partitions
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.registry import LAYOUTS, LOGICAL_BLOCK_BYTES, Identity, ProbeRoom, Target, room

WHOLE_DRIVE_LAYOUTS = frozenset({"zdm"})
"""Layouts that count in zones of the whole drive even when they begin at a partition; they are
handed the drive and the start, the others a view of the partition."""


@dataclass(frozen=True, slots=True)
class Probed:
    """A device and what a probe found on it (None: nothing known)."""

    device: Device
    identity: Identity | None


def view_at(device: Device, start_bytes: int, layout: str) -> tuple[Device, int]:
    """The device and start to hand to a layout's rooms."""
    if start_bytes == 0 or layout in WHOLE_DRIVE_LAYOUTS:
        return device, start_bytes
    return PartitionView(device, start_bytes, dict(partitions(device)).get(start_bytes)), 0


def probe_device(device: Device, start_sector: int | None = None, layout: str | None = None) -> Probed:
    """Look for a layout at ``start_sector``, or at 0 and where a partition table points."""
    starts = [start_sector * SECTOR_BYTES] if start_sector is not None else [0, *partition_starts(device)]
    for start in starts:
        for name in LAYOUTS if layout is None else (layout,):
            identity = _probe_at(device, start, name)
            if identity is not None:
                return Probed(device, replace(identity, start_bytes=start))
    return Probed(device, None)


def _probe_at(device: Device, start_bytes: int, layout: str) -> Identity | None:
    probing = room(layout, "probe")
    geometry = device.geometry
    if probing is None or start_bytes >= geometry.size_bytes:
        return None
    inside_a_zone = geometry.is_zoned and start_bytes % geometry.zone_bytes
    if inside_a_zone and layout not in WHOLE_DRIVE_LAYOUTS:
        return None
    return cast(ProbeRoom, probing).probe(*view_at(device, start_bytes, layout))


def _target(layout: str, devices: Sequence[Device], start_bytes: int) -> Target:
    views = [view_at(device, start_bytes, layout) for device in devices]
    return Target(layout, tuple(view for view, _ in views), views[0][1])


def group_targets(
    devices: Sequence[Device], *, start_sector: int | None = None, layout: str | None = None
) -> tuple[list[Target], list[Device]]:
    """Targets in the order of their first device, and the devices without a known layout.

    Members of one target are put in the order that their super blocks tell, whatever
    order they were named in. When all the identified devices are one group, the others
    are taken for its members with damaged super blocks and the user's order stands; so are
    members that name another target whose first device is not there.
    With ``layout`` given nothing has to be recognised: the devices are one target.
    """
    probed = [probe_device(device, start_sector, layout) for device in devices]
    known = [p.identity for p in probed if p.identity is not None]
    unknown = [p.device for p in probed if p.identity is None]
    groups = {identity.group or None for identity in known}
    if layout is not None and unknown:
        return [_target(layout, devices, (start_sector or 0) * SECTOR_BYTES)], []
    if unknown and len(groups) == 1 and None not in groups:
        return [_target(known[0].layout, devices, known[0].start_bytes)], []
    if not unknown and _is_one_with_strays(probed):
        return [_target(known[0].layout, devices, known[0].start_bytes)], []
    targets: list[Target] = []
    done: set[str] = set()
    for one in probed:
        identity = one.identity
        if identity is None or identity.group in done:
            continue
        members = [one]
        if identity.group:
            done.add(identity.group)
            members = _in_order([p for p in probed if p.identity is not None and p.identity.group == identity.group])
        targets.append(_target(identity.layout, [m.device for m in members], identity.start_bytes))
    return targets, unknown


def _in_order(members: list[Probed]) -> list[Probed]:
    """Members of one target by position, or as the user named them when the positions cannot be right."""
    placed = sorted((p.identity.position if p.identity else 0, index) for index, p in enumerate(members))
    zone_blocks = max(p.device.geometry.zone_bytes for p in members) // LOGICAL_BLOCK_BYTES
    for (position, index), (following, _) in pairwise(placed):
        blocks = -(-members[index].device.geometry.size_bytes // LOGICAL_BLOCK_BYTES)
        if not blocks <= following - position < blocks + max(zone_blocks, 1):
            return members
    return [members[index] for _, index in placed]


def _is_one_with_strays(probed: Sequence[Probed]) -> bool:
    """True when all devices are members, only one group has its regular device, and it has room for the others.

    A member without the regular device of its target cannot be used alone, so it is more
    likely that its super block is damaged.
    """
    members = [(p.identity, p.device) for p in probed if p.identity is not None and p.identity.group]
    heads = {identity.group for identity, device in members if not device.geometry.is_zoned}
    if len(members) < len(probed) or len(heads) != 1 or len({identity.group for identity, _ in members}) < 2:
        return False
    places = [identity.position for identity, _ in members]
    return len(set(places)) == len(places)


def single_target(devices: Sequence[Device], *, start_sector: int | None = None, layout: str | None = None) -> Target:
    """The one target that all the devices are.

    Raises:
        MetadataError: no layout is recognised.
        UsageError: the devices are several targets.
    """
    targets, unknown = group_targets(devices, start_sector=start_sector, layout=layout)
    if unknown:
        raise MetadataError("no layout is recognised", device=unknown[0].path, hint="--layout NAME forces one")
    if len(targets) > 1:
        raise UsageError("these devices are not one target", hint="name the devices of one target at a time")
    return targets[0]


def need_room(target: Target, name: str, doing: str) -> object:
    """The room ``name`` of the target's layout.

    Raises:
        UsageError: the layout has none.
    """
    module = room(target.layout, name)
    if module is None:
        raise UsageError(f"{target.layout} has nothing to {doing}", device=target.device.path)
    return module
