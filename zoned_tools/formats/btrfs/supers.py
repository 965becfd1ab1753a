"""The listing of all super blocks, as ``zoned btrfs supers`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.device.zones import condition_name
from zoned_tools.formats.btrfs.copies import Copies, Copy, Csum, Magic
from zoned_tools.formats.btrfs.judge import rows_newest_first
from zoned_tools.formats.btrfs.survey import DeviceSurvey, MirrorSurvey, survey_file_system

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.ring import RingZone
    from zoned_tools.formats.contract import Target

SCHEMA = "zoned.btrfs.supers/1"

_CSUM_JSON = {int(Csum.OK): True, int(Csum.BAD): False, int(Csum.UNKNOWN_TYPE): False, int(Csum.UNTESTED): None}
_MAGIC_JSON = {int(magic): magic.text for magic in Magic}


def list_supers(target: Target, *, roots: bool = False) -> DeviceSurvey:
    """Survey the first device of a target; with ``roots`` test the roots of every valid copy."""
    fs = survey_file_system(target)
    survey = fs.surveys[0]
    if roots:
        for mirror in survey.mirrors:
            for row in rows_newest_first(mirror):
                fs.readability(0, mirror, row)
    return survey


def supers_as_json(survey: DeviceSurvey) -> dict[str, object]:
    """One device in the ``zoned.btrfs.supers/1`` schema."""
    return {
        "schema": SCHEMA,
        "device": survey.device.path,
        "model": str(survey.device.geometry.model),
        "derived": survey.placement.derived,
        "zone_size_bytes": survey.placement.zone_bytes or None,
        "rings": [ring_as_json(mirror) for mirror in survey.mirrors],
    }


def ring_as_json(survey: MirrorSurvey) -> dict[str, object]:
    """One mirror: its zones, both answers, and every copy."""
    mirror = survey.mirror
    copies = copies_as_json(survey.copies, survey)
    head: dict[str, object] | None = None
    if survey.head is not None:
        row = survey.head_row
        head = copies[row] if row is not None else copy_as_json(survey.head)
    return {
        "mirror": mirror.number,
        "mode": str(mirror.mode),
        "bytenr": mirror.bytenr,
        "zones": list(mirror.zones),
        "zone_states": [_zone_as_json(zone, known=mirror.capacity_known) for zone in mirror.pair or ()],
        "state": str(survey.state),
        "next_write_bytes": survey.next_write_bytes,
        "kernel_choice": head,
        "newest_valid": None if survey.newest is None else copies[survey.newest],
        "copies": copies,
    }


def _zone_as_json(zone: RingZone, *, known: bool) -> dict[str, object]:
    return {
        "zone": zone.zone,
        "condition": condition_name(zone.condition),
        "fill": str(zone.fill),
        "wp_bytes": zone.wp_bytes,
        "slots": zone.slots if known else None,
        "written_slots": zone.written_slots,
    }


def copy_as_json(copy: Copy) -> dict[str, object]:
    """One copy as a JSON object, its roots not tested."""
    return copies_as_json(np.atleast_1d(copy))[0]


def copies_as_json(copies: Copies, survey: MirrorSurvey | None = None) -> list[dict[str, object]]:
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
