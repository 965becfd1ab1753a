"""``dmzadm --start`` and ``--stop``: the running kernel's target."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoned_tools.cli.changes import execute
from zoned_tools.cli.clones.dmzadm.members import LAYOUT, opened_members
from zoned_tools.device import device_mapper
from zoned_tools.device.opening import open_devices
from zoned_tools.device.sysfs import BlockSysfs
from zoned_tools.errors import BusyError, DeviceError, RefusedError, UsageError
from zoned_tools.formats.contract import CheckOptions, Settings, Severity, Target
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, check
from zoned_tools.formats.dm_zoned.running import KIND
from zoned_tools.formats.dm_zoned.sync import only_needs_sync, plan_sync
from zoned_tools.formats.dm_zoned.table import table_line
from zoned_tools.report import dmzadm as text
from zoned_tools.report.stream import write_line, write_lines
from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.cli.clones.dmzadm.arguments import Arguments
    from zoned_tools.formats.dm_zoned.layout import SuperBlock
    from zoned_tools.formats.shared.findings import Finding

T = TypeVar("T")

_FAILED = 255
_NOT_STOPPED = 234


def start_target(arguments: Arguments) -> int:
    """Start the target, unless the kernel would crash, hang or lose data with what is on the devices.

    Metadata sets of different generations, which a power cut leaves, are brought together first.
    """
    _refuse_started(arguments.paths)
    _refuse_part(arguments)
    with opened_members(arguments) as target:
        if not arguments.dry_run and any(device.emulated for device in target.devices):
            raise UsageError(
                "an image file cannot be started", device=target.device.path, hint="zoned serve exports it"
            )
        evidence = _checked(target)
        _refuse_dangerous(evidence, arguments)
        line = table_line(target, Settings()).line
        if not arguments.dry_run:
            write_lines(text.header_lines(target, evidence.geometry))
    if only_needs_sync(evidence):
        _synchronize(evidence, arguments)
    superblock = evidence.state.superblock
    name, uuid = _name_of(superblock, arguments.paths[0])
    first = os.path.basename(os.path.realpath(arguments.paths[0]))
    if arguments.verbose or arguments.dry_run:
        write_line(text.table_line(name, line))
    if arguments.dry_run:
        return 0
    if Path("/dev/mapper", name).exists():
        write_line(text.relabelling_line(first, name))
        name = f"dmz-{first}"
    write_line(text.starting_line(first, name, superblock.version, uuid))
    try:
        device_mapper.create(name, line, f"dmz-{uuid}" if uuid else "")
    except DeviceError as error:
        raise DeviceError(f"Failed to start {name}: {error.message}", device=first, clone_status=_FAILED) from None
    return 0


def _refuse_started(paths: Sequence[str]) -> None:
    """Refuse devices that the kernel runs a target on.

    Raises:
        BusyError: names it.
    """
    for path in paths:
        for mapping in device_mapper.mappings_on(path):
            if mapping.kind == KIND:
                raise BusyError(f"already started as {mapping.name}", device=os.path.basename(os.path.realpath(path)))


def _refuse_part(arguments: Arguments) -> None:
    """Refuse one device of a target of several, also the regular one, which the other operations do not look at.

    Raises:
        RefusedError: says what to name.
    """
    if len(arguments.paths) == 1:
        with open_devices(arguments.paths, mapfiles=arguments.every("mapfile")) as devices:
            if not devices[0].geometry.is_zoned:
                _failing(lambda: open_target(Target(LAYOUT, devices)))


def _checked(target: Target) -> DmZonedEvidence:
    return _failing(lambda: check(target, CheckOptions()))


def _failing(look: Callable[[], T]) -> T:
    """What is refused ends with the status of a target that does not start."""
    try:
        return look()
    except RefusedError as error:
        raise RefusedError(error.message, device=error.device, hint=error.hint, clone_status=_FAILED) from None


def _name_of(superblock: SuperBlock, path: str) -> tuple[str, str]:
    """``(device-mapper name, uuid)``; version 1 has neither, the name is made from the device's."""
    uuid = str(superblock.dmz_uuid) if superblock.version > 1 else ""
    return superblock.label or f"dmz-{os.path.basename(os.path.realpath(path))}", uuid


def _refuse_dangerous(evidence: DmZonedEvidence, arguments: Arguments) -> None:
    """Refuse what no start can go well with; a runt zone is only told."""
    syncs = only_needs_sync(evidence) and not arguments.has("no-sync")
    repair = f"run dmzadm --repair {' '.join(shell_word(path) for path in arguments.paths)} first"
    for group in evidence.findings.groups:
        first = next(iter(group))
        if group.severity is Severity.ERROR or (group.code == "sets-gen-differ" and not syncs):
            raise RefusedError(
                f"not started, {first.id}: {first.message}",
                device=evidence.target.device.path,
                hint=repair if first.repair and not _is_stray(first) else "",
                clone_status=_FAILED,
            )
        if group.code == "zone-runt":
            write_line(f"warning: {first.message}", sys.stderr)
    for danger in evidence.kernel_dangers:
        raise RefusedError(f"not started, {danger}", device=evidence.target.device.path, clone_status=_FAILED)


def _is_stray(finding: Finding) -> bool:
    """Whether a finding is of a member of another target: a repair would take it over, which nobody wants unasked."""
    return finding.code == "sb-uuid-mismatch" and "device" in finding.where


def _synchronize(evidence: DmZonedEvidence, arguments: Arguments) -> None:
    """Copy the newer set to the older one, with an undo file as every change has one."""
    superblock = evidence.state.superblock
    with opened_members(arguments, writable=True) as target:
        try:
            plan = plan_sync(target)
        except RefusedError as error:
            raise RefusedError(
                f"not started, {error.message}", device=error.device, hint=error.hint, clone_status=_FAILED
            ) from None
        execute(
            plan,
            target.devices,
            dry_run=arguments.dry_run,
            undo=arguments.undo,
            no_undo=arguments.no_undo,
            undo_if_it_fits=True,
        )
    if not arguments.dry_run:
        name, _ = _name_of(superblock, arguments.paths[0])
        write_line(text.synchronized_line(name, superblock.gen))


def stop_target(arguments: Arguments) -> int:
    """Stop the target that holds a device; any member will do."""
    if len(arguments.paths) != 1:
        raise UsageError("--stop takes one device")
    path = arguments.paths[0]
    try:
        status = os.stat(path)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None
    if not stat.S_ISBLK(status.st_mode):
        raise DeviceError("not a block device", device=path)
    name = os.path.basename(os.path.realpath(path))
    holders = BlockSysfs.of_device_number(status.st_rdev).holders
    if not holders:
        raise DeviceError("no dm-zoned device found", device=name)
    label = BlockSysfs(Path("/sys/block", holders[0]).resolve()).mapper_name
    if not label or not _is_zoned(label):
        raise DeviceError(
            f"dm device {holders[0]} is not a zoned target device", device=name, clone_status=_NOT_STOPPED
        )
    write_line(text.stopping_line(name, label))
    if arguments.dry_run:
        return 0
    try:
        device_mapper.remove(label)
    except DeviceError as error:
        raise BusyError(
            f"could not deactivate {label}: {error.message}", device=name, clone_status=_NOT_STOPPED
        ) from None
    return 0


def _is_zoned(name: str) -> bool:
    words = device_mapper.table(name).split()
    return len(words) > 2 and words[2] == KIND
