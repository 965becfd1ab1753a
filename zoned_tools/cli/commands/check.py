"""``zoned check``: fsck of whatever layout is there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from zoned_tools.cli.options import DevicePaths, DryRun, Json, LayoutName, Settings, Start, Undo, check_layout_name
from zoned_tools.cli.output import print_json
from zoned_tools.cli.settings import split_settings
from zoned_tools.errors import FsckStatus, UsageError, ZonedError
from zoned_tools.findings import NothingToCheckError

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.findings import CheckReport
    from zoned_tools.formats.registry import CheckOptions, RepairOptions, Target


def check(
    devices: DevicePaths,
    repair: Annotated[bool, typer.Option("--repair", help="Plan a repair of what is found, and carry it out.")] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
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
    use_set: Annotated[
        int | None,
        typer.Option("--use-set", min=0, max=1, help="Trust this metadata set (dm-zoned).", show_default=False),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CODE",
            help="Agree to a repair that loses or guesses data; repeatable.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
) -> int:
    """Check, and repair, whatever layout is there."""
    from zoned_tools.formats.registry import CheckOptions, RepairOptions

    check_layout_name(layout)
    if undo is not None and not repair:
        raise UsageError("--undo needs --repair")
    if output and (not repair or dry_run):
        raise UsageError("--output needs --repair, without --dry-run")
    paths, chosen = split_settings(devices, settings)
    session = _Check(
        CheckOptions(deep=deep, settings=chosen),
        RepairOptions(use_set=use_set, allow=frozenset(allow or ()), settings=chosen) if repair else None,
        dry_run=dry_run,
        undo=undo,
        silent=json,
    )
    try:
        status = session.run(_copies(paths, output) if output else paths, start, layout)
    except KeyboardInterrupt:
        return FsckStatus.CANCELLED
    if json:
        print_json({"schema": "zoned.check/1", "changed": session.changed, "devices": session.rows})
    return status


def _copies(paths: Sequence[str], images: Sequence[str]) -> Sequence[str]:
    """Copy each device to a new image, zone states included; the images are what is repaired.

    Raises:
        UsageError: not one image for each device.
        DeviceError: an image exists, or a device cannot be read.
    """
    from zoned_tools.cli.output import progress_bar
    from zoned_tools.device.importing import copy_drive
    from zoned_tools.device.opening import open_device

    if len(images) != len(paths):
        raise UsageError(f"{len(images)} images for {len(paths)} devices", hint="give --output once for each device")
    for path, image in zip(paths, images, strict=True):
        with open_device(path) as device, progress_bar(f"copying {path}", device.geometry.size_bytes) as progress:
            copy_drive(device, image, progress=progress)
    return images


class _Check:
    """One run over any number of devices; collects what has to be printed."""

    def __init__(
        self, options: CheckOptions, repair: RepairOptions | None, *, dry_run: bool, undo: str | None, silent: bool
    ) -> None:
        self.options = options
        self.repair = repair
        self.dry_run = dry_run
        self.undo = undo
        self.silent = silent
        self.changed = False
        self.rows: list[dict[str, object]] = []

    def run(self, paths: Sequence[str], start: int | None, layout: str | None) -> FsckStatus:
        """Check every target; the exit statuses are OR-ed."""
        from zoned_tools.device.opening import open_device
        from zoned_tools.engine.targets import group_targets

        status = FsckStatus.CLEAN
        with ExitStack() as stack:
            opened: list[Device] = []
            for path in paths:
                try:
                    opened.append(
                        stack.enter_context(open_device(path, writable=self.repair is not None and not self.dry_run))
                    )
                except ZonedError as error:
                    if len(paths) == 1:
                        raise
                    status |= self._failed([path], None, error)
            targets, unknown = group_targets(opened, start_sector=start, layout=layout)
            if self.undo is not None and len(targets) > 1:
                raise UsageError("--undo saves one target at a time", hint="repair each target on its own")
            for device in unknown:
                status |= self._failed([device.path], None, ZonedError("no layout is recognised", device=device.path))
            for target in targets:
                try:
                    status |= self._one(target)
                except ZonedError as error:
                    status |= self._failed(list(target.paths), target.layout, error)
        return status

    def _failed(self, paths: list[str], layout: str | None, error: ZonedError) -> FsckStatus:
        self.rows.append({"devices": paths, "layout": layout, "verdict": "failed", "error": str(error), "findings": []})
        if not self.silent:
            import sys

            print(error.render("zoned"), file=sys.stderr)
        return error.fsck_status

    def _one(self, target: Target) -> FsckStatus:
        from zoned_tools.engine.targets import need_room
        from zoned_tools.formats.registry import CheckRoom

        room = cast("CheckRoom", need_room(target, "check", "check"))
        try:
            report = room.check(target, self.options)
        except NothingToCheckError as error:
            if self.repair is None and not error.report.findings:
                raise
            report = error.report
        if self.repair is not None:
            report = self._repair(target, room, report)
        self.rows.append(report.as_json())
        if not self.silent:
            from zoned_tools.report.findings import repaired_lines, report_lines

            for line in (*repaired_lines(report), *report_lines(report)):
                print(line)
        return report.verdict.fsck_status

    def _choices(self, target: Target, codes: Collection[str]) -> RepairOptions:
        """The user's choices, with finding ids as the layout's codes; those of other layouts are not its business.

        Raises:
            UsageError: a code that the layout does not have.
        """
        from zoned_tools.formats.registry import LAYOUTS

        assert self.repair is not None
        foreign = tuple(f"{name}." for name in LAYOUTS if name != target.layout)
        wanted = {c.removeprefix(f"{target.layout}.") for c in self.repair.allow if not c.startswith(foreign)}
        unknown = sorted(wanted.difference(codes))
        if unknown:
            raise UsageError(f"{target.layout} has no finding '{unknown[0]}'", hint="zoned explain lists them")
        return replace(self.repair, allow=frozenset(wanted))

    def _repair(self, target: Target, room: object, before: CheckReport) -> CheckReport:
        from zoned_tools.cli.changes import execute
        from zoned_tools.engine.targets import need_room
        from zoned_tools.formats.registry import CheckRoom, RepairRoom

        planner = cast("RepairRoom", need_room(target, "repair", "repair"))
        plan = planner.plan_repair(target, before, self._choices(target, cast("CheckRoom", room).CODES))
        before.facts["messages"] = plan.messages
        if self.dry_run and self.silent:
            before.facts["plan"] = list(plan.describe(target.paths))
            return before
        if not execute(plan, target.devices, dry_run=self.dry_run, undo=self.undo, identity=target.layout):
            return before
        self.changed = True
        after = cast("CheckRoom", room).check(target, self.options)
        after.corrected = True
        after.facts["repaired"] = [f.as_json() for f in before.findings]
        after.facts["messages"] = plan.messages
        return after
