"""What ``zoned zdm`` prints, as Seagate's zdm-status, zdm-zones and zdm-report did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.zones import CONDITION_NAMES, TYPE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.report.documents.zdm import ZdmStatusDocument

_COLUMNS = 5
"""Zones on a line of zdm-zones."""


def status_lines(values: ZdmStatusDocument) -> Iterator[str]:
    """Used, available and discarded blocks, cache and journal pages."""
    lines = {
        "On device": f"{values['used']} used, {values['available']} available, {values['discard']} discarded",
        "Data Zones": values["zones"],
        "Empty Zones": values["empty_zones"],
        "Cached Pages": values["map_pages"],
        "Discard Pages": values["discard_pages"],
        "Journal Pages": values["journal_pages"],
        "Journal InUse": f"{values['journal_in_use']} / {values['journal_slots']}",
    }
    return (f"{name + ':':<15}{value}" for name, value in lines.items())


def zone_lines(state: State) -> Iterator[str]:
    """Number, flags, write pointer and free estimate of every data zone."""
    cells = [
        f"{number:>6} {pointer >> 24:02x} {pointer & 0xFFFFFF:>6x} {free & 0xFFFFFF:>6}"
        for number, (pointer, free) in enumerate(zip(state.wp.tolist(), state.zf.tolist(), strict=True), 1)
    ]
    return (" ".join(cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS))


def report_lines(table: ZoneTable) -> Iterator[str]:
    """The zones of the drive."""
    fields = ("start_sector", "length_sectors", "wp_sector", "reset", "non_seq", "condition", "type")
    for start, length, pointer, reset, non_seq, condition, kind in zip(
        *(table[name].tolist() for name in fields), strict=True
    ):
        condition_text, type_text = CONDITION_NAMES.get(condition, "reserved"), TYPE_NAMES.get(kind, "unknown")
        yield (
            f"start: {start:#x}, len {length:#x}, wp {pointer:#x}, reset:{reset} non-seq:{non_seq}, "
            f"cond: {condition}({condition_text}) type: {kind}({type_text})"
        )
