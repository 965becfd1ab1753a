"""``zoned export``: the logical device's content as a raw file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Force,
    Json,
    LayoutName,
    Mapfiles,
    Quiet,
    SettingsBesideOutput,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.output import late_progress_bar, note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, UsageError
from zoned_tools.formats.shared.settings import Journey
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.engine.export import ExportResult
    from zoned_tools.formats.contract import Mapper, Target


@takes_settings(Journey.LOGICAL)
@prints("export")
def export(
    devices: DevicePaths,
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT", help="File to write, - for standard output.")],
    force: Force = False,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Put zeroes where blocks cannot be read, and list them.")
    ] = False,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", "-j", metavar="N", help="Processes that decompress, 0 for all cores.", min=0, max=256
        ),
    ] = 0,
    mapfile_out: Annotated[
        str | None,
        typer.Option(
            "--mapfile-out",
            metavar="FILE",
            help="Write what is lost as a ddrescue map file; of several exported devices to FILE.devid-N.",
            show_default=False,
        ),
    ] = None,
    orphans: Annotated[
        str | None,
        typer.Option(
            "--orphans",
            metavar="DIR",
            help="Write zones with valid data that no readable metadata name to files in a directory (dm-zoned).",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    settings: SettingsBesideOutput = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Write the logical device's content to a sparse raw file."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.report.documents.logical import export_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import lost_lines

    check_layout_name(layout)
    if json and output == "-":
        raise UsageError("--json and -o - cannot share standard output")
    paths, chosen = split_settings(devices, settings)
    note_use(paths)
    with opened_target(paths, start, layout, mapfiles=mapfile or (), by_content=zones == "content") as target:
        result = _run(target, chosen, output, force=force, skip_errors=skip_errors, quiet=quiet, processes=processes)
        if mapfile_out is not None:
            _write_mapfile(mapfile_out, target, result, force=force)
        torn = orphans is not None and _write_orphans(orphans, target, chosen, force=force, skip_errors=skip_errors)
        if json:
            print_json(export_document(target, output, result))
        write_lines((f"zoned: {line}" for line in lost_lines(target, result)), sys.stderr)
    return FsckStatus.UNCORRECTED if result.lost or torn else FsckStatus.CLEAN


def _write_orphans(
    directory: str, target: Target, settings: Mapping[str, str], *, force: bool, skip_errors: bool
) -> bool:
    """Write the zones and their table; returns whether some bytes of them could not be read."""
    import json
    import os

    from zoned_tools.engine.documents import write_document
    from zoned_tools.engine.orphans import TABLE_NAME, export_orphans
    from zoned_tools.report.documents.logical import orphans_document
    from zoned_tools.report.stream import write_lines

    written = export_orphans(target, directory, settings, force=force, skip_errors=skip_errors)
    content = json.dumps(orphans_document(target, written), indent=1).encode() + b"\n"
    write_document(os.path.join(directory, TABLE_NAME), content, overwrite=force, sources=target.paths)
    torn = [row for row in written if row.lost_bytes]
    write_lines(
        (f"zoned: zone {row.orphan.zone}: {row.lost_bytes} bytes cannot be read, they are zeroes" for row in torn),
        sys.stderr,
    )
    return bool(torn)


def _write_mapfile(path: str, target: Target, result: ExportResult, *, force: bool) -> None:
    from zoned_tools.device.mapfile import mapfile_content
    from zoned_tools.engine.documents import write_document

    comments = [f"the logical device of {target.layout} on", *map(visible, target.paths)]
    for one in result.devices or [result]:
        name = path if len(result.devices) < 2 else f"{path}.{os.path.splitext(os.path.basename(one.output))[0]}"
        write_document(name, mapfile_content(one.map_rows(), comments), overwrite=force, sources=target.paths)


def _run(
    target: Target,
    settings: Mapping[str, str],
    output: str,
    *,
    force: bool,
    skip_errors: bool,
    quiet: bool,
    processes: int,
) -> ExportResult:
    from zoned_tools.engine.export import export_target

    with late_progress_bar("export", quiet=quiet) as bar:

        def opened(mapper: Mapper) -> None:
            print_warnings(mapper, target)
            bar.begin(mapper.size_blocks * 4096)

        return export_target(
            target,
            output,
            settings,
            force=force,
            skip_errors=skip_errors,
            processes=processes,
            opened=opened,
            progress=bar,
        )
