"""The findings about the rings and the copies in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.runs import runs
from zoned_tools.device.zones import condition_name
from zoned_tools.formats.btrfs.copies import Magic, copy_fsid
from zoned_tools.formats.btrfs.judge import UNREADABLE, head_fault, mirror_is_absent, repair_code, wrong_choice
from zoned_tools.formats.btrfs.layout import SUPER_BYTES
from zoned_tools.formats.btrfs.open import Mode
from zoned_tools.formats.btrfs.ring import Fill, RingState, RingZone, older_zone, smallest_generations
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.contract import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.formats.btrfs.survey import FileSystem, MirrorSurvey, Where
    from zoned_tools.formats.shared.findings import FindingGroup

MAX_LISTED = 64
"""Places named in one finding; the count is always there."""

_ABOVE_WP_SLOTS = 16
"""Slots above a write pointer that are looked at in an image."""


def ring_findings(fs: FileSystem, index: int) -> Iterator[FindingGroup]:
    """Everything about the mirrors of one device."""
    survey = fs.surveys[index]
    repairable = survey.best is not None
    yield from _unreadable_blocks(fs, index)
    for mirror in survey.mirrors:
        where = fs.where(index, mirror)
        if mirror.mirror.mode is Mode.RING:
            yield from _check_zones(survey.device, mirror, where)
        elif mirror.is_dead:
            zone = mirror.mirror.zones[0]
            yield RULES.finding("ring-zone-dead", f"zone {zone} is read-only or offline", **where, zone=zone)
        yield from _check_head(mirror, where, repairable=repairable)
        if mirror.mirror.mode is Mode.RING:
            yield from _check_copies(fs, mirror, where)
    yield from _check_mirrors(fs, index)


# -- the medium


def _unreadable_blocks(fs: FileSystem, index: int) -> Iterator[FindingGroup]:
    """Each run of super blocks that cannot be read; another copy serves, or none of the device does."""
    best = fs.surveys[index].best
    for mirror in fs.surveys[index].mirrors:
        offsets = mirror.unreadable["offset_bytes"] // SUPER_BYTES
        repairable = repair_code(mirror) == UNREADABLE
        for first, end in runs(offsets):
            start, count = int(first) * SUPER_BYTES, end - first
            blocks = "a super block" if count == 1 else f"{count} super blocks"
            sentence = f"{blocks} at byte {start} cannot be read"
            where: dict[str, Any] = {**fs.where(index, mirror), "what": "super"}
            where |= {"offset_bytes": start, "length_bytes": count * SUPER_BYTES}
            if best is None:
                yield RULES.finding("metadata-lost", f"{sentence}, and no mirror holds a valid one", **where)
                continue
            copy = best[1]
            sentence += f"; generation {int(copy['generation'])} at byte {int(copy['offset_bytes'])} serves"
            yield RULES.finding(UNREADABLE, sentence, repairable=repairable, **where)


# -- the zones


def _check_zones(device: Device, survey: MirrorSurvey, where: Where) -> Iterator[FindingGroup]:
    pair = survey.mirror.pair
    assert pair is not None
    dead = [zone for zone in pair if zone.fill is Fill.DEAD]
    for zone in dead:
        sentence = f"zone {zone.zone} is {condition_name(zone.condition)}"
        yield RULES.finding("ring-zone-dead", sentence, **where, zone=zone.zone)
    if survey.state is RingState.INVALID and not dead:
        zones = [zone.zone for zone in pair]
        sentence = f"zone {zones[0]} is {_fill_text(pair[0])} and zone {zones[1]} is {_fill_text(pair[1])}"
        yield RULES.finding("ring-invalid", sentence, **where, zones=zones)
    for zone in pair:
        place: Where = {**where, "zone": zone.zone}
        if zone.slots < 2:
            yield RULES.finding("capacity-small", f"zone {zone.zone} has room for {zone.slots} super blocks", **place)
        if not zone.wp_is_aligned:
            sentence = f"zone {zone.zone} has its write pointer at byte {zone.wp_bytes}"
            yield RULES.finding("wp-unaligned", sentence, **place, wp_bytes=zone.wp_bytes)
        yield from _check_above(device, zone, place)
    yield from _check_blank(survey, where)


def _fill_text(zone: RingZone) -> str:
    return {Fill.IN_USE: "in use"}.get(zone.fill, str(zone.fill))


def _check_above(device: Device, zone: RingZone, where: Where) -> Iterator[FindingGroup]:
    """Content that a drive would not show; only the image itself can tell."""
    if not isinstance(device, EmulatedDrive) or not device.geometry.is_zoned or zone.wp_bytes is None:
        return
    end = zone.start_bytes + zone.capacity_bytes
    raw = device.read_stored(zone.wp_bytes, min(_ABOVE_WP_SLOTS * SUPER_BYTES, end - zone.wp_bytes))
    blocks = [raw[at : at + SUPER_BYTES] for at in range(0, len(raw), SUPER_BYTES)]
    count = sum(1 for block in blocks if any(block) and block.strip(b"\xff"))
    if count:
        sentence = f"zone {zone.zone} holds {count} blocks at or above its write pointer {zone.wp_bytes}"
        yield RULES.finding("wp-behind", sentence, **where, wp_bytes=zone.wp_bytes, count=count)


def _check_blank(survey: MirrorSurvey, where: Where) -> Iterator[FindingGroup]:
    blank = np.flatnonzero(survey.copies["zero"])
    if len(blank):
        first = int(survey.copies["offset_bytes"][blank[0]])
        sentence = f"{len(blank)} blocks of zeroes below the write pointer, the first at byte {first}"
        yield RULES.finding("wp-ahead", sentence, **where, offset_bytes=first, count=len(blank))


# -- the head


def _check_head(survey: MirrorSurvey, where: Where, *, repairable: bool) -> Iterator[FindingGroup]:
    fault = head_fault(survey)
    head, newest = survey.head, survey.newest_copy
    place = where
    if head is not None:
        place = {**where, "offset_bytes": int(head["offset_bytes"])}
    if mirror_is_absent(survey):
        yield RULES.finding("mirror-absent", f"mirror {survey.number} holds no super block", **where)
    elif fault is not None and fault[0] != UNREADABLE:
        code, sentence = fault
        found = RULES.finding(code, sentence, **place, repairable=repairable)
        yield found if survey.number == 0 else replace(found, severity=Severity.WARNING)
    if head is None or newest is None:
        return
    if wrong_choice(survey):
        sentence = (
            f"the kernel takes generation {int(head['generation'])} at byte {int(head['offset_bytes'])}, "
            f"the newest valid is {int(newest['generation'])} at byte {int(newest['offset_bytes'])}"
        )
        yield RULES.finding("choice-influenced", sentence, **place)
    elif survey.head_is_valid and survey.head_row != survey.newest:
        sentence = (
            f"the kernel takes generation {int(head['generation'])}, "
            f"the last in the ring is {int(newest['generation'])} at byte {int(newest['offset_bytes'])}"
        )
        yield RULES.finding("choice-stale", sentence, **place)


# -- the other copies


def _check_copies(fs: FileSystem, survey: MirrorSurvey, where: Where) -> Iterator[FindingGroup]:
    copies = survey.copies
    bad = ~copies["valid"] & ~copies["zero"] & ~copies["unreadable"] & (copies["magic"] != Magic.TEMPORARY)
    if survey.head_row is not None:
        bad[survey.head_row] = False
    rows = np.flatnonzero(bad)
    if len(rows):
        offsets = [int(o) for o in copies["offset_bytes"][rows[:MAX_LISTED]]]
        sentence = f"{len(rows)} damaged super blocks, the first at byte {offsets[0]}"
        yield RULES.finding("middle-bad", sentence, **where, offsets_bytes=offsets, count=len(rows))
    yield from _check_order(survey, where)
    newest = fs.newest
    if newest is None:
        return
    foreign = np.flatnonzero(copies["valid"] & (copies["fsid"] != np.void(newest.fsid.bytes)))
    if len(foreign):
        copy = copies[foreign[0]]
        sentence = f"{len(foreign)} super blocks of file system {copy_fsid(copy)}, not {newest.fsid}"
        offset = int(copy["offset_bytes"])
        yield RULES.finding("fsid-foreign", sentence, **where, offset_bytes=offset, count=len(foreign))


def _check_order(survey: MirrorSurvey, where: Where) -> Iterator[FindingGroup]:
    copies = survey.copies
    older = older_zone(smallest_generations(copies["zone"], copies["valid"], copies["generation"]))
    rows = np.concatenate([np.flatnonzero(copies["valid"] & (copies["zone"] == zone)) for zone in (older, 1 - older)])
    generations = copies["generation"][rows]
    drops = np.flatnonzero(generations[1:] < generations[:-1])
    if len(drops):
        row = rows[drops[-1] + 1]
        before, after = int(generations[drops[-1]]), int(generations[drops[-1] + 1])
        offset = int(copies["offset_bytes"][row])
        sentence = f"generation {after} at byte {offset} follows generation {before}"
        yield RULES.finding("generation-decreases", sentence, **where, offset_bytes=offset, count=len(drops))


def _check_mirrors(fs: FileSystem, index: int) -> Iterator[FindingGroup]:
    first = fs.surveys[index].mirror(0)
    if first is None or first.newest is None:
        return
    leading = first.newest_generation
    for survey in fs.surveys[index].mirrors:
        if survey.newest is None or survey is first:
            continue
        generation = survey.newest_generation
        behind = leading - generation
        code = "mirror-behind" if behind > 1 else "mirror-ahead" if behind < 0 else None
        if code is not None:
            where = fs.where(index, survey)
            where["generation"] = generation
            sentence = f"mirror {survey.number} is at generation {generation}, mirror 0 at {leading}"
            yield RULES.finding(code, sentence, **where, mirror_0_generation=leading)
