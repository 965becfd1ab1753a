"""The findings about the rings and the copies in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.zones import condition_name
from zoned_tools.findings import Finding
from zoned_tools.formats.btrfs.copies import Csum, Magic, copy_fsid
from zoned_tools.formats.btrfs.filesystem import FileSystem
from zoned_tools.formats.btrfs.findings import finding
from zoned_tools.formats.btrfs.layout import SUPER_BYTES
from zoned_tools.formats.btrfs.placement import Mode
from zoned_tools.formats.btrfs.ring import Fill, RingState, RingZone, older_zone, smallest_generations
from zoned_tools.formats.btrfs.survey import MirrorSurvey

MAX_LISTED = 64
"""Places named in one finding; the count is always there."""

_ABOVE_WP_SLOTS = 16
"""Slots above a write pointer that are looked at in an image."""


def check_device(fs: FileSystem, index: int) -> Iterator[Finding]:
    """Everything about the mirrors of one device."""
    survey = fs.surveys[index]
    repairable = survey.best is not None
    for mirror in survey.mirrors:
        where = fs.label(index, mirror)
        if mirror.mirror.mode is Mode.RING:
            yield from _check_zones(survey.device, mirror, where)
        yield from _check_head(mirror, where, repairable=repairable)
        if mirror.mirror.mode is Mode.RING:
            yield from _check_copies(fs, mirror, where)
    yield from _check_mirrors(fs, index)


# -- the zones


def _check_zones(device: Device, survey: MirrorSurvey, where: dict[str, object]) -> Iterator[Finding]:
    pair = survey.mirror.pair
    assert pair is not None
    dead = [zone for zone in pair if zone.fill is Fill.DEAD]
    for zone in dead:
        sentence = f"zone {zone.zone} is {condition_name(zone.condition)}"
        yield finding("ring-zone-dead", sentence, {**where, "zone": zone.zone})
    if survey.state is RingState.INVALID and not dead:
        zones = [zone.zone for zone in pair]
        sentence = f"zone {zones[0]} is {_fill_text(pair[0])} and zone {zones[1]} is {_fill_text(pair[1])}"
        yield finding("ring-invalid", sentence, {**where, "zones": zones})
    for zone in pair:
        place = {**where, "zone": zone.zone}
        if zone.slots < 2:
            yield finding("capacity-small", f"zone {zone.zone} has room for {zone.slots} super blocks", place)
        if not zone.wp_is_aligned:
            sentence = f"zone {zone.zone} has its write pointer at byte {zone.wp_bytes}"
            yield finding("wp-unaligned", sentence, {**place, "wp_bytes": zone.wp_bytes})
        yield from _check_above(device, zone, place)
    yield from _check_blank(survey, where)


def _fill_text(zone: RingZone) -> str:
    return {Fill.IN_USE: "in use"}.get(zone.fill, str(zone.fill))


def _check_above(device: Device, zone: RingZone, where: dict[str, object]) -> Iterator[Finding]:
    """Content that a drive would not show; only the image itself can tell."""
    if not isinstance(device, EmulatedDrive) or not device.geometry.is_zoned or zone.wp_bytes is None:
        return
    end = zone.start_bytes + zone.capacity_bytes
    raw = device.read_stored(zone.wp_bytes, min(_ABOVE_WP_SLOTS * SUPER_BYTES, end - zone.wp_bytes))
    blocks = [raw[at : at + SUPER_BYTES] for at in range(0, len(raw), SUPER_BYTES)]
    count = sum(1 for block in blocks if any(block) and block.strip(b"\xff"))
    if count:
        sentence = f"zone {zone.zone} holds {count} blocks at or above its write pointer {zone.wp_bytes}"
        yield finding("wp-behind", sentence, {**where, "wp_bytes": zone.wp_bytes, "count": count})


def _check_blank(survey: MirrorSurvey, where: dict[str, object]) -> Iterator[Finding]:
    blank = np.flatnonzero(survey.copies["zero"])
    if len(blank):
        first = int(survey.copies["offset_bytes"][blank[0]])
        sentence = f"{len(blank)} blocks of zeroes below the write pointer, the first at byte {first}"
        yield finding("wp-ahead", sentence, {**where, "offset_bytes": first, "count": len(blank)})


# -- the head


def head_fault(survey: MirrorSurvey) -> tuple[str, str] | None:
    """``(code, sentence)`` of what is wrong with what the kernel takes for the newest; None when it is valid."""
    if survey.state is RingState.INVALID:
        return None
    head = survey.head
    if head is None:
        return "head-none", "both zones of the ring are empty"
    at = f"the block at byte {int(head['offset_bytes'])}"
    if head["unreadable"]:
        return "head-none", f"{at} cannot be read"
    if head["magic"] == Magic.TEMPORARY:
        return "head-magic", f"{at} has the temporary magic of an unfinished mkfs"
    if head["magic"] == Magic.NONE:
        return ("head-none", f"{at} is all zero") if head["zero"] else ("head-magic", f"{at} has no btrfs magic")
    if head["csum"] == Csum.UNKNOWN_TYPE:
        return "head-csum", f"{at} has a checksum of an unknown type"
    if head["csum"] == Csum.BAD:
        return _checksum_fault(survey, head, at)
    if not head["bytenr_ok"]:
        return "head-bytenr", f"{at} says that it belongs at byte {int(head['bytenr'])}"
    if not head["fsid_ok"]:
        return "head-fsid", f"{at} has fsid {copy_fsid(head)}, which does not match its device item"
    return None


def _checksum_fault(survey: MirrorSurvey, head: Any, at: str) -> tuple[str, str]:
    """A good magic and the next generation with a bad checksum: the write did not end."""
    previous = survey.newest_copy
    generation = int(head["generation"])
    if previous is not None and generation - int(previous["generation"]) in (0, 1):
        return "head-torn", f"{at} (generation {generation}) was written only in part"
    return "head-csum", f"{at} (generation {generation}) has a bad checksum"


def wrong_choice(survey: MirrorSurvey) -> bool:
    """Whether a damaged last block makes the kernel take another than the newest valid super block."""
    if not survey.slots_decide() or survey.newest is None or survey.head_row == survey.newest:
        return False
    pair = survey.mirror.pair
    assert pair is not None
    lasts = np.isin(survey.copies["offset_bytes"], [zone.last_slot_bytes for zone in pair])
    sound = (survey.copies["magic"] == Magic.OK) & (survey.copies["csum"] == Csum.OK)
    return not bool(sound[lasts].all())


def _check_head(survey: MirrorSurvey, where: dict[str, object], *, repairable: bool) -> Iterator[Finding]:
    fault = head_fault(survey)
    place = where if survey.head is None else {**where, "offset_bytes": int(survey.head["offset_bytes"])}
    if fault is not None:
        yield finding(*fault, place, repairable=repairable)
    newest = survey.newest_copy
    if wrong_choice(survey):
        assert newest is not None
        assert survey.head is not None
        sentence = (
            f"the kernel takes generation {int(survey.head['generation'])} at byte {int(survey.head['offset_bytes'])}, "
            f"the newest valid is {int(newest['generation'])} at byte {int(newest['offset_bytes'])}"
        )
        yield finding("choice-influenced", sentence, place)
    elif survey.head_is_valid and newest is not None and survey.head_row != survey.newest:
        sentence = (
            f"the kernel takes generation {int(survey.head['generation'])}, "  # type: ignore[index] # it is valid
            f"the last in the ring is {int(newest['generation'])} at byte {int(newest['offset_bytes'])}"
        )
        yield finding("choice-stale", sentence, place)


# -- the other copies


def _check_copies(fs: FileSystem, survey: MirrorSurvey, where: dict[str, object]) -> Iterator[Finding]:
    copies = survey.copies
    bad = ~copies["valid"] & ~copies["zero"] & (copies["magic"] != Magic.TEMPORARY)
    if survey.head_row is not None:
        bad[survey.head_row] = False
    rows = np.flatnonzero(bad)
    if len(rows):
        offsets = [int(o) for o in copies["offset_bytes"][rows[:MAX_LISTED]]]
        sentence = f"{len(rows)} damaged super blocks, the first at byte {offsets[0]}"
        yield finding("middle-bad", sentence, {**where, "offsets_bytes": offsets, "count": len(rows)})
    yield from _check_order(survey, where)
    newest = fs.newest
    if newest is None:
        return
    foreign = np.flatnonzero(copies["valid"] & (copies["fsid"] != np.void(newest.fsid.bytes)))
    if len(foreign):
        copy = copies[foreign[0]]
        sentence = f"{len(foreign)} super blocks of file system {copy_fsid(copy)}, not {newest.fsid}"
        place = {**where, "offset_bytes": int(copy["offset_bytes"]), "count": len(foreign)}
        yield finding("fsid-foreign", sentence, place)


def _check_order(survey: MirrorSurvey, where: dict[str, object]) -> Iterator[Finding]:
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
        yield finding("generation-decreases", sentence, {**where, "offset_bytes": offset, "count": len(drops)})


def _check_mirrors(fs: FileSystem, index: int) -> Iterator[Finding]:
    first = fs.surveys[index].mirror(0)
    if first is None or first.newest_copy is None:
        return
    leading = int(first.newest_copy["generation"])
    for survey in fs.surveys[index].mirrors:
        copy = survey.newest_copy
        if copy is None or survey is first:
            continue
        generation = int(copy["generation"])
        where = {**fs.label(index, survey), "generation": generation, "mirror_0_generation": leading}
        sentence = f"mirror {survey.mirror.number} is at generation {generation}, mirror 0 at {leading}"
        if leading - generation > 1:
            yield finding("mirror-behind", sentence, where)
        elif generation > leading:
            yield finding("mirror-ahead", sentence, where)
