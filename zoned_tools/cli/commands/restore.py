"""``zoned restore``: metadata back from a document."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from zoned_tools.cli.options import DevicePaths, DryRun, Start, Undo


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
    start: Start = None,
) -> int:
    """Write metadata back from what zoned dump saved."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.documents import read_document
    from zoned_tools.engine.targets import need_room, single_target
    from zoned_tools.formats.registry import DumpRoom

    document = read_document(source)
    layout = str(document["layout"])
    with open_devices(devices, writable=not dry_run) as opened:
        target = single_target(opened, start_sector=start, layout=layout)
        plan = cast(DumpRoom, need_room(target, "dump", "restore")).restore(target, document)
        execute(plan, target.devices, dry_run=dry_run, undo=undo, identity=layout)
    return 0
