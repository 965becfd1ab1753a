"""Documents of ``zoned zdm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.report.documents.drives import ZoneRow


class ZdmStatusDocument(TypedDict):
    """``zoned.zdm.status/1``: the figures of zdm-status, in blocks; ``generation`` is null without a usable one."""

    schema: Literal["zoned.zdm.status/1"]
    device: str
    generation: int | None
    dirty: bool
    used: int
    available: int
    discard: int
    zones: int
    empty_zones: int
    map_pages: int
    discard_pages: int
    journal_pages: int
    journal_in_use: int
    journal_slots: int


def zdm_status_document(device: str, state: State) -> ZdmStatusDocument:
    """How full a ZDM is."""
    from zoned_tools.formats.zdm.inspect import status

    current, values = state.current, status(state)
    return {
        "schema": "zoned.zdm.status/1",
        "device": device,
        "generation": current.generation if current else None,
        "dirty": current.dirty if current else False,
        "used": values["used"],
        "available": values["available"],
        "discard": values["discard"],
        "zones": values["zones"],
        "empty_zones": values["empty_zones"],
        "map_pages": values["map_pages"],
        "discard_pages": values["discard_pages"],
        "journal_pages": values["journal_pages"],
        "journal_in_use": values["journal_in_use"],
        "journal_slots": values["journal_slots"],
    }


class ZdmZoneRow(TypedDict):
    """One data zone as recorded."""

    zone: int
    wp_blocks: int
    flags: int
    free_estimate: int
    stream: int


class ZdmZonesDocument(TypedDict):
    """``zoned.zdm.zones/1``."""

    schema: Literal["zoned.zdm.zones/1"]
    device: str
    zones: list[ZdmZoneRow]


def zdm_zones_document(device: str, state: State) -> ZdmZonesDocument:
    """Every data zone."""
    rows: list[ZdmZoneRow] = [
        {
            "zone": number,
            "wp_blocks": pointer & 0xFFFFFF,
            "flags": pointer >> 24,
            "free_estimate": free & 0xFFFFFF,
            "stream": free >> 24,
        }
        for number, (pointer, free) in enumerate(zip(state.wp.tolist(), state.zf.tolist(), strict=True))
    ]
    return {"schema": "zoned.zdm.zones/1", "device": device, "zones": rows}


class ZdmReportDocument(TypedDict):
    """``zoned.zdm.report/1``: each zone as in ``zoned.report/2``."""

    schema: Literal["zoned.zdm.report/1"]
    device: str
    zones: list[ZoneRow]


def zdm_report_document(device: str, table: ZoneTable, first_zone: int = 0) -> dict[str, object]:
    """The fields of :class:`ZdmReportDocument`, the zones as JSON text."""
    import numpy as np

    from zoned_tools.report.stream import elements
    from zoned_tools.report.zones import json_rows

    rows = json_rows(table[first_zone:], np.arange(first_zone, len(table)))
    return {"schema": "zoned.zdm.report/1", "device": device, "zones": elements(rows)}
