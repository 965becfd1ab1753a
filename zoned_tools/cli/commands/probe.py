"""``zoned probe``: which layout is on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Json,
    Mapfiles,
    Start,
    ZonesFrom,
)
from zoned_tools.cli.output import complain
from zoned_tools.errors import FsckStatus


@prints("probe")
def probe(
    devices: DevicePaths,
    json: Json = False,
    export: Annotated[bool, typer.Option("--export", help="Print KEY=value lines, as blkid -o export does.")] = False,
    start: Start = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Tell which layout is on a device."""
    from zoned_tools.device.signatures import recognise
    from zoned_tools.engine.opening import opened_targets
    from zoned_tools.report.documents.drives import probe_document, probe_row
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import probe_export_lines, probe_sentence

    status = FsckStatus.CLEAN
    by_content = zones == "content"
    with opened_targets(devices, start, mapfiles=mapfile or (), by_content=by_content, to_read=False) as opened:
        there = {probed.device.path for probed in opened.probed}
        for failure in opened.failed:
            if there.isdisjoint(failure.paths):  # else what is there is told, whatever it is good for
                status |= complain(failure.error)
        derived = {
            device.path
            for target in opened.targets
            for device, row in zip(target.devices, target.derived, strict=False)
            if row is not None
        }
        others = {device.path: found.what for device in opened.unknown if (found := recognise(device)) is not None}
        rows = [probe_row(probed, derived=probed.device.path in derived) for probed in opened.probed]
    if json:
        print_json(probe_document(rows))
    elif export:
        write_lines(probe_export_lines(rows))
    else:
        write_lines(probe_sentence(row, others.get(row["device"], "")) for row in rows)
    return status
