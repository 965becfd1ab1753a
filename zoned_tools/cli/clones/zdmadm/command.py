"""Run a command line of ``zdmadm``."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.options import Command
from zoned_tools.cli.clones.zdmadm.arguments import BANNER, Arguments, parse_arguments, require_sensible, usage
from zoned_tools.cli.entry import VERSION_TEXT
from zoned_tools.errors import UsageError, ZonedError
from zoned_tools.report.stream import write_line, write_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.cli.clones.zdmadm.session import Session
    from zoned_tools.report.documents.clones import ZdmadmDocument
    from zoned_tools.report.documents.targets import CheckedRow

WRITING = ("create", "wipe", "set", "restore")
"""Verbs that open the device for writing."""

STOPPING = ("create", "wipe")
"""Verbs that leave the other devices alone when one fails."""


def run(words: Sequence[str]) -> int:
    """Run a command line; the exit status.

    Raises:
        zoned_tools.errors.ZonedError: the command line makes no sense.
    """
    if "--version" in words:
        write_line(VERSION_TEXT["zdmadm"])
        return 0
    try:
        arguments = parse_arguments(words)
    except UsageError:
        write_lines([BANNER, *usage().splitlines()])
        raise
    if isinstance(arguments, str):
        write_lines([BANNER, *usage().splitlines()])
        return 1 if arguments == "-h" else 0
    if not arguments.has("json"):
        write_lines([BANNER, *arguments.lines])
        sys.stdout.flush()
    require_sensible(arguments)
    return _administer(arguments)


def _administer(arguments: Arguments) -> int:
    """Carry the verb out on each device; the status of the first one that failed.

    Raises:
        UsageError: one is named twice, which is told before any is opened.
    """
    from zoned_tools.device.opening import refuse_twice

    refuse_twice(arguments.paths)
    status = 0
    documents: list[ZdmadmDocument | CheckedRow] = []
    for path in arguments.paths:
        try:
            found, document = _with_device(arguments, path)
        except ZonedError as error:
            if len(arguments.paths) == 1:
                raise
            _complain(error)
            found, document = error.clone_status, _failure(arguments, path, error)
        status = status or found
        documents.append(document)
        if status and arguments.verb in STOPPING:
            break
    if arguments.has("json"):
        _print_documents(arguments, documents)
    return status


def _failure(arguments: Arguments, path: str, error: ZonedError) -> ZdmadmDocument:
    from zoned_tools.report.documents.clones import zdmadm_document

    return {**zdmadm_document(arguments.verb, path), "error": str(error)}


def _complain(error: ZonedError) -> None:
    sys.stdout.flush()
    write_line(error.render("zdmadm"), sys.stderr)


def _print_documents(arguments: Arguments, documents: list[ZdmadmDocument | CheckedRow]) -> None:
    from zoned_tools.cli.documents import print_json
    from zoned_tools.report.documents.clones import zdmadm_devices

    if len(arguments.paths) > 1:
        print_json(zdmadm_devices(arguments.verb, documents))
    else:
        print_json(documents[0])


def _with_device(arguments: Arguments, path: str) -> tuple[int, ZdmadmDocument]:
    """Exit status and document of one device."""
    from zoned_tools.cli.clones.zdmadm.session import Session
    from zoned_tools.device.opening import open_device

    meta = arguments.values.get("meta")
    if meta == path:
        if not arguments.has("json"):
            write_line("Meta data and data device are same")
            sys.stdout.flush()
        raise UsageError("it is the metadata device, too", device=path)
    if "/" not in path and not os.path.exists(path):
        raise UsageError("Invalid argument", device=path)
    writing = arguments.verb in WRITING and not arguments.has("dry-run")
    with ExitStack() as stack:
        device = stack.enter_context(open_device(path, writable=writing and (meta is None or arguments.has("mirror"))))
        second = None if meta is None else stack.enter_context(open_device(meta, writable=writing))
        session = Session(arguments, device, second)
        return _operate(session), session.document


def _operate(session: Session) -> int:
    verb = session.arguments.verb
    if verb in STOPPING:
        session.refuse_unfit()
    match verb:
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
