"""``zoned import``: a raw file, block device or standard input as the content of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import DevicePaths, DryRun, Json, LayoutName, NoUndo, Quiet, Start, Undo, check_layout_name
from zoned_tools.cli.output import late_progress_bar
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from zoned_tools.device.rawsource import RawSource
    from zoned_tools.engine.import_raw import ImportPlan
    from zoned_tools.formats.contract import Imported, Target


@prints("import")
def import_raw(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RAW", help="Raw content: a file, a block device, - for standard input.", show_default=False
        ),
    ],
    devices: DevicePaths,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Fill a target that holds data too, where nothing is mapped.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an import that was cut off; what is there is compared.")
    ] = False,
    commit_every: Annotated[
        int,
        typer.Option(
            "--commit-every",
            metavar="N",
            min=0,
            help="Commit after N chunks, which --resume finds then; 0: at the end.",
        ),
    ] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Read back what was imported, and compare.")] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    quiet: Quiet = False,
    start: Start = None,
    layout: LayoutName = None,
) -> int:
    """Fill the logical device with raw content, sequentially."""
    from zoned_tools.device.opening import refuse_twice
    from zoned_tools.device.rawsource import RawSource
    from zoned_tools.engine.import_raw import plan_import
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.contract import ImportOptions
    from zoned_tools.report.documents.logical import import_document
    from zoned_tools.report.stream import write_line
    from zoned_tools.report.targets import import_line

    check_layout_name(layout)
    if force and resume:
        raise UsageError("--force and --resume exclude each other")
    refuse_twice([source, *devices] if source != "-" else devices)
    with (
        RawSource(source) as content,
        opened_target(devices, start, layout, writable=not dry_run, only_own=True) as target,
    ):
        planned = plan_import(content, target, ImportOptions(force, resume, commit_every, dry_run))
        if dry_run:
            done = _rehearse(content, planned, quiet=quiet or json)
        else:
            done = _run(content, target, planned, verify=verify, undo=undo, no_undo=no_undo, quiet=quiet or json)
        document = import_document(target, source, content.size_bytes or 0, done, planned.free, changed=not dry_run)
        if json:
            print_json(document)
        else:
            write_line(import_line(document))
    return 0


def _rehearse(content: RawSource, planned: ImportPlan, *, quiet: bool) -> Imported:
    from zoned_tools.engine.import_raw import rehearse_import

    with late_progress_bar("rehearse", quiet=quiet) as bar:
        bar.begin(content.size_bytes or planned.importer.size_bytes)
        return rehearse_import(content, planned, progress=bar)


def _run(
    content: RawSource,
    target: Target,
    planned: ImportPlan,
    *,
    verify: bool,
    undo: str | None,
    no_undo: bool,
    quiet: bool,
) -> Imported:
    from zoned_tools.cli.changes import print_undo
    from zoned_tools.engine.import_raw import import_raw

    with late_progress_bar("import", quiet=quiet) as bar:
        bar.begin(content.size_bytes or planned.importer.size_bytes)
        return import_raw(
            content, target, planned, verify=verify, undo=undo, no_undo=no_undo, saved=print_undo, progress=bar
        )
