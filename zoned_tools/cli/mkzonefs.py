"""``mkzonefs``: make a zonefs file system, as the original does.

Arguments are taken strictly from left to right, which no option parser does, so they are
read here. Messages are the original's and come without the program's name.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned_tools.cli.entry import VERSION_TEXT
from zoned_tools.errors import BusyError, ContentError, DeviceError, UsageError, ZonedError
from zoned_tools.text import visible

if TYPE_CHECKING:
    import uuid

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan, Step
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.zonefs.features import FeatureSet
    from zoned_tools.formats.zonefs.layout import SuperBlock


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its spellings, what follows it (empty: a flag), and its line in the help."""

    names: tuple[str, ...]
    value: str
    summary: str

    @property
    def usage(self) -> str:
        return " | ".join(self.names) + (f" <{self.value}>" if self.value else "")


OPTIONS = (
    Option(("--version",), "", "Print version number and exit"),
    Option(("--help", "-h"), "", "General help message"),
    Option(("-v",), "", "Verbose output"),
    Option(("-f",), "", "Force overwrite of existing content"),
)
FEATURES = Option(("-o",), "features", "Optional features")
OWN_OPTIONS = (
    Option(("-L",), "label", "Volume label (up to 64 bytes)"),
    Option(("--uuid",), "uuid", "UUID of the volume (default: random)"),
    Option(("--json",), "", "Print one JSON document"),
    Option(("--dry-run",), "", "Print what would be written, and change nothing"),
)
"""What the original's help does not have."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line."""

    path: str = ""
    force: bool = False
    verbose: bool = False
    label: bytes = b""
    features: FeatureSet | None = None
    uuid: uuid.UUID | None = None
    json: bool = False
    dry_run: bool = False


def usage(*, own: bool) -> str:
    """The help text; ``own`` adds the options that the original's does not list."""
    lines = ["Usage: mkzonefs [options] <device path>", "Options:"]
    lines += [f"  {option.usage:<14}: {option.summary}" for option in OPTIONS]
    lines.append(f"  {FEATURES.usage}\t: {FEATURES.summary}")
    if own:
        lines += [f"  {option.usage:<14}: {option.summary}" for option in OWN_OPTIONS]
    return "\n".join([*lines, 'See "man mkzonefs" for more information'])


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line; a text to print when it asks for help or the version.

    Raises:
        UsageError: with the original's message.
    """
    result = Arguments()
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            break
        if word == "--version":
            return VERSION_TEXT["mkzonefs"]
        if word in ("-h", "--help"):
            return usage(own=word == "--help")
        if word in ("-L", "-o", "--uuid"):
            if at + 2 >= len(words):
                raise UsageError("Invalid command line")
            result = _with_value(result, word, words[at + 1])
            at += 2
            continue
        result = _with_flag(result, word)
        at += 1
    if at != len(words) - 1:
        raise UsageError("No device specified")
    return replace(result, path=words[at])


def _with_flag(result: Arguments, word: str) -> Arguments:
    match word:
        case "-f":
            return replace(result, force=True)
        case "-v":
            return replace(result, verbose=True)
        case "--json":
            return replace(result, json=True)
        case "--dry-run":
            return replace(result, dry_run=True)
    raise UsageError(f"Invalid option '{word}'")


def _with_value(result: Arguments, word: str, value: str) -> Arguments:
    if word == "-L":
        from zoned_tools.formats.zonefs.constants import LABEL_BYTES

        label = os.fsencode(value)
        if len(label) > LABEL_BYTES:
            raise UsageError(f"Label too long ({LABEL_BYTES} chars allowed)")
        return replace(result, label=label)
    if word == "-o":
        from zoned_tools.formats.zonefs.features import parse_features

        return replace(result, features=parse_features(value, result.features))
    import uuid

    try:
        return replace(result, uuid=uuid.UUID(value))
    except ValueError:
        raise UsageError(f"Invalid UUID '{value}'") from None


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
        from zoned_tools.engine.content import refuse_content
        from zoned_tools.formats.zonefs.format import (
            check_resets,
            check_usable,
            check_zones,
            plan_volume,
            resets_zone_by_zone,
        )
        from zoned_tools.formats.zonefs.format_text import summary_lines, zone_lines

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
            self._print_json(plan, table)

    def _say(self, lines: Iterable[str]) -> None:
        if not self.arguments.json:
            print("\n".join(lines), flush=True)

    def _carry_out(self, plan: Plan, table: ZoneTable) -> None:
        from zoned_tools.device.plan import ManageZones, Write

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

    def _print_json(self, plan: Plan, table: ZoneTable) -> None:
        from zoned_tools.cli.output import print_json
        from zoned_tools.device.zones import has_condition
        from zoned_tools.formats.zonefs.constants import feature_names
        from zoned_tools.formats.zonefs.mapper.tree import build_groups
        from zoned_tools.formats.zonefs.open import Volume

        block, device = self.super_block, self.device
        groups = build_groups(Volume(device, table), block)
        offline = int(has_condition(table, 0xF).sum())
        document: dict[str, object] = {
            "schema": "zoned.mkzonefs/1",
            "device": device.path,
            "changed": not self.arguments.dry_run,
            "uuid": str(block.uuid),
            "label": block.label_text,
            "features": feature_names(block.features),
            "uid": block.uid,
            "gid": block.gid,
            "perm": f"{block.perm:o}",
            "nr_zones": len(table),
            "usable_zones": len(table) - offline - 1,
            "files": {name: len(group) for name, group in groups.items()},
            "plan": list(plan.describe([device.path])),
        }
        print_json(document)


def _announce(device: Device) -> None:
    """Tell udev that the content changed."""
    from zoned_tools.device.block import BlockDevice

    if isinstance(device, BlockDevice):
        try:
            (device.sysfs.directory / "uevent").write_text("change", encoding="ascii")
        except OSError:
            return  # sysfs is read-only in a container: udev's own watch does the rest


def make(words: Sequence[str]) -> None:
    """Run a command line.

    Raises:
        ZonedError: with the original's message where it has one.
    """
    arguments = parse_arguments(words)
    if isinstance(arguments, str):
        print(arguments)
        return
    path = real_path(arguments.path)
    with _open(path, writable=not arguments.dry_run) as device:
        Mkzonefs(arguments, device).run()
        if not arguments.dry_run:
            _announce(device)


class Command:
    """What :func:`zoned_tools.cli.run.run` runs."""

    def main(self, *, args: list[str], prog_name: str, standalone_mode: bool) -> int:
        """The exit status: 1 for whatever goes wrong."""
        try:
            make(args)
        except ZonedError as error:
            sys.stdout.flush()
            lines = [str(error)]
            if isinstance(error, ContentError):
                lines = [f"{error.device} {error.message}", error.hint]
            for line in lines:
                print(visible(line), file=sys.stderr)
            return error.clone_status
        return 0


def command() -> Command:
    return Command()


def command_tree() -> Any:
    """The options as a click command, for completions and the test of the manual page; it is never run."""
    from typer.core import TyperOption

    from zoned_tools.cli.lazy import build

    def mkzonefs() -> None:
        """Make a zonefs file system."""

    described = build("mkzonefs", mkzonefs)
    for option in (*OPTIONS[2:], FEATURES, *OWN_OPTIONS):
        described.params.append(
            TyperOption(param_decls=list(option.names), help=option.summary, is_flag=not option.value)
        )
    return described
