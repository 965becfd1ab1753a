"""A check or a repair, as ``zoned check`` and the commands of single layouts ask for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.cli.documents import print_json
from zoned_tools.cli.options import check_layout_name
from zoned_tools.cli.output import complain, note_use
from zoned_tools.cli.settings import split_settings
from zoned_tools.errors import FsckStatus, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned_tools.engine.checking import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCall:
    """What the command line says; the options of ``zoned check``.

    Attributes:
        yes: agree to every repair that guesses or loses.
        quiet: print nothing about what is clean.
        only_own: devices that hold another layout than ``layout`` are refused, without a repair too.
    """

    devices: Sequence[str]
    repair: bool = False
    dry_run: bool = False
    undo: str | None = None
    no_undo: bool = False
    output: Sequence[str] = ()
    yes: bool = False
    quiet: bool = False
    json: bool = False
    jsonl: bool = False
    deep: bool = False
    diff_sets: bool = False
    everything: bool = False
    allow: Sequence[str] = ()
    settings: Sequence[str] = ()
    start: int | None = None
    layout: str | None = None
    only_own: bool = False
    mapfile: Sequence[str] = ()
    zones: str = "table"

    def refuse_nonsense(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: they do not.
        """
        check_layout_name(self.layout)
        if self.json and self.jsonl:
            raise UsageError("--json and --jsonl exclude each other")
        if self.undo is not None and not self.repair:
            raise UsageError("--undo needs --repair")
        if self.allow and not self.repair:
            raise UsageError("--allow needs --repair", hint="--repair --dry-run shows what it would do")
        if self.output and (not self.repair or self.dry_run):
            raise UsageError("--output needs --repair, without --dry-run")
        if self.zones == "content" and self.repair and not (self.dry_run or self.output):
            raise UsageError("--zones content is for reading", hint="zoned image adopt --force replaces a zone table")
        if self.diff_sets and self.repair:
            raise UsageError("--diff-sets is for a check without --repair")


def run_check(call: CheckCall) -> int:
    """Check, or repair, and print how that went; the exit status."""
    from zoned_tools.cli.changes import print_undo
    from zoned_tools.engine.checking import CheckRequest
    from zoned_tools.engine.repairing import RepairRequest, check_paths

    call.refuse_nonsense()
    paths, chosen = split_settings(list(call.devices), list(call.settings))
    if not call.repair:
        note_use(paths)
    request = CheckRequest(call.deep, chosen, call.diff_sets)
    repairing = None
    if call.repair:
        repairing = RepairRequest(
            frozenset(call.allow), call.dry_run, call.undo, call.no_undo, copies=bool(call.output), allow_every=call.yes
        )
    printer = _Printer(call)
    by_content = call.zones == "content"
    try:
        outcomes = check_paths(
            _copies(paths, call.output, call.mapfile, by_content=by_content) if call.output else paths,
            request,
            repairing,
            start_sector=call.start,
            layout=call.layout,
            only_own=call.only_own,
            mapfiles=() if call.output else call.mapfile,
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
    """Shows outcomes as they come: text and lines of JSON at once, one JSON document at the end."""

    def __init__(self, call: CheckCall) -> None:
        self._json = call.json
        self._lines = call.jsonl
        self._dry_run = call.dry_run
        self._everything = call.everything
        self._quiet = call.quiet

    def announce(self, outcome: Outcome) -> None:
        """The plan, before the first write."""
        from zoned_tools.report.plans import note_lines, plan_lines, rehearsal_lines
        from zoned_tools.report.stream import write_lines

        repair = outcome.plan
        assert repair is not None
        if self._dry_run:
            if not (self._json or self._lines):
                write_lines(plan_lines(repair.plan, outcome.devices, repair, everything=self._everything))
                write_lines(rehearsal_lines(outcome))
            return
        notes = note_lines(repair.plan, repair, everything=self._everything)
        write_lines((f"note: {line}" for line in notes), sys.stderr)
        write_lines((f"note: {line}" for line in rehearsal_lines(outcome)), sys.stderr)

    def print(self, outcomes: Iterable[Outcome]) -> FsckStatus:
        """Show every outcome; the exit statuses are OR-ed."""
        from zoned_tools.formats.contract import Verdict
        from zoned_tools.report.check import check_document, check_line, outcome_lines
        from zoned_tools.report.stream import write_line, write_lines

        status = FsckStatus.CLEAN
        kept: list[Outcome] = []
        for outcome in outcomes:
            status |= outcome.fsck_status
            if outcome.error is not None:
                complain(outcome.error)
            if self._lines:
                write_line(check_line(outcome))
                sys.stdout.flush()
            elif self._json:
                kept.append(outcome)
            elif outcome.error is None and not (self._quiet and outcome.verdict is Verdict.CLEAN):
                write_lines(outcome_lines(outcome, everything=self._everything))
        if self._json:
            print_json(check_document(kept, changed=any(outcome.changed for outcome in kept)))
        return status
