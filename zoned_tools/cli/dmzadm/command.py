"""``dmzadm``: format, check and run dm-zoned targets, as the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from zoned_tools.cli.dmzadm.common import Common
from zoned_tools.cli.lazy import build
from zoned_tools.errors import UsageError

OPERATIONS = ("--format", "--check", "--repair", "--relabel", "--start", "--stop")

OPTIONS_OF = {
    **dict.fromkeys(("--seq", "--force", "--uuid", "--device-uuid", "--metadata-version"), ("--format",)),
    "--label": ("--format", "--relabel"),
    **dict.fromkeys(("--use-set", "--allow", "--set"), ("--repair",)),
}
"""Options that only some operations take."""

USAGE = """\
Usage: dmzadm <operation> <device(s)> [options]
Operations:
  --help | -h    : General help message
  --version | -v : Print version number and exit
  --format       : Format the device metadata
  --check        : Check the device metadata, exit status 1 when errors are found
  --repair       : Repair the device metadata
  --relabel      : Change the device label
  --start        : Start the device mapper target
  --stop         : Stop the device mapper target
Devices are block devices or image files: one zoned device, or a regular one
followed by zoned ones.
General options:
  --verbose      : Verbose output
  --vverbose     : Very verbose output, every zone is printed
  --json         : Print one JSON document
  --dry-run      : Print what would be written, and change nothing
  --undo=FILE    : Save what is overwritten to FILE, for zoned undo
Format options:
  --force        : Overwrite existing content
  --label=STR    : Label of the target (also for --relabel)
  --seq=NUM      : Number of sequential zones reserved for reclaim (default 16)
  --uuid=UUID    : UUID of the target instead of a random one
  --device-uuid=UUID
                 : UUID of a device, repeated in device order
  --metadata-version=1|2
                 : Version of the metadata (default 2)
Repair options:
  --use-set=0|1  : Trust this metadata set
  --allow=CODE   : Agree to a repair that loses or guesses data; repeatable
  --set=KEY=VALUE
                 : A choice of repair (overlap=buffer, reclaim=clear); repeatable
"""


def dmzadm(
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="DEVICE...", help="The target's devices, in order.")
    ] = None,
    op_format: Annotated[bool, typer.Option("--format", help="Format the device metadata.")] = False,
    op_check: Annotated[bool, typer.Option("--check", help="Check the device metadata.")] = False,
    op_repair: Annotated[bool, typer.Option("--repair", help="Repair the device metadata.")] = False,
    op_relabel: Annotated[bool, typer.Option("--relabel", help="Change the device label.")] = False,
    op_start: Annotated[bool, typer.Option("--start", help="Start the device mapper target.")] = False,
    op_stop: Annotated[bool, typer.Option("--stop", help="Stop the device mapper target.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Verbose output.")] = False,
    vverbose: Annotated[bool, typer.Option("--vverbose", help="Very verbose output, every zone is printed.")] = False,
    seq: Annotated[
        str | None, typer.Option("--seq", metavar="NUM", help="Sequential zones reserved for reclaim.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="STR", help="Label of the target.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing content.")] = False,
    uuid: Annotated[str | None, typer.Option("--uuid", metavar="UUID", help="UUID of the target.")] = None,
    device_uuid: Annotated[
        list[str] | None, typer.Option("--device-uuid", metavar="UUID", help="UUID of a device, in device order.")
    ] = None,
    metadata_version: Annotated[
        str | None, typer.Option("--metadata-version", metavar="1|2", help="Version of the metadata.")
    ] = None,
    use_set: Annotated[str | None, typer.Option("--use-set", metavar="0|1", help="Trust this metadata set.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="CODE", help="Agree to a repair that loses or guesses data.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A choice of repair: overlap=buffer, reclaim=clear; repeatable."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, and change nothing.")
    ] = False,
    undo: Annotated[
        str | None, typer.Option("--undo", metavar="FILE", help="Save what is overwritten to FILE.")
    ] = None,
) -> int:
    """Format, check, repair, relabel, start and stop dm-zoned targets."""
    flags = (op_format, op_check, op_repair, op_relabel, op_start, op_stop)
    operation = _operation([name for name, on in zip(OPERATIONS, flags, strict=True) if on])
    if not devices:
        raise UsageError("No device specified")
    given = {
        "--seq": seq is not None,
        "--label": label is not None,
        "--force": force,
        "--uuid": uuid is not None,
        "--device-uuid": bool(device_uuid),
        "--metadata-version": metadata_version is not None,
        "--use-set": use_set is not None,
        "--allow": bool(allow),
        "--set": bool(settings),
    }
    _refuse_foreign_options(operation, [name for name, on in given.items() if on])
    common = Common(
        paths=tuple(devices), verbose=verbose or vverbose, very_verbose=vverbose, json=json, dry_run=dry_run, undo=undo
    )
    match operation:
        case "--format":
            from zoned_tools.cli.dmzadm.format import format_choices, format_devices

            choices = format_choices(seq, label, uuid, device_uuid or (), metadata_version)
            return format_devices(common, choices, force=force)
        case "--repair":
            from zoned_tools.cli.dmzadm.check import repair_devices

            return repair_devices(common, use_set, allow or (), settings or ())
        case "--relabel":
            from zoned_tools.cli.dmzadm.check import relabel_devices

            return relabel_devices(common, label)
        case _:
            return _run_plain(operation, common)


def _run_plain(operation: str, common: Common) -> int:
    """Run an operation that has no options of its own."""
    if operation == "--check":
        from zoned_tools.cli.dmzadm.check import check_devices

        return check_devices(common)
    from zoned_tools.cli.dmzadm.target import start_target, stop_target

    return start_target(common) if operation == "--start" else stop_target(common)


def _operation(chosen: Sequence[str]) -> str:
    if len(chosen) != 1:
        raise UsageError("give exactly one operation", hint="see dmzadm --help")
    return chosen[0]


def _refuse_foreign_options(operation: str, given: Sequence[str]) -> None:
    """Every option belongs to certain operations; two refusals are the original's own texts."""
    for name in given:
        if operation in OPTIONS_OF[name]:
            continue
        if name in ("--seq", "--label"):
            raise UsageError(f"{name} option is valid only with the format operation")
        raise UsageError(f"{name} option is not valid with {operation}")


class _Dmzadm:
    """The click command behind the original's rules about the first argument."""

    def main(self, args: Sequence[str], prog_name: str, standalone_mode: bool) -> int:
        if not args or (args[0] in OPERATIONS and len(args) == 1):
            print(USAGE, end="")
            return 1
        if args[0] in ("--help", "-h"):
            print(USAGE, end="")
            return 0
        if args[0] not in OPERATIONS:
            raise UsageError(f'Unknown operation "{args[0]}"')
        result: Any = command_tree().main(args=list(args), prog_name=prog_name, standalone_mode=standalone_mode)
        return int(result or 0)


def command_tree() -> Any:
    """The click command with every option (for man page and completion tests)."""
    return build("dmzadm", dmzadm)


def command() -> _Dmzadm:
    return _Dmzadm()
