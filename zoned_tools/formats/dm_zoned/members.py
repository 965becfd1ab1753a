"""Devices of a multi-device target: their order, and which devices are one although probing does not say so."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Probed
from zoned_tools.formats.dm_zoned.constants import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence


def order_members(members: Sequence[Probed]) -> Sequence[Probed]:
    """Members of one target by position, or as the user named them when the positions cannot be right."""
    placed = sorted((p.identity.position if p.identity else 0, index) for index, p in enumerate(members))
    zone_blocks = max(p.device.geometry.zone_bytes for p in members) // LOGICAL_BLOCK_BYTES
    for (position, index), (following, _) in pairwise(placed):
        blocks = -(-members[index].device.geometry.size_bytes // LOGICAL_BLOCK_BYTES)
        room = zone_blocks or blocks  # of raw copies the zone size is not known here
        if not blocks <= following - position < blocks + max(room, 1):
            return members
    return [members[index] for _, index in placed]


def claims(probed: Sequence[Probed]) -> bool:
    """True when all the devices are one target, in the order in which the user named them.

    When all the identified devices are one group, the others are taken for its members with damaged super
    blocks; so are members that name another target whose first device is not there.
    """
    known = [p.identity for p in probed if p.identity is not None]
    if not known or any(identity.layout != NAME or not identity.group for identity in known):
        return False
    if len(known) < len(probed):
        return len({identity.group for identity in known}) == 1
    return _is_one_with_strays(probed)


def _is_one_with_strays(probed: Sequence[Probed]) -> bool:
    """True when all devices are members, only one group has its regular device, and it has room for the others.

    A member without the regular device of its target cannot be used alone, so it is more
    likely that its super block is damaged.
    """
    members = [(p.identity, p.device) for p in probed if p.identity is not None]
    heads = {identity.group for identity, device in members if not device.geometry.is_zoned}
    if len(heads) != 1 or len({identity.group for identity, _ in members}) < 2:
        return False
    places = [identity.position for identity, _ in members]
    return len(set(places)) == len(places)
