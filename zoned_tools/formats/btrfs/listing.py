"""The listing of super blocks as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import condition_name
from zoned_tools.formats.btrfs.copies import Csum, Magic
from zoned_tools.formats.btrfs.open import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.ring import RingZone
    from zoned_tools.formats.btrfs.survey import DeviceSurvey, MirrorSurvey

_CSUM_TEXT = {int(Csum.OK): "ok", int(Csum.BAD): "bad", int(Csum.UNKNOWN_TYPE): "unknown", int(Csum.UNTESTED): "-"}
_ROOTS_TEXT = {True: "yes", False: "no", None: "-"}
_ROW = "%18s %12s %-9s %-7s %-5s %16s %16s %16s %-5s %s"
_HEADER = _ROW % ("offset", "generation", "magic", "csum", "valid", "root", "chunk root", "log root", "roots", "")


def listing(survey: DeviceSurvey) -> Iterator[str]:
    """Lines of one device: every mirror with its zones, then every copy."""
    path = survey.device.path
    if survey.placement.derived:
        yield (
            f"{path}: raw copy of a zoned drive without its zone table; zones of {survey.placement.zone_bytes} bytes "
            f"and their states are derived from the content"
        )
    elif survey.placement.zone_bytes:
        yield f"{path}: {survey.device.geometry.model}, zones of {survey.placement.zone_bytes} bytes"
    else:
        yield f"{path}: regular device"
    for mirror in survey.mirrors:
        yield from _mirror(mirror)


def _mirror(survey: MirrorSurvey) -> Iterator[str]:
    mirror = survey.mirror
    if mirror.mode is Mode.RING:
        zones = " and ".join(str(zone) for zone in mirror.zones)
        write = "unknown" if survey.next_write_bytes is None else f"byte {survey.next_write_bytes}"
        yield f"mirror {mirror.number}: ring in zones {zones}, state {survey.state}, next write at {write}"
        for zone in mirror.pair or ():
            yield f"  {_zone(zone, known=mirror.capacity_known)}"
    elif mirror.mode is Mode.IN_PLACE:
        yield f"mirror {mirror.number}: in place in conventional zone {mirror.zones[0]}"
    else:
        yield f"mirror {mirror.number}: at its regular place"
    if len(survey.copies):
        yield _HEADER.rstrip()
        yield from _rows(survey)
    else:
        yield "  no super block"


def _zone(zone: RingZone, *, known: bool) -> str:
    capacity = f"{zone.slots} slots" if known else "unknown capacity"
    wp = "" if zone.wp_bytes is None else f", write pointer {zone.wp_bytes}"
    return f"zone {zone.zone}: {condition_name(zone.condition)}, {zone.written_slots} of {capacity} written{wp}"


def _rows(survey: MirrorSurvey) -> Iterator[str]:
    copies = survey.copies
    marks = {}
    if survey.head is not None:
        marks[int(survey.head["offset_bytes"])] = "kernel's choice"
    if survey.newest is not None:
        offset = int(copies["offset_bytes"][survey.newest])
        marks[offset] = ", ".join(filter(None, [marks.get(offset), "newest valid"]))
    names = ("offset_bytes", "generation", "magic", "csum", "valid", "zero", "root", "chunk_root", "log_root")
    columns = zip(*(np.atleast_1d(copies[name]).tolist() for name in names), strict=True)
    for row, (offset, generation, magic, csum, valid, zero, root, chunk_root, log_root) in enumerate(columns):
        text = "zero" if zero else Magic(magic).text
        verdict = "yes" if valid else "no"
        roots = _ROOTS_TEXT[survey.roots_readable(row)]
        values = (offset, generation, text, _CSUM_TEXT[csum], verdict, root, chunk_root, log_root, roots)
        yield (_ROW % (*values, marks.get(offset, ""))).rstrip()
