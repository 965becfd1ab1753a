"""``zoned report``: the zone report of a drive."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from zoned_tools.cli.options import DevicePaths, ZonesFrom
from zoned_tools.cli.output import complain
from zoned_tools.errors import DeviceError, FsckStatus, UsageError, ZonedError
from zoned_tools.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Geometry
    from zoned_tools.device.zones import IntArray, ZoneTable
    from zoned_tools.engine.adopting import RawCopies
    from zoned_tools.engine.raw_copies import ZoneSource
    from zoned_tools.report.documents.drives import DriveFacts


class Format(StrEnum):
    """Output forms of a zone report."""

    TABLE = "table"
    BLKZONE = "blkzone"
    ZBD = "zbd"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


def report(
    devices: DevicePaths,
    form: Annotated[Format, typer.Option("--format", help="Output form.")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    offset: Annotated[
        str,
        typer.Option("--offset", "-o", metavar="SECTOR", help="Begin with the zone that holds this 512-byte sector."),
    ] = "0",
    count: Annotated[
        int | None,
        typer.Option("--count", "-c", metavar="ZONES", help="At most this many zones.", min=1, show_default=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="WORDS",
            help="Only zones of these types or conditions: em, oi, oe, cl, fu, ro, ol, nw, ns, rw or full names.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Counts by type and condition instead of zones.")] = False,
    info: Annotated[bool, typer.Option("--info", "-i", help="Describe the drive first, as zbd -i does.")] = False,
    origin: ZonesFrom = "table",
) -> int:
    """Print the zone report of a drive."""
    from zoned_tools.device.opening import refuse_twice
    from zoned_tools.engine.adopting import RawCopies
    from zoned_tools.report.stream import write_lines, write_text

    if json:
        form = Format.JSON
    start = parse_size(offset)
    refuse_twice(devices)
    if only is not None:
        _refuse_filter(only)
    several = len(devices) > 1
    raw_copies = RawCopies(devices, by_content=origin == "content")
    separator = ""
    status = FsckStatus.CLEAN
    if form is Format.JSON and several:
        from zoned_tools.report.documents.drives import REPORT

        write_lines([f'{{"schema": "{REPORT}", "drives": ['])
    for path in devices:
        try:
            zones = _zones_of(path, raw_copies, start, count, by_content=origin == "content")
        except ZonedError as error:
            status |= complain(error)
            continue
        write_text([separator])
        if several and form in (Format.TABLE, Format.BLKZONE, Format.ZBD) and not (info or summary):
            write_lines([f"{path}:"])
        _report_one(path, zones, form, only, summary=summary, info=info)
        separator = ",\n" if form is Format.JSON else ""
    if form is Format.JSON and several:
        write_lines(["]}"])
    return status


def _refuse_filter(words: str) -> None:
    """Refuse a filter that no drive could pass, once and before any is opened."""
    import numpy as np

    from zoned_tools.device.zones import ZONE_DTYPE
    from zoned_tools.report.zones import filter_mask

    filter_mask(np.zeros(0, ZONE_DTYPE), words)


class _Zones(NamedTuple):
    """Zones of a drive, from the one with number ``first`` on."""

    facts: DriveFacts
    geometry: Geometry
    table: ZoneTable
    first: int


def _zones_of(path: str, raw_copies: RawCopies, first_sector: int, count: int | None, *, by_content: bool) -> _Zones:
    """Zones of a drive, of a raw copy, or of a zone table by itself, as ``zbd report``."""
    from zoned_tools.device.image import SIDECAR_SUFFIX, read_dump
    from zoned_tools.device.opening import open_device
    from zoned_tools.device.zones import SECTOR_BYTES
    from zoned_tools.engine.raw_copies import source_of_zones
    from zoned_tools.report.documents.drives import drive_facts

    def part(geometry: Geometry, table: ZoneTable, source: ZoneSource | None) -> _Zones:
        if first_sector * SECTOR_BYTES >= geometry.size_bytes:
            raise UsageError("offset is greater than or equal to device size", device=path)
        first = geometry.zone_of(first_sector * SECTOR_BYTES)
        rows = table[first : None if count is None else first + count]
        return _Zones(drive_facts(path, geometry, source), geometry, rows, first)

    if path.endswith((SIDECAR_SUFFIX, "_zone_info.dump")):
        saved = read_dump(path)
        return part(saved.geometry, saved.table, "sidecar")
    with open_device(path, content=False, sidecar=not by_content) as device:
        if device.geometry.is_zoned:
            return part(device.geometry, device.zones(), source_of_zones(device))
    derived = raw_copies.zones(path)
    if derived is None:
        raise DeviceError("not a zoned device", device=path, errno=errno.ENOTTY)
    return part(*derived, "derived")


def _report_one(path: str, zones: _Zones, form: Format, only: str | None, *, summary: bool, info: bool) -> None:
    import numpy as np

    from zoned_tools.report import zones as render
    from zoned_tools.report.stream import write_lines

    facts, geometry, table, first = zones
    numbers = np.arange(first, first + len(table))
    if only is not None:
        mask = render.filter_mask(table, only)
        table, numbers = table[mask], numbers[mask]
    if summary and form is Format.JSON:
        from zoned_tools.cli.output import print_json

        print_json({**facts, "summary": render.summarize(table)})
        return
    if info and form in (Format.TABLE, Format.ZBD, Format.BLKZONE):
        write_lines(render.zbd_info_lines(path, geometry))
    if summary:
        write_lines(render.summary_lines(path, geometry, table))
        return
    if form is Format.JSON:
        write_lines(render.json_document(facts, table, numbers))
    else:
        write_lines(_rows(form, table, numbers))


def _rows(form: Format, table: ZoneTable, numbers: IntArray) -> Iterable[str]:
    """One line a zone."""
    from zoned_tools.report import zones as render

    match form:
        case Format.BLKZONE:
            return render.blkzone_lines(table)
        case Format.ZBD:
            return render.zbd_lines(table, numbers)
        case Format.CSV:
            return render.csv_lines(table, numbers)
        case Format.JSONL:
            return render.json_lines(table, numbers)
        case _:
            return render.table_lines(table, numbers)
