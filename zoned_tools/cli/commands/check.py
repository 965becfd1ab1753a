"""``zoned check``: fsck of whatever layout is there."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import prints
from zoned_tools.cli.options import (
    AllFindings,
    Allow,
    DevicePaths,
    DryRun,
    Json,
    LayoutName,
    Mapfiles,
    NoUndo,
    Settings,
    Start,
    Undo,
    ZonesFrom,
)
from zoned_tools.cli.settings import takes_settings
from zoned_tools.formats.shared.settings import Journey


@takes_settings(Journey.CHECK, Journey.REPAIR)
@prints("check")
def check(
    devices: DevicePaths,
    repair: Annotated[bool, typer.Option("--repair", help="Plan a repair of what is found, and carry it out.")] = False,
    automatic: Annotated[
        bool,
        typer.Option("-a", "-p", help="As --repair: what is certain is repaired without asking, as fsck(8) says it."),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="As --repair, agreeing to every repair that guesses or loses."),
    ] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="IMAGE",
            help="Repair a copy in a new image and leave the device alone; once for each device, in order.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print a JSON object a line for each target, as soon as it is done.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Verify payload data too, where the layout has any to verify.")
    ] = False,
    diff_sets: Annotated[
        bool,
        typer.Option("--diff-sets", help="Tell which chunks and blocks each metadata set would give (dm-zoned)."),
    ] = False,
    everything: AllFindings = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing about targets that are clean.")] = False,
    allow: Allow = None,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Check, and repair, whatever layout is there."""
    from zoned_tools.cli.checking import CheckCall, run_check

    return run_check(
        CheckCall(
            devices=devices,
            repair=repair or automatic or yes,
            yes=yes,
            quiet=quiet,
            dry_run=dry_run,
            undo=undo,
            no_undo=no_undo,
            output=output or (),
            json=json,
            jsonl=jsonl,
            deep=deep,
            diff_sets=diff_sets,
            everything=everything,
            allow=allow or (),
            settings=settings or (),
            start=start,
            layout=layout,
            mapfile=mapfile or (),
            zones=zones,
        )
    )
