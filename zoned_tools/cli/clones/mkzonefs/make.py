"""What ``mkzonefs`` does with a device; messages are the original's."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from zoned_tools.errors import BusyError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.cli.clones.mkzonefs.arguments import Arguments
    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan, Step
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.zonefs.layout import SuperBlock


def real_path(path: str) -> str:
    """The path that messages name; refuses what is neither a block device nor a file.

    Raises:
        DeviceError: with the original's message.
    """
    try:
        real = os.path.realpath(path, strict=True)
        mode = os.stat(real).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DeviceError(f"Failed to get device real path: {path!r}: {reason}") from None
    if stat.S_ISBLK(mode):
        _refuse_used(real)
    elif not stat.S_ISREG(mode) and not _is_zloop(real):
        raise DeviceError(f"{real} is not a block device")
    return real


def _is_zloop(path: str) -> bool:
    from zoned_tools.device.zloop import is_zloop

    return os.path.isdir(path) and is_zloop(path)


def _refuse_used(path: str) -> None:
    from zoned_tools.device.identity import describe_use, mount_points
    from zoned_tools.device.sysfs import BlockSysfs

    rdev = os.stat(path).st_rdev
    if next(mount_points(rdev), None) is not None:
        raise BusyError(f"{path} is mounted")
    if BlockSysfs.of_device_number(rdev).is_partition or describe_use(path):
        raise BusyError(f"{path} is in use")


def _open(path: str, *, writable: bool) -> Device:
    from zoned_tools.device.opening import open_device
    from zoned_tools.errors import SidecarError

    try:
        return open_device(path, writable=writable)
    except SidecarError:
        raise
    except DeviceError as error:
        if not error.errno:
            raise
        raise type(error)(f"Open {path} failed {error.errno} ({os.strerror(error.errno)})", errno=error.errno) from None


class Mkzonefs:
    """One run on an open device."""

    def __init__(self, arguments: Arguments, device: Device) -> None:
        from zoned_tools.formats.zonefs.features import FeatureSet
        from zoned_tools.formats.zonefs.parameters import Parameters

        self.arguments = arguments
        self.device = device
        self.name = os.path.basename(device.path)
        parameters = Parameters(arguments.label, arguments.features or FeatureSet(), arguments.uuid)
        self.super_block: SuperBlock = parameters.super_block()

    def run(self) -> None:
        """Check, describe, and carry out or (``--dry-run``) print the plan."""
        from zoned_tools.cli.changes import print_plan
        from zoned_tools.cli.documents import print_json
        from zoned_tools.engine.content import refuse_content
        from zoned_tools.formats.zonefs.format import (
            check_resets,
            check_usable,
            check_zones,
            plan_volume,
            resets_zone_by_zone,
        )
        from zoned_tools.formats.zonefs.open import Volume
        from zoned_tools.report.documents.clones import mkzonefs_document
        from zoned_tools.report.mkzonefs import summary_lines, zone_lines

        arguments, device = self.arguments, self.device
        if not arguments.force:
            refuse_content(device, hint="Use the option '-f' to overwrite")
        if not device.geometry.is_zoned:
            raise DeviceError(f"{self.name}: Not a zoned block device")
        table = device.zones()
        if arguments.verbose:
            self._say(zone_lines(table))
        check_zones(device.geometry, table, device.path)
        self._say(summary_lines(device.geometry, table, self.super_block, device.path))
        check_usable(table, device.path)
        mapped = resets_zone_by_zone(device)
        if mapped:
            check_resets(table, device.path)
        plan = plan_volume(device, table, self.super_block, zone_by_zone=mapped)
        if not arguments.dry_run:
            self._carry_out(plan, table)
        elif not arguments.json:
            print_plan(plan, [device])
        if arguments.json:
            volume = Volume(device, table)
            print_json(mkzonefs_document(volume, self.super_block, plan, changed=not arguments.dry_run))

    def _say(self, lines: Iterable[str]) -> None:
        if not self.arguments.json:
            from zoned_tools.report.stream import write_lines

            write_lines(lines)
            sys.stdout.flush()

    def _carry_out(self, plan: Plan, table: ZoneTable) -> None:
        from zoned_tools.cli.changes import print_undo_as_clone
        from zoned_tools.device.plan import ManageZones, Write

        print_undo_as_clone(self._save_overwritten(plan))
        self._say(["Resetting sequential zones"])
        for step in plan.steps:
            if isinstance(step, Write):
                self._say(["Writing super block"])
            try:
                self._apply(step)
            except DeviceError:
                if not (isinstance(step, ManageZones) and step.count > 1):
                    raise
                self._reset_one_by_one(table)
        self._verify()

    def _save_overwritten(self, plan: Plan) -> Carried:
        from zoned_tools.engine.changing import save_overwritten
        from zoned_tools.formats.zonefs.constants import NAME

        arguments = self.arguments
        return save_overwritten(
            plan,
            [self.device],
            undo=arguments.undo,
            no_undo=arguments.no_undo,
            undo_if_it_fits=True,
            identity_after=f"{NAME} {self.super_block.uuid}",
        )

    def _reset_one_by_one(self, table: ZoneTable) -> None:
        """What is left to do on a drive that does not reset all its zones at once."""
        from zoned_tools.device.base import ZoneOperation
        from zoned_tools.device.plan import ManageZones
        from zoned_tools.device.zones import DEAD_CONDITIONS, has_condition, is_sequential

        for zone in (is_sequential(table) & ~has_condition(table, *DEAD_CONDITIONS)).nonzero()[0].tolist():
            self._apply(ManageZones(0, ZoneOperation.RESET, zone))

    def _apply(self, step: Step) -> None:
        from zoned_tools.device.plan import apply_step

        try:
            apply_step([self.device], step)
        except DeviceError as error:
            raise self._failure(step, error) from None

    def _failure(self, step: Step, error: DeviceError) -> DeviceError:
        from zoned_tools.device.plan import ManageZones, Write

        if isinstance(step, ManageZones):
            what = f"{str(step.operation).capitalize()} zone {step.first_zone}"
        elif isinstance(step, Write):
            what = "Write super block"
        else:
            return error
        reason = f"{error.errno} ({os.strerror(error.errno)})" if error.errno else error.message
        return DeviceError(f"{self.name}: {what} failed {reason}", errno=error.errno)

    def _verify(self) -> None:
        raw = self.super_block.pack()
        if self.device.read(0, len(raw)) != raw:
            raise DeviceError(f"{self.name}: the super block does not read back")


def _announce(device: Device) -> None:
    """Tell udev that the content changed."""
    from zoned_tools.device.block import BlockDevice

    if isinstance(device, BlockDevice):
        try:
            (device.sysfs.directory / "uevent").write_text("change", encoding="ascii")
        except OSError:
            return  # sysfs is read-only in a container: udev's own watch does the rest


def make(arguments: Arguments) -> None:
    """Do what a command line says.

    Raises:
        ZonedError: with the original's message where it has one.
    """
    path = real_path(arguments.path)
    with _open(path, writable=not arguments.dry_run) as device:
        Mkzonefs(arguments, device).run()
        if not arguments.dry_run:
            _announce(device)
