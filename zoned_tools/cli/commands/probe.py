"""``zoned probe``: which layout is on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import DevicePaths, Json, Mapfiles, Start
from zoned_tools.cli.output import complain, print_json
from zoned_tools.errors import FsckStatus, ZonedError


def probe(
    devices: DevicePaths,
    json: Json = False,
    export: Annotated[bool, typer.Option("--export", help="Print KEY=value lines, as blkid -o export does.")] = False,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """Tell which layout is on a device."""
    from zoned_tools.device.opening import mapfile_of_each, open_device, refuse_twice
    from zoned_tools.engine.opening import probe_device
    from zoned_tools.report.documents.drives import probe_document, probe_row
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import probe_export_lines, probe_sentence

    refuse_twice(devices)
    status = FsckStatus.CLEAN
    rows = []
    for path, name in zip(devices, mapfile_of_each(devices, mapfile or ()), strict=True):
        try:
            with open_device(path, mapfile=name) as device:
                rows.append(probe_row(probe_device(device, start)))
        except ZonedError as error:
            status |= complain(error)
    if json:
        print_json(probe_document(rows))
    elif export:
        write_lines(probe_export_lines(rows))
    else:
        write_lines(map(probe_sentence, rows))
    return status
