"""``zoned zdm``: what Seagate's zdm-status, zdm-zones and zdm-report showed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, Json, Start
from zoned_tools.errors import UsageError
from zoned_tools.report.stream import write_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Geometry
    from zoned_tools.formats.zdm.open import State

app = new_app("Status, zone counters and drive zones of a ZDM.")


@contextmanager
def _state(path: str, start: int | None) -> Iterator[State]:
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.zdm.constants import NAME
    from zoned_tools.formats.zdm.open import load

    with opened_target([path], start, NAME, only_own=True) as target:
        yield load(target)


@app.command("status")
@prints("zdm.status")
def status(device: DevicePath, start: Start = None, json: Json = False) -> int:
    """Print used, available and discarded blocks, cache and journal pages."""
    from zoned_tools.report.documents.zdm import zdm_status_document
    from zoned_tools.report.zdm import status_lines

    with _state(device, start) as state:
        document = zdm_status_document(device, state)
    if json:
        print_json(document)
    else:
        write_lines(status_lines(document))
    return 0


@app.command("zones")
@prints("zdm.zones")
def zones(device: DevicePath, start: Start = None, json: Json = False) -> int:
    """Print the write pointer and free estimate of every data zone."""
    from zoned_tools.report.documents.zdm import zdm_zones_document
    from zoned_tools.report.zdm import zone_lines

    with _state(device, start) as state:
        if json:
            print_json(zdm_zones_document(device, state))
        else:
            write_lines(zone_lines(state))
    return 0


def _first_zone(path: str, geometry: Geometry, start_sector: int) -> int:
    """The zone of a sector of the drive.

    Raises:
        UsageError: the drive ends before it.
    """
    from zoned_tools.device.zones import SECTOR_BYTES

    start_bytes = start_sector * SECTOR_BYTES
    if start_bytes >= geometry.size_bytes:
        sectors = geometry.size_bytes // SECTOR_BYTES
        raise UsageError(f"sector {start_sector} is behind the end of the drive", device=path, hint=f"it has {sectors}")
    return geometry.zone_of(start_bytes)


@app.command("report")
@prints("zdm.report")
def report(device: DevicePath, start: Start = None, json: Json = False) -> int:
    """Print the zones of the drive, or those from a ZDM's start on, with their conditions and types."""
    from zoned_tools.device.identity import not_zoned
    from zoned_tools.device.opening import open_device
    from zoned_tools.report.documents.zdm import zdm_report_document
    from zoned_tools.report.zdm import report_lines

    with open_device(device) as drive:
        if not drive.geometry.is_zoned:
            raise not_zoned(device)
        first, table = _first_zone(device, drive.geometry, start or 0), drive.zones()
    if json:
        print_json(zdm_report_document(device, table, first))
    else:
        write_lines(report_lines(table[first:]))
    return 0
