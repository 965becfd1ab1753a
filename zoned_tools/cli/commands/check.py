"""``zoned check``: fsck of whatever layout is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    All,
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
    check_layout_name,
)
from zoned_tools.cli.output import complain, note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, UsageError
from zoned_tools.formats.shared.settings import Journey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned_tools.engine.checking import Outcome


@takes_settings(Journey.CHECK, Journey.REPAIR)
@prints("check")
def check(
    devices: DevicePaths,
    repair: Annotated[bool, typer.Option("--repair", help="Plan a repair of what is found, and carry it out.")] = False,
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
    deep: Annotated[
        bool, typer.Option("--deep", help="Verify payload data too, where the layout has any to verify.")
    ] = False,
    diff_sets: Annotated[
        bool,
        typer.Option("--diff-sets", help="Tell which chunks and blocks each metadata set would give (dm-zoned)."),
    ] = False,
    everything: All = False,
    allow: Allow = None,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Check, and repair, whatever layout is there."""
    from zoned_tools.cli.changes import print_undo
    from zoned_tools.engine.checking import CheckRequest
    from zoned_tools.engine.repairing import RepairRequest, check_paths

    check_layout_name(layout)
    if undo is not None and not repair:
        raise UsageError("--undo needs --repair")
    if allow and not repair:
        raise UsageError("--allow needs --repair", hint="--repair --dry-run shows what it would do")
    if output and (not repair or dry_run):
        raise UsageError("--output needs --repair, without --dry-run")
    by_content = zones == "content"
    if by_content and repair and not (dry_run or output):
        raise UsageError("--zones content is for reading", hint="zoned image adopt --force replaces a zone table")
    paths, chosen = split_settings(devices, settings)
    if not repair:
        note_use(paths)
    if diff_sets and repair:
        raise UsageError("--diff-sets is for a check without --repair")
    request = CheckRequest(deep, chosen, diff_sets)
    repairing = RepairRequest(frozenset(allow or ()), dry_run, undo, no_undo, copies=bool(output)) if repair else None
    printer = _Printer(json=json, dry_run=dry_run, everything=everything)
    try:
        outcomes = check_paths(
            _copies(paths, output, mapfile or (), by_content=by_content) if output else paths,
            request,
            repairing,
            start_sector=start,
            layout=layout,
            mapfiles=() if output else mapfile or (),
            by_content=by_content,
            announce=printer.announce,
            saved=print_undo,
        )
        return printer.print(outcomes)
    except KeyboardInterrupt:
        return FsckStatus.CANCELLED


def _copies(paths: Sequence[str], images: Sequence[str], mapfiles: Sequence[str], *, by_content: bool) -> Sequence[str]:
    """Copy each device to a new image, zone states included; the images are what is repaired.

    What cannot be read is told by a map file beside the copy.

    Raises:
        UsageError: not one image for each device, or a device is named twice.
        DeviceError: an image exists, or a device cannot be read.
    """
    from zoned_tools.cli.output import progress_bar
    from zoned_tools.device.importing import copy_drive
    from zoned_tools.device.opening import mapfile_of_each, open_device, refuse_twice

    refuse_twice(paths)
    if len(images) != len(paths):
        raise UsageError(f"{len(images)} images for {len(paths)} devices", hint="give --output once for each device")
    for path, image, mapfile in zip(paths, images, mapfile_of_each(paths, mapfiles), strict=True):
        with (
            open_device(path, mapfile=mapfile, sidecar=not by_content) as device,
            progress_bar(f"copying {path}", device.geometry.size_bytes) as progress,
        ):
            copy_drive(device, image, progress=progress)
    return images


class _Printer:
    """Shows outcomes as they come: text at once, one JSON document at the end."""

    def __init__(self, *, json: bool, dry_run: bool, everything: bool) -> None:
        self._json = json
        self._dry_run = dry_run
        self._everything = everything

    def announce(self, outcome: Outcome) -> None:
        """The plan, before the first write."""
        from zoned_tools.report.plans import note_lines, plan_lines, rehearsal_lines
        from zoned_tools.report.stream import write_lines

        repair = outcome.plan
        assert repair is not None
        if self._dry_run:
            if not self._json:
                write_lines(plan_lines(repair.plan, outcome.devices, repair, everything=self._everything))
                write_lines(rehearsal_lines(outcome))
            return
        notes = note_lines(repair.plan, repair, everything=self._everything)
        write_lines((f"note: {line}" for line in notes), sys.stderr)
        write_lines((f"note: {line}" for line in rehearsal_lines(outcome)), sys.stderr)

    def print(self, outcomes: Iterable[Outcome]) -> FsckStatus:
        """Show every outcome; the exit statuses are OR-ed."""
        from zoned_tools.report.check import check_document, outcome_lines
        from zoned_tools.report.stream import write_lines

        status = FsckStatus.CLEAN
        kept: list[Outcome] = []
        for outcome in outcomes:
            status |= outcome.fsck_status
            if outcome.error is not None:
                complain(outcome.error)
            if self._json:
                kept.append(outcome)
            elif outcome.error is None:
                write_lines(outcome_lines(outcome, everything=self._everything))
        if self._json:
            print_json(check_document(kept, changed=any(outcome.changed for outcome in kept)))
        return status
