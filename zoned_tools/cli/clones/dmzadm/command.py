"""Run a command line of ``dmzadm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.cli.clones.dmzadm.arguments import HELP, OPERATIONS, Arguments, parse_arguments, usage
from zoned_tools.cli.clones.options import Command
from zoned_tools.errors import UsageError
from zoned_tools.report.stream import write_lines

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Run a command line; the exit status.

    Raises:
        zoned_tools.errors.ZonedError: whatever goes wrong, with the original's exit status.
    """
    operations = [name for option in OPERATIONS for name in option.names]
    if not words or (words[0] in operations and len(words) == 1):
        write_lines(usage().splitlines())
        return 1
    if words[0] in HELP.names:
        write_lines(usage().splitlines())
        return 0
    if words[0] not in operations:
        raise UsageError(f'Unknown operation "{words[0]}"')
    arguments = parse_arguments(words)
    if isinstance(arguments, str):
        write_lines(arguments.splitlines())
        return 0
    return _operate(arguments)


def _operate(arguments: Arguments) -> int:
    match arguments.operation:
        case "format":
            from zoned_tools.cli.clones.dmzadm.format import format_devices

            return format_devices(arguments)
        case "check":
            from zoned_tools.cli.clones.dmzadm.check import check_devices

            return check_devices(arguments)
        case "repair":
            from zoned_tools.cli.clones.dmzadm.check import repair_devices

            return repair_devices(arguments)
        case "relabel":
            from zoned_tools.cli.clones.dmzadm.relabel import relabel_devices

            return relabel_devices(arguments)
        case "start":
            from zoned_tools.cli.clones.dmzadm.target import start_target

            return start_target(arguments)
        case _:
            from zoned_tools.cli.clones.dmzadm.target import stop_target

            return stop_target(arguments)


def command() -> Command:
    return Command(run)
