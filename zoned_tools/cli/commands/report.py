"""``zoned report``: the zone report of a drive."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from zoned_tools.cli.documents import expect, print_json, prints, want
from zoned_tools.cli.options import DevicePaths, ZonesFrom
from zoned_tools.cli.output import complain
from zoned_tools.errors import FsckStatus, UsageError, ZonedError
from zoned_tools.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


@prints("report")
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

    if json or form is Format.JSON:
        form = Format.JSON
        want()
    if summary:
        expect("report.summary")
    start = parse_size(offset)
    refuse_twice(devices)
    if only is not None:
        _refuse_filter(only)
    drives = _Drives(devices, RawCopies(devices, by_content=origin == "content"), start, count, only)
    if form is Format.JSON:
        drives.print_document(summary=summary)
    else:
        drives.print_text(form, summary=summary, info=info)
    return drives.status


class _Drives:
    """The drives of a report, one after the other; one that cannot be read is told and passed over."""

    def __init__(
        self, paths: list[str], raw_copies: RawCopies, first_sector: int, count: int | None, only: str | None
    ) -> None:
        self._paths = paths
        self._raw_copies = raw_copies
        self._first_sector = first_sector
        self._count = count
        self._only = only
        self.status = FsckStatus.CLEAN

    def _zones(self) -> Iterator[_Zones]:
        for path in self._paths:
            try:
                zones = _zones_of(path, self._raw_copies, self._first_sector, self._count)
            except ZonedError as error:
                self.status |= complain(error)
                continue
            yield zones if self._only is None else zones.filtered(self._only)

    def print_document(self, *, summary: bool) -> None:
        """``zoned.report``, drive by drive."""
        from zoned_tools.report import zones as render
        from zoned_tools.report.documents.drives import REPORT, SUMMARY
        from zoned_tools.report.stream import elements, encode

        def pieces(zones: _Zones) -> str | Iterator[str]:
            if summary:
                return encode({**zones.facts, "summary": render.summarize(zones.table)})
            return render.json_drive(zones.facts, zones.table, zones.numbers)

        print_json({"schema": SUMMARY if summary else REPORT, "drives": elements(map(pieces, self._zones()))})

    def print_text(self, form: Format, *, summary: bool, info: bool) -> None:
        """Lines, behind the path of each of several drives where they do not tell it."""
        from zoned_tools.report import zones as render
        from zoned_tools.report.stream import write_lines

        for zones in self._zones():
            path = zones.facts["device"]
            if len(self._paths) > 1 and form in _FOR_PEOPLE and not (info or summary):
                write_lines([f"{path}:"])
            if info and form in _FOR_PEOPLE:
                write_lines(render.zbd_info_lines(path, zones.geometry))
            if summary:
                write_lines(render.summary_lines(path, zones.geometry, zones.table))
            else:
                write_lines(_rows(form, zones))


_FOR_PEOPLE = (Format.TABLE, Format.BLKZONE, Format.ZBD)


def _refuse_filter(words: str) -> None:
    """Refuse a filter that no drive could pass, once and before any is opened."""
    import numpy as np

    from zoned_tools.device.zones import ZONE_DTYPE
    from zoned_tools.report.zones import filter_mask

    filter_mask(np.zeros(0, ZONE_DTYPE), words)


class _Zones(NamedTuple):
    """Zones of a drive, and their ``numbers``."""

    facts: DriveFacts
    geometry: Geometry
    table: ZoneTable
    numbers: IntArray

    def filtered(self, words: str) -> _Zones:
        """The zones that a filter passes."""
        from zoned_tools.report.zones import filter_mask

        mask = filter_mask(self.table, words)
        return self._replace(table=self.table[mask], numbers=self.numbers[mask])


def _zones_of(path: str, raw_copies: RawCopies, first_sector: int, count: int | None) -> _Zones:
    """Zones of a drive, of a raw copy, or of a zone table by itself, as ``zbd report``."""
    import numpy as np

    from zoned_tools.device.identity import not_zoned
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
        return _Zones(drive_facts(path, geometry, source), geometry, rows, np.arange(first, first + len(rows)))

    if path.endswith((SIDECAR_SUFFIX, "_zone_info.dump")):
        saved = read_dump(path)
        return part(saved.geometry, saved.table, "sidecar")
    with open_device(path, content=False, sidecar=not raw_copies.by_content) as device:
        if device.geometry.is_zoned:
            return part(device.geometry, device.zones(), source_of_zones(device))
    derived = raw_copies.zones(path)
    if derived is None:
        raise not_zoned(path)
    return part(*derived, "derived")


def _rows(form: Format, zones: _Zones) -> Iterable[str]:
    """One line a zone."""
    from zoned_tools.report import zones as render

    table, numbers = zones.table, zones.numbers
    match form:
        case Format.BLKZONE:
            return render.blkzone_lines(table)
        case Format.ZBD:
            return render.zbd_lines(table, numbers)
        case Format.CSV:
            return render.csv_lines(table, numbers)
        case Format.JSONL:
            return render.json_lines(zones.facts["device"], table, numbers)
        case _:
            return render.table_lines(table, numbers)
