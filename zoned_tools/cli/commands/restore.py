"""``zoned restore``: metadata back from a document."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import DevicePaths, DryRun, Json, NoUndo, Start, Undo


@prints("restore")
def restore(
    devices: DevicePaths,
    source: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="FILE", help="What zoned dump wrote; - is standard input.", show_default=False
        ),
    ],
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Restore over another target too, or what leaves more errors."),
    ] = False,
    json: Json = False,
    start: Start = None,
) -> int:
    """Write metadata back from what zoned dump saved."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.engine.documents import read_document
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.engine.restoring import plan_restore
    from zoned_tools.report.documents.changes import restore_document
    from zoned_tools.report.plans import restored_line
    from zoned_tools.report.stream import write_lines

    document = read_document(source)
    layout = str(document["layout"])
    with opened_target(devices, start, layout, writable=not dry_run) as target:
        plan, after = plan_restore(target, document, force=force)
        carried = execute(plan, target.devices, dry_run=dry_run, silent=json, undo=undo, no_undo=no_undo)
        if json:
            print_json(restore_document(target, plan, after, carried))
        else:
            write_lines([restored_line(after, dry_run=dry_run)])
    return 0
