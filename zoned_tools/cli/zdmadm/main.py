"""Run a command line of ``zdmadm``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from zoned_tools.cli.entry import VERSION_TEXT
from zoned_tools.cli.zdmadm.arguments import BANNER, parse_arguments, usage
from zoned_tools.errors import UsageError


def administer(words: Sequence[str]) -> int:
    """Run a command line; the exit status.

    Raises:
        zoned_tools.errors.ZonedError: whatever goes wrong, with the original's exit status where it is not 0.
    """
    arguments = parse_arguments(words)
    if isinstance(arguments, str):
        print(f"{BANNER}\n{usage()}")
        return 1 if arguments == "-h" else 0
    if not arguments.has("json"):
        print(BANNER, flush=True)
    from zoned_tools.cli.zdmadm.session import Session
    from zoned_tools.device.opening import open_device

    if "/" not in arguments.path and not os.path.exists(arguments.path):
        raise UsageError("Invalid argument", device=arguments.path)
    writing = arguments.verb in ("create", "wipe", "set", "restore") and not arguments.has("dry-run")
    with open_device(arguments.path, writable=writing) as device:
        return Session(arguments, device).run()


class Command:
    """What :func:`zoned_tools.cli.run.run` runs."""

    def main(self, *, args: list[str], prog_name: str, standalone_mode: bool) -> int:
        """The exit status; errors are rendered by the caller."""
        if "--version" in args:
            print(VERSION_TEXT["zdmadm"])
            return 0
        return administer(args)


def command() -> Command:
    return Command()
