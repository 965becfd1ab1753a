"""The super blocks of a device as rows of documents, and the one that somebody wants to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from zoned_tools.device.zones import condition_name, written_sectors
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.btrfs.copies import Copies, Copy, Csum, Magic, read_block
from zoned_tools.formats.btrfs.judge import mirror_is_absent, rows_newest_first
from zoned_tools.formats.btrfs.ring import RingState
from zoned_tools.formats.btrfs.survey import DeviceSurvey, MirrorSurvey, survey_file_system

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.ring import RingZone
    from zoned_tools.formats.contract import Target

_CSUM_JSON = {int(Csum.OK): True, int(Csum.BAD): False, int(Csum.UNKNOWN_TYPE): False, int(Csum.UNTESTED): None}
_MAGIC_JSON = {int(magic): magic.text for magic in Magic}


class CopyRow(TypedDict):
    """One super block; null where its checksum or its roots were not tested."""

    offset_bytes: int
    generation: int
    magic: str
    csum_ok: bool | None
    valid: bool
    log_root: int
    roots_readable: bool | None
    root: int
    chunk_root: int
    bytenr: int
    zero: bool


class ZoneStateRow(TypedDict):
    """One zone of a ring; null where the write pointer or the capacity is not known."""

    zone: int
    condition: str
    fill: str
    wp_bytes: int | None
    slots: int | None
    written_slots: int


class RingRow(TypedDict):
    """One mirror: its zones, both answers, and every copy."""

    mirror: int
    mode: str
    bytenr: int
    zones: list[int]
    zone_states: list[ZoneStateRow]
    state: str
    next_write_bytes: int | None
    kernel_choice: CopyRow | None
    newest_valid: CopyRow | None
    copies: list[CopyRow]


def list_supers(target: Target, *, roots: bool = False) -> DeviceSurvey:
    """Survey the first device of a target; with ``roots`` test the roots of every valid copy."""
    fs = survey_file_system(target)
    survey = fs.surveys[0]
    if roots:
        for mirror in survey.mirrors:
            for row in rows_newest_first(mirror):
                fs.readability(0, mirror, row)
    return survey


def refuse_nothing(survey: DeviceSurvey) -> None:
    """Refuse a device without any magic; a ring that cannot be read, or an empty one in front of zones that hold
    something, is worth seeing.

    Raises:
        MetadataError: there is no trace of a btrfs.
    """
    unread = any(mirror.is_dead or mirror.copies["unreadable"].any() for mirror in survey.mirrors)
    if unread or any(mirror.copies["magic"].any() for mirror in survey.mirrors) or _lost_its_ring(survey):
        return
    raise MetadataError("no btrfs super block", device=survey.device.path)


def _lost_its_ring(survey: DeviceSurvey) -> bool:
    """Whether the ring of mirror 0 is empty and other zones are not: a file system whose ring was reset looks so."""
    first = survey.mirror(0)
    if first is None or first.state is not RingState.ABSENT or not survey.device.geometry.is_zoned:
        return False
    return bool((written_sectors(survey.device.zones()) > 0).any())


def chosen_block(survey: DeviceSurvey, mirror: int, at: int | None = None) -> bytes:
    """The super block at a place, or of a mirror the kernel's choice if it is valid, else the newest valid one.

    Raises:
        UsageError: there is no block at that place.
        MetadataError: there is no such mirror, or nothing valid in it.
    """
    path = survey.device.path
    if at is not None:
        block = read_block(survey.device, survey.start_bytes + at)
        if block is None:
            raise UsageError(f"there is no block at byte {at}", device=path)
        return block
    chosen = survey.mirror(mirror)
    if chosen is None:
        raise MetadataError(f"the device has no mirror {mirror}", device=path)
    copy = chosen.valid_head if chosen.head_is_valid else chosen.newest_copy
    if copy is None:
        raise MetadataError(f"mirror {mirror} holds no valid super block", device=path)
    return survey.block(copy)


def newest_block(survey: DeviceSurvey, mirror: int | None, at: int | None = None) -> bytes:
    """The 4096 bytes at a place, of the newest valid super block of a mirror, or of the whole device.

    Raises:
        UsageError: there is no block at that place.
        MetadataError: there is no such mirror, or nothing valid.
    """
    if at is not None or (mirror is not None and survey.mirror(mirror) is None):
        return chosen_block(survey, mirror or 0, at)
    best = survey.best
    ring = None if mirror is None else survey.mirror(mirror)
    copy = ring.newest_copy if ring is not None else None if best is None else best[1]
    if copy is None:
        where = "the device" if mirror is None else f"mirror {mirror}"
        raise MetadataError(f"{where} holds no valid super block", device=survey.device.path)
    return survey.block(copy)


def ring_as_json(survey: MirrorSurvey) -> RingRow:
    """One mirror: its zones, both answers, and every copy."""
    mirror = survey.mirror
    copies = copies_as_json(survey.copies, survey)
    head: CopyRow | None = None
    if survey.head is not None and not mirror_is_absent(survey):
        row = survey.head_row
        head = copies[row] if row is not None else copy_as_json(survey.head)
    return {
        "mirror": mirror.number,
        "mode": str(mirror.mode),
        "bytenr": mirror.bytenr,
        "zones": list(mirror.zones),
        "zone_states": [_zone_as_json(zone, known=mirror.capacity_known) for zone in mirror.pair or ()],
        "state": str(survey.shown_state),
        "next_write_bytes": survey.next_write_bytes,
        "kernel_choice": head,
        "newest_valid": None if survey.newest is None else copies[survey.newest],
        "copies": copies,
    }


def _zone_as_json(zone: RingZone, *, known: bool) -> ZoneStateRow:
    return {
        "zone": zone.zone,
        "condition": condition_name(zone.condition),
        "fill": str(zone.fill),
        "wp_bytes": zone.wp_bytes,
        "slots": zone.slots if known else None,
        "written_slots": zone.written_slots,
    }


def copy_as_json(copy: Copy) -> CopyRow:
    """One copy as a JSON object, its roots not tested."""
    return copies_as_json(np.atleast_1d(copy))[0]


def copies_as_json(copies: Copies, survey: MirrorSurvey | None = None) -> list[CopyRow]:
    """All copies as JSON objects; columns are converted whole, which keeps a full ring fast.

    Args:
        survey: knows which roots can be read; without it nothing is said of them.
    """
    names = ("offset_bytes", "generation", "root", "chunk_root", "log_root", "bytenr", "magic", "csum", "valid", "zero")
    columns: Any = zip(*(np.atleast_1d(copies[name]).tolist() for name in names), strict=True)
    return [
        {
            "offset_bytes": offset,
            "generation": generation,
            "magic": _MAGIC_JSON[magic],
            "csum_ok": _CSUM_JSON[csum],
            "valid": valid,
            "log_root": log_root,
            "roots_readable": None if survey is None else survey.roots_readable(row),
            "root": root,
            "chunk_root": chunk_root,
            "bytenr": bytenr,
            "zero": zero,
        }
        for row, (offset, generation, root, chunk_root, log_root, bytenr, magic, csum, valid, zero) in enumerate(
            columns
        )
    ]
