"""Run a program: the one place that turns errors into a line and an exit status."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import typer

from zoned_tools.errors import FsckStatus, ZonedError

PROGRAMS = {
    "zoned": "zoned_tools.cli.zoned:command",
    "dmzadm": "zoned_tools.cli.dmzadm.command:command",
    "zdmadm": "zoned_tools.cli.zdmadm:command",
    "mkzonefs": "zoned_tools.cli.clones.mkzonefs:command",
}
"""Program name to ``module:function``; the function returns the click command."""

INTERRUPTED = 130

DEBUG = "ZONED_TOOLS_DEBUG"
"""Environment variable that lets a traceback through."""


def is_clone(program: str) -> bool:
    """Clones keep the originals' exit statuses, ``zoned`` those of fsck(8)."""
    return program != "zoned"


def load(target: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def status_of(program: str, error: ZonedError) -> int:
    return error.clone_status if is_clone(program) else int(error.fsck_status)


def run(program: str, arguments: Sequence[str]) -> int:
    """Run ``program`` and return its exit status."""
    try:
        command = load(PROGRAMS[program])()
        result = command.main(args=list(arguments), prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except ZonedError as error:
        _complain(error.render(program))
        return status_of(program, error)
    except typer.TyperException as error:
        text = " ".join(cast(Any, error).format_message().split())
        _complain(f"{program}: {text} (see {program} --help)")
        return 1 if is_clone(program) else int(FsckStatus.USAGE)
    except BrokenPipeError:
        return _reader_gone(program)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click leaves like this
            return _reader_gone(program)
        raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except (MemoryError, RecursionError):
        _complain(f"{program}: out of memory")
        return 1 if is_clone(program) else int(FsckStatus.OPERATIONAL)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _complain(f"{program}: {name}{error.strerror or error}")
        return 1 if is_clone(program) else int(FsckStatus.OPERATIONAL)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _complain(f"{program}: internal error: {type(error).__name__}: {error} (a bug; {DEBUG}=1 shows where)")
        return 1 if is_clone(program) else int(FsckStatus.OPERATIONAL)


def _reader_gone(program: str) -> int:
    """Of a command whose result goes to standard output byte by byte: it is not complete."""
    _complain(f"{program}: standard output was closed before everything was written")
    return 1 if is_clone(program) else int(FsckStatus.OPERATIONAL)


def _complain(line: str) -> None:
    sys.stdout.flush()
    print(" ".join(line.splitlines()), file=sys.stderr)
