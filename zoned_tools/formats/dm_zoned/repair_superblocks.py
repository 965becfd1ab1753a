"""Which super blocks a repair writes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import RefusedError
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    LABEL_BYTES,
    NR_SETS,
    Member,
    Superblock,
    encode_label,
)
from zoned_tools.formats.dm_zoned.superblocks import SuperblockState, TargetState, set_zones_of
from zoned_tools.formats.registry import RepairOptions

_NO_PADDING = bytes(BLOCK_BYTES - 112)
_MAX_GENERATION = (1 << 64) - 1


def newer_generation(state: TargetState, gen: int) -> int:
    """A generation above those of both sets, as long as there is one."""
    highest = max([gen, *(s.superblock.gen for s in state.sets if s.usable and s.superblock is not None)])
    return min(highest + 1, _MAX_GENERATION)


def repaired_superblock(state: TargetState, source: int) -> tuple[Superblock, list[str]]:
    """Super block of set ``source`` without its faults, and what a human should know.

    Version, UUIDs and label stay; what is missing is taken from the other super blocks, and
    made up only when none has it.

    Raises:
        RefusedError: too many zones died for the chunks that there are.
    """
    sb = state.sets[source].superblock
    assert sb is not None
    messages: list[str] = []
    sb = replace(sb, reserved=_NO_PADDING, version=max(sb.version, 1))
    if sb.version > 1:
        sb = _complete_names(state, sb, messages)
    else:
        sb = replace(sb, label_raw=bytes(LABEL_BYTES), dmz_uuid=NIL_UUID, dev_uuid=NIL_UUID)
    if any(f.code in ("sb-bad-reserved", "sb-bad-chunks") for f in state.sets[source].faults):
        room = state.geometry.nr_usable - NR_SETS * set_zones_of(sb, state.geometry) - sb.nr_chunks
        reserve = min(room, sb.nr_reserved_seq) if sb.nr_reserved_seq else room
        if reserve < 1:
            raise RefusedError(
                f"{1 - reserve} zones too few are usable for {sb.nr_chunks} chunks: export the data and format again",
                device=state.geometry.members[0].path,
            )
        reserve = min(reserve, state.geometry.nr_cache)
        messages.append(f"{reserve} instead of {sb.nr_reserved_seq} zones are reserved for reclaim")
        sb = replace(sb, nr_reserved_seq=reserve)
    return sb, messages


def _complete_names(state: TargetState, sb: Superblock, messages: list[str]) -> Superblock:
    named = [
        s.superblock
        for s in (*state.sets, *state.tertiary)
        if s.superblock is not None and s.superblock.version > 1 and all(not f.fatal for f in s.faults)
    ]
    if sb.dmz_uuid == NIL_UUID:
        known = [other.dmz_uuid for other in named if other.dmz_uuid != NIL_UUID]
        sb = replace(sb, dmz_uuid=known[0] if known else uuid.uuid4())
        messages.append(f"the target gets UUID {sb.dmz_uuid}")
    if not sb.label:
        labels = [other.label_raw for other in named if other.label]
        sb = replace(sb, label_raw=labels[0] if labels else encode_label(f"dmz-{str(sb.dmz_uuid)[:8]}"))
        messages.append(f"the target gets label {sb.label}")
    if sb.dev_uuid == NIL_UUID:
        sb = replace(sb, dev_uuid=uuid.uuid4())
        messages.append(f"device {state.geometry.members[0].path} gets UUID {sb.dev_uuid}")
    return sb


# -- tertiary super blocks


def _is_readable(found: SuperblockState) -> bool:
    """The checksum is right, so every field is what somebody wrote there."""
    return found.has_magic and not any(f.code in ("sb-bad-magic", "sb-bad-crc") for f in found.faults)


def refuse_wrong_members(state: TargetState, options: RepairOptions) -> None:
    """Do not rewrite super blocks of devices that belong elsewhere.

    Raises:
        RefusedError: members are in the wrong order, or one is not a member at all.
    """
    if state.chosen is None:
        return
    expected = state.superblock
    places = []
    for found, member in zip(state.tertiary, state.geometry.members[1:], strict=True):
        sb = found.superblock
        if sb is None or not _is_readable(found):
            _refuse_used_zone(state, found, member, options)
            continue
        foreign = sb.dmz_uuid != expected.dmz_uuid and NIL_UUID not in (sb.dmz_uuid, expected.dmz_uuid)
        if foreign and sb.label_raw != expected.label_raw and "sb-uuid-mismatch" not in options.allow:
            raise RefusedError(
                f"device {member.index} is a member of another target, {sb.label!r} {sb.dmz_uuid}",
                device=member.path,
                hint="--allow sb-uuid-mismatch takes it over",
            )
        if not foreign:
            places.append(sb.sb_block)
    if places != sorted(places):
        raise RefusedError("the members are in the wrong order", device=state.geometry.members[1].path)


def _refuse_used_zone(state: TargetState, found: SuperblockState, member: Member, options: RepairOptions) -> None:
    """A member's first zone holds one block; more means that this is another device's data."""
    geometry, zone = state.geometry, member.first_zone
    code = found.faults[0].code
    if geometry.sequential[zone] and (geometry.wp_blocks[zone] > 1) and code not in options.allow:
        raise RefusedError(
            f"the first zone of device {member.index} holds {geometry.wp_blocks[zone]} blocks of something else",
            device=member.path,
            hint=f"--allow {code} resets it",
        )


def tertiary_repairs(state: TargetState, superblock: Superblock) -> Iterator[tuple[Member, Superblock, str]]:
    """``(member, super block, message)`` of every tertiary super block that needs rewriting."""
    for found, member in zip(state.tertiary, state.geometry.members[1:], strict=True):
        kept = _device_uuid(found, superblock)
        wanted = replace(superblock, gen=0, sb_block=member.block_offset, dev_uuid=kept or uuid.uuid4())
        if wanted.pack() == found.raw:
            continue
        new = "" if kept else f" with new device UUID {wanted.dev_uuid}"
        yield member, wanted, f"the super block of device {member.index} is rewritten{new}"


def _device_uuid(found: SuperblockState, superblock: Superblock) -> uuid.UUID | None:
    """The member's own UUID, as far as its super block can be believed."""
    old = found.superblock
    if old is None or old.dev_uuid == NIL_UUID:
        return None
    return old.dev_uuid if _is_readable(found) or old.dmz_uuid == superblock.dmz_uuid else None
