"""What a fault of a super block says about its device: another target's, out of order, or one that cannot be written.

Source: sections 8.6 and 8.7 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState


@dataclass(frozen=True, slots=True)
class Words:
    """What a finding says of a super block.

    Attributes:
        sentence: what the device is, in place of the fault; empty where the fault says it all.
        repairable: False where a repair leaves it alone.
    """

    sentence: str = ""
    repairable: bool = True


def words_of(state: TargetState, found: SuperBlockState) -> Words:
    """What the first fault of a super block comes from."""
    fault = found.faults[0]
    if fault.code == "sb-bad-chunks":
        return _dead_metadata(state, fault.message)
    if not found.place.is_tertiary or found.superblock is None:
        return Words()
    if any(one.code in ("sb-bad-magic", "sb-bad-crc") for one in found.faults):
        return Words()
    if fault.code == "sb-uuid-mismatch":
        return Words(_of_another_target(state, found))
    order = _right_order(state) if fault.code == "sb-bad-location" else []
    if not order:
        return Words()
    names = " ".join(shell_word(path) for path in order)
    return Words(f"the members are in the wrong order; name them as {names}", repairable=False)


def _dead_metadata(state: TargetState, message: str) -> Words:
    """That a metadata zone takes no writes any more, where one does not; a super block in it is left alone."""
    geometry, layout = state.geometry, state.layout
    if layout is None:
        return Words()
    for zone in layout.metadata_zones:
        if geometry.dead[zone]:
            number, at = divmod(zone - layout.first_zone, layout.set_zones)
            condition = "offline" if geometry.offline[zone] else "read-only"
            dead = f"zone {zone} holds metadata set {number} and is {condition}: the target cannot be written"
            return Words(f"{message}; {dead}", repairable=at > 0)
    return Words()


def _of_another_target(state: TargetState, found: SuperBlockState) -> str:
    known = next((one.superblock for one in state.sets if one.valid), None)
    sb, member = found.superblock, state.geometry.members[found.place.number]
    if known is None or sb is None:
        return ""
    return (
        f"{member.path} is a member of another dm-zoned target, {sb.label!r} ({sb.dmz_uuid}), not of {known.label!r} "
        f"({known.dmz_uuid}); name the member with zones from {member.first_zone} on instead"
    )


def _right_order(state: TargetState) -> list[str]:
    """The devices in the order in which each member has its place; empty where there is none."""
    members = state.geometry.members
    places = [one.superblock.sb_block if one.superblock is not None else 0 for one in state.tertiary]
    if not _fit(places, state):
        return []
    placed = sorted(zip(places, (member.path for member in members[1:]), strict=True))
    return [members[0].path, *(path for _, path in placed)]


def _fit(places: list[int], state: TargetState) -> bool:
    """Whether the members, put in order, follow each other without gaps."""
    sizes = dict(zip(places, (member.nr_zones for member in state.geometry.members[1:]), strict=True))
    at = state.geometry.members[1].block_offset
    for place in sorted(places):
        if place != at:
            return False
        at += sizes[place] * state.geometry.zone_blocks
    return len(sizes) == len(places)
