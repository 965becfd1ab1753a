"""``zoned export``: the logical device's content as a raw file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.options import (
    DevicePaths,
    Force,
    Json,
    LayoutName,
    Mapfiles,
    Quiet,
    SettingsBesideOutput,
    Start,
    check_layout_name,
)
from zoned_tools.cli.output import late_progress_bar, print_json
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, UsageError
from zoned_tools.formats.shared.settings import Journey
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.engine.export import ExportResult
    from zoned_tools.formats.contract import Mapper, Target


@takes_settings(Journey.LOGICAL)
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
            help="Write what is lost as a ddrescue map file of the logical device.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    settings: SettingsBesideOutput = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
) -> int:
    """Write the logical device's content to a sparse raw file."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.report.documents.targets import export_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import lost_lines

    check_layout_name(layout)
    if json and output == "-":
        raise UsageError("--json and -o - cannot share standard output")
    paths, chosen = split_settings(devices, settings)
    with opened_target(paths, start, layout, mapfiles=mapfile or ()) as target:
        result = _run(target, chosen, output, force=force, skip_errors=skip_errors, quiet=quiet, processes=processes)
        if mapfile_out is not None:
            _write_mapfile(mapfile_out, target, result, force=force)
        if json:
            print_json(export_document(target, output, result))
        write_lines((f"zoned: {line}" for line in lost_lines(target, result)), sys.stderr)
    return FsckStatus.UNCORRECTED if result.lost else FsckStatus.CLEAN


def _write_mapfile(path: str, target: Target, result: ExportResult, *, force: bool) -> None:
    from zoned_tools.device.mapfile import mapfile_content
    from zoned_tools.engine.documents import write_document

    comments = [f"the logical device of {target.layout} on", *map(visible, target.paths)]
    write_document(path, mapfile_content(result.map_rows(), comments), overwrite=force, sources=target.paths)


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
