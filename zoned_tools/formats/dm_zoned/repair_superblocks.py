"""Which super blocks a repair writes, and which members it doubts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import RefusedError, UsageError
from zoned_tools.formats.contract import Consent
from zoned_tools.formats.dm_zoned.judge import (
    UNREADABLE,
    SuperBlockState,
    TargetState,
    fits_without_deaths,
    set_zones_of,
)
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    LABEL_BYTES,
    MAGIC,
    MAX_VERSION,
    NR_SETS,
    SuperBlock,
    encode_label,
)
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import LABEL, SEQ, UUID, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Settings
    from zoned_tools.formats.dm_zoned.geometry import Member
    from zoned_tools.formats.shared.rules import ActionGroup

RESCUED = "rescued"
"""Label of a target whose own went with its super blocks."""

_NO_PADDING = bytes(BLOCK_BYTES - 112)


def repaired_superblock(state: TargetState, source: int, allow: frozenset[str]) -> tuple[SuperBlock, list[ActionGroup]]:
    """Super block of set ``source`` without its faults, and what that changes.

    A reserve that has to be lowered is lowered unasked where zones that died explain it, and enough is left
    (section 8.2 of the specification). Version, UUIDs and label stay; what is missing is taken from the other super
    blocks, and made up only when none has it. Magic and version are right whatever was found.

    Raises:
        RefusedError: too many zones died for the chunks that there are.
    """
    sb = state.sets[source].superblock
    assert sb is not None
    actions: list[ActionGroup] = []
    sb = replace(sb, magic=MAGIC, reserved=_NO_PADDING, version=max(sb.version, 1))
    if sb.version > 1:
        sb = _complete_names(state, sb, actions)
    else:
        sb = replace(sb, label_raw=bytes(LABEL_BYTES), dmz_uuid=NIL_UUID, dev_uuid=NIL_UUID)
    unfit = [f.code for f in state.sets[source].faults if f.code in ("sb-bad-reserved", "sb-bad-chunks")]
    if unfit:
        room = state.geometry.nr_usable - NR_SETS * set_zones_of(sb, state.geometry) - sb.nr_chunks
        reserve = min(room, sb.nr_reserved_seq) if sb.nr_reserved_seq else room
        if reserve < 1:
            raise RefusedError(
                f"{1 - reserve} zones too few are usable for {sb.nr_chunks} chunks: export the data and format again",
                device=state.geometry.members[0].path,
            )
        reserve = min(reserve, state.geometry.nr_cache)
        text = f"{reserve} instead of {sb.nr_reserved_seq} zones are reserved for reclaim"
        action = RULES.action(unfit[0], text)
        if unfit[0] == "sb-bad-chunks" and not _is_explained(state, sb, reserve):
            why = "no zones that died explain it, or too few would be left for reclaim"
            agreed = unfit[0] in allow
            action = RULES.action(unfit[0], f"{text}: {why}", consent=Consent.GUESSES, agreed=agreed)
        actions.append(action)
        if not action.waits:
            sb = replace(sb, nr_reserved_seq=reserve)
    return sb, actions


def rebuilt_superblock(state: TargetState, source: int, settings: Settings) -> SuperBlock:
    """A super block in place of lost ones, of generation 0: a repair that writes it raises that.

    Raises:
        UsageError: a setting that cannot be.
    """
    found, sb = state.rebuilt, state.sets[source].superblock
    assert found is not None
    assert sb is not None
    reserve = settings.number(SEQ) or found.assumed
    if reserve not in found.chunks:
        low, high = found.reserved
        possible = f"{low} to {high}" if high > low else str(low)
        raise UsageError(f"{SEQ}={reserve} is not possible: the mapping table fits a reserve of {possible}")
    version = int(settings.text(VERSION))
    if version < MAX_VERSION and state.geometry.is_multi:
        raise UsageError(f"{VERSION}={version} is for single devices")
    sb = replace(sb, nr_reserved_seq=reserve, nr_chunks=found.chunks[reserve], version=version)
    if version < MAX_VERSION:
        return replace(sb, label_raw=bytes(LABEL_BYTES), dmz_uuid=NIL_UUID, dev_uuid=NIL_UUID)
    label, name = settings.text(LABEL), settings.text(UUID)
    try:
        raw = encode_label(label) if label or not sb.label else sb.label_raw
    except ValueError as error:
        raise UsageError(str(error)) from None
    return replace(
        sb,
        label_raw=raw if any(raw) else encode_label(RESCUED),
        dmz_uuid=uuid.UUID(name) if name else sb.dmz_uuid if sb.dmz_uuid != NIL_UUID else uuid.uuid4(),
        dev_uuid=uuid.uuid4(),
    )


def _is_explained(state: TargetState, sb: SuperBlock, reserve: int) -> bool:
    """Whether dead zones alone are why the chunks do not fit, and the reserve that is left can be used.

    In a target of several devices the first zones of the members, and a runt, are counted as usable and are not.
    """
    geometry = state.geometry
    runt = bool((geometry.runt & geometry.cache).any())
    least = len(geometry.members[1:]) + runt if geometry.is_multi else 0
    return fits_without_deaths(sb, geometry) and reserve > least


def _complete_names(state: TargetState, sb: SuperBlock, actions: list[ActionGroup]) -> SuperBlock:
    named = [
        s.superblock
        for s in (*state.sets, *state.tertiary)
        if s.superblock is not None and s.superblock.version > 1 and all(not f.fatal for f in s.faults)
    ]
    if sb.dmz_uuid == NIL_UUID:
        known = [other.dmz_uuid for other in named if other.dmz_uuid != NIL_UUID]
        sb = replace(sb, dmz_uuid=known[0] if known else uuid.uuid4())
        actions.append(RULES.action("sb-null-uuid", f"the target gets UUID {sb.dmz_uuid}"))
    if not sb.label:
        labels = [other.label_raw for other in named if other.label]
        sb = replace(sb, label_raw=labels[0] if labels else encode_label(f"dmz-{str(sb.dmz_uuid)[:8]}"))
        actions.append(RULES.action("sb-null-label", f"the target gets label {sb.label}"))
    if sb.dev_uuid == NIL_UUID:
        sb = replace(sb, dev_uuid=uuid.uuid4())
        text = f"device {state.geometry.members[0].path} gets UUID {sb.dev_uuid}"
        actions.append(RULES.action("sb-null-dev-uuid", text))
    return sb


def rewritten(state: TargetState, wanted: list[SuperBlock]) -> Iterator[ActionGroup]:
    """What a human should know about the super blocks of the sets that are written."""
    for found, superblock in zip(state.sets if state.rebuilt is None else (), wanted, strict=False):
        where = found.place.where
        if found.faults and superblock.pack() != found.raw:
            yield RULES.action(found.faults[0].code, f"the {found.place.name} is rewritten", **where)
        elif not found.faults and superblock.reserved != (
            found.superblock.reserved if found.superblock is not None else b""
        ):
            yield RULES.action("sb-reserved-nonzero", f"reserved bytes of the {found.place.name} are zeroed", **where)


# -- tertiary super blocks


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a device may not be the member that it is named as, and what takes it over all the same."""

    member: Member
    code: str
    sentence: str

    def action(self, *, agreed: bool) -> ActionGroup:
        """Take the device over."""
        return RULES.action(self.code, self.sentence, consent=Consent.GUESSES, agreed=agreed, device=self.member.index)


