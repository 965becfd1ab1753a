"""Run a command line of ``zdmadm``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.options import Command
from zoned_tools.cli.clones.zdmadm.arguments import BANNER, Arguments, parse_arguments, usage
from zoned_tools.cli.entry import VERSION_TEXT
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.cli.clones.zdmadm.session import Session

WRITING = ("create", "wipe", "set", "restore")
"""Verbs that open the device for writing."""


def run(words: Sequence[str]) -> int:
    """Run a command line; the exit status.

    Raises:
        zoned_tools.errors.ZonedError: whatever goes wrong, with the original's exit status where it is not 0.
    """
    if "--version" in words:
        print(VERSION_TEXT["zdmadm"])
        return 0
    arguments = parse_arguments(words)
    if isinstance(arguments, str):
        print(f"{BANNER}\n{usage()}")
        return 1 if arguments == "-h" else 0
    if not arguments.has("json"):
        print(BANNER, flush=True)
    return _administer(arguments)


def _administer(arguments: Arguments) -> int:
    from zoned_tools.cli.clones.zdmadm.session import Session
    from zoned_tools.device.opening import open_device

    if "/" not in arguments.path and not os.path.exists(arguments.path):
        raise UsageError("Invalid argument", device=arguments.path)
    writing = arguments.verb in WRITING and not arguments.has("dry-run")
    with open_device(arguments.path, writable=writing) as device:
        session = Session(arguments, device)
        for note in arguments.notes:
            session.note(note)
        status = _operate(session)
        session.finish()
    return status


def _operate(session: Session) -> int:
    match session.arguments.verb:
        case "create":
            from zoned_tools.cli.clones.zdmadm.create import create

            return create(session)
        case "restore":
            from zoned_tools.cli.clones.zdmadm.create import restore

            return restore(session)
        case "set":
            from zoned_tools.cli.clones.zdmadm.running import change

            return change(session)
        case "unload":
            from zoned_tools.cli.clones.zdmadm.running import unload

            return unload(session)
        case "wipe":
            from zoned_tools.cli.clones.zdmadm.wipe import wipe

            return wipe(session)
        case "check":
            from zoned_tools.cli.clones.zdmadm.check import check

            return check(session)
        case _:
            from zoned_tools.cli.clones.zdmadm.check import probe

            return probe(session)


def command() -> Command:
    return Command(run)
