"""Steps that rewrite super blocks, for repair, relabel and restore."""

from __future__ import annotations

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.formats.dm_zoned.layout import Member, Superblock, TargetGeometry

SET_NAMES = ("primary", "secondary")


def plan_superblock(plan: Plan, geometry: TargetGeometry, number: int, superblock: Superblock) -> None:
    """Write the super block of set ``number`` at the place that it names, and flush."""
    device, offset_bytes = geometry.locate(superblock.sb_block)
    plan.write(device, offset_bytes, superblock.pack(), f"{SET_NAMES[number]} super block")
    plan.flush(device)


def plan_tertiary(plan: Plan, geometry: TargetGeometry, member: Member, superblock: Superblock) -> None:
    """Write the super block of a zoned member; a sequential zone is reset for it."""
    zone = member.first_zone
    if geometry.sequential[zone] and geometry.not_empty[zone]:
        plan.manage(
            member.index, ZoneOperation.RESET, member.start_bytes // geometry.zone_bytes, 1, "rewrite super block"
        )
    plan.write(member.index, member.start_bytes, superblock.pack(), f"tertiary super block of {member.path}")
    plan.flush(member.index)
