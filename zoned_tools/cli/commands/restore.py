"""``zoned restore``: metadata back from a document."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import DevicePaths, DryRun, NoUndo, Start, Undo


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
    start: Start = None,
) -> int:
    """Write metadata back from what zoned dump saved."""
    from zoned_tools.cli.changes import execute, print_undo
    from zoned_tools.engine.documents import read_document
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import need

    document = read_document(source)
    layout = str(document["layout"])
    with opened_target(devices, start, layout, writable=not dry_run) as target:
        plan = need(registry.of(target).restore, target, "restore")(target, document)
        carried = execute(plan, target.devices, dry_run=dry_run, undo=undo, no_undo=no_undo)
        print_undo(carried)
    return 0
