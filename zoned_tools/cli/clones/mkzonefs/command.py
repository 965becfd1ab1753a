"""Run a command line of ``mkzonefs``; messages are the original's and come without the program's name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.mkzonefs.arguments import parse_arguments
from zoned_tools.cli.clones.options import Command
from zoned_tools.errors import ContentError, ZonedError
from zoned_tools.report.stream import write_line, write_lines

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Run a command line; the exit status: 1 for whatever goes wrong."""
    try:
        _make(words)
    except ZonedError as error:
        sys.stdout.flush()
        lines = [str(error)]
        if isinstance(error, ContentError):
            lines = [f"{error.device} {error.message}", error.hint]
        for line in lines:
            write_line(line, sys.stderr)
        return error.clone_status
    return 0


def _make(words: Sequence[str]) -> None:
    arguments = parse_arguments(words)
    if isinstance(arguments, str):
        write_lines(arguments.splitlines(), tabs=True)
        return
    from zoned_tools.cli.clones.mkzonefs.make import make

    make(arguments)


def command() -> Command:
    return Command(run)