def _is_readable(found: SuperBlockState) -> bool:
    """The checksum is right, so every field is what somebody wrote there."""
    return found.has_magic and not any(f.code in ("sb-bad-magic", "sb-bad-crc") for f in found.faults)


def doubtful_members(state: TargetState) -> list[Doubt]:
    """Devices that belong to another target, or hold something else where the super block should be.

    Raises:
        RefusedError: members are in the wrong order.
    """
    expected = state.superblock
    places: list[int] = []
    doubts: list[Doubt] = []
    for found, member in zip(state.tertiary, state.geometry.members[1:], strict=True):
        sb = found.superblock
        if sb is None or not _is_readable(found):
            doubts += _used_zone(state, found, member)
        elif sb.dmz_uuid != expected.dmz_uuid and NIL_UUID not in (sb.dmz_uuid, expected.dmz_uuid):
            doubts.append(
                Doubt(
                    member,
                    "sb-uuid-mismatch",
                    f"device {member.index} is a member of another target, {sb.label!r} {sb.dmz_uuid}: "
                    "it is taken over into this one",
                )
            )
        else:
            places.append(sb.sb_block)
    if places != sorted(places):
        raise RefusedError("the members are in the wrong order", device=state.geometry.members[1].path)
    return doubts


def _used_zone(state: TargetState, found: SuperBlockState, member: Member) -> Iterator[Doubt]:
    """A member's first zone holds one block; more means that this is another device's data."""
    geometry, zone = state.geometry, member.first_zone
    if geometry.sequential[zone] and geometry.wp_blocks[zone] > 1:
        yield Doubt(
            member,
            found.faults[0].code,
            f"the first zone of device {member.index} holds {geometry.wp_blocks[zone]} blocks of something else: "
            "it is reset, they are lost",
        )


def tertiary_repairs(
    state: TargetState, superblock: SuperBlock, allow: frozenset[str]
) -> Iterator[tuple[Member, SuperBlock, ActionGroup]]:
    """``(member, super block, action)`` of every tertiary super block that needs rewriting.

    One that cannot be read waits for consent: nothing says that the device is the member that it is named as.
    """
    for found, member in zip(state.tertiary, state.geometry.members[1:], strict=True):
        kept = _device_uuid(found, superblock)
        wanted = replace(superblock, gen=0, sb_block=member.block_offset, dev_uuid=kept or uuid.uuid4())
        if wanted.pack() == found.raw:
            continue
        new = "" if kept else f" with new device UUID {wanted.dev_uuid}"
        text = f"the super block of device {member.index} is rewritten{new}"
        consent = Consent.GUESSES if found.is_unreadable else Consent.CERTAIN
        agreed = UNREADABLE in allow
        yield (
            member,
            wanted,
            RULES.action(_reason(state, found), text, consent=consent, agreed=agreed, device=member.index),
        )


def _reason(state: TargetState, found: SuperBlockState) -> str:
    """Code of what a tertiary super block is rewritten for: its own, or what was wrong in the sets."""
    codes = [fault.code for fault in found.faults]
    codes += [code for code, _ in found.notes if RULES[code].repair]
    codes += [fault.code for one in state.sets for fault in one.faults]
    return next(iter(codes), "sb-bad-chunks")


def _device_uuid(found: SuperBlockState, superblock: SuperBlock) -> uuid.UUID | None:
    """The member's own UUID, as far as its super block can be believed."""
    old = found.superblock
    if old is None or old.dev_uuid == NIL_UUID:
        return None
    return old.dev_uuid if _is_readable(found) or old.dmz_uuid == superblock.dmz_uuid else None
