"""``zoned undo``: play an undo file back, and list those that there are."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import expect, print_json, prints
from zoned_tools.cli.options import DryRun, Json
from zoned_tools.errors import UsageError


@prints("undo")
def undo(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Undo file (see --list).", show_default=False)
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Argument(metavar="DEV...", help="The devices to bring back, in the file's order.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Overwrite what was changed after the undo file was saved.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--list", "-l", help="List the undo files in the state directory.")
    ] = False,
    json: Json = False,
) -> int:
    """Play an undo file back."""
    if everything:
        expect("undo.list")
        return _list(json=json)
    if file is None:
        raise UsageError("no undo file is named", hint="zoned undo --list shows those that there are")
    from zoned_tools.engine.undoing import opened_playback
    from zoned_tools.report.documents.undo import undo_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.undo import playback_lines

    with opened_playback(file, devices or (), writable=not dry_run, force=force) as playback:
        document = undo_document(playback, changed=not dry_run) if json else None
        if document is None:
            write_lines(playback_lines(playback, dry_run=dry_run))
        if not dry_run:
            playback.run()
    if document is not None:
        print_json(document)
    return 0


def _list(*, json: bool) -> int:
    from zoned_tools.device.undo_files import list_undo_files
    from zoned_tools.report.documents.undo import undo_list_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.undo import list_lines

    entries = list_undo_files()
    if json:
        print_json(undo_list_document(entries))
    else:
        write_lines(list_lines(entries))
    return 0
