"""Run a program: the one place that turns errors into a line and an exit status."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from zoned_tools.cli import documents
from zoned_tools.errors import DeviceError, FsckStatus, UsageError, ZonedError, ZonedWarning
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROGRAMS = {
    "zoned": "zoned_tools.cli.zoned:command",
    "dmzadm": "zoned_tools.cli.clones.dmzadm:command",
    "zdmadm": "zoned_tools.cli.clones.zdmadm:command",
    "mkzonefs": "zoned_tools.cli.clones.mkzonefs:command",
}
"""Program name to ``module:function``; the function returns the click command."""

INTERRUPTED = 130
"""Of the clones, as of a program that the signal ends."""

DEBUG = "ZONED_TOOLS_DEBUG"
"""Environment variable that lets a traceback through."""

_NUMBERS = re.compile(r"is not a valid (?:int(?:eger)?|float)(?: range)?")
"""What click says of words that are no numbers."""

_SAID: set[str] = set()
"""Warnings about installed layouts that this process has printed."""


def is_clone(program: str) -> bool:
    """Clones keep the originals' exit statuses, ``zoned`` those of fsck(8)."""
    return program != "zoned"


class _Command(Protocol):
    """A click command, or a clone's."""

    def main(self, *, args: list[str], prog_name: str, standalone_mode: bool) -> int | None: ...


class _Formatted(Protocol):
    """An error of click, as far as it is shown."""

    def format_message(self) -> str: ...


def load(target: str) -> object:
    """The object that ``module:name`` names."""
    module, _, name = target.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found


def status_of(program: str, error: ZonedError) -> int:
    return error.clone_status if is_clone(program) else int(error.fsck_status)


def run(program: str, arguments: Sequence[str]) -> int:
    """Run ``program`` and return its exit status."""
    documents.begin(arguments)
    with _warnings_as_lines(program):
        status = _run(program, arguments)
        try:
            documents.end(status)
        except OSError as error:  # the output is full
            return _failed(program, error)
        return status


def _run(program: str, arguments: Sequence[str]) -> int:
    try:
        command = cast("Callable[[], _Command]", load(PROGRAMS[program]))()
        result = command.main(args=_spelt_out(program, arguments), prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except ZonedError as error:
        _complain(error.render(program))
        documents.record_error(error)
        return status_of(program, error)
    except BrokenPipeError:
        return _reader_gone(program)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click leaves like this
            return _reader_gone(program)
        raise
    except KeyboardInterrupt:
        return INTERRUPTED if is_clone(program) else int(FsckStatus.CANCELLED)
    except Exception as error:
        if os.environ.get(DEBUG) and _is_bug(error):
            raise
        return _failed(program, error)


def _spelt_out(program: str, arguments: Sequence[str]) -> list[str]:
    """``zoned help check`` is ``zoned check --help``."""
    if not is_clone(program) and arguments[:1] == ["help"]:
        return [*arguments[1:], "--help"]
    return list(arguments)


@contextmanager
def _warnings_as_lines(program: str) -> Iterator[None]:
    """What is odd about an image or an installed layout is a line on standard error, each once in a process."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, ZonedWarning):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in _SAID:
                _SAID.add(str(message))
                _complain(visible(f"{program}: warning: {message}"))

        warnings.showwarning = show_line
        warnings.simplefilter("always", ZonedWarning)  # Python forgets what it said whenever filters change
        yield


def _failed(program: str, error: Exception) -> int:
    """Say what went wrong that is no :class:`ZonedError`."""
    if _is_help(error) and not documents.is_wanted():
        print(cast("_Formatted", error).format_message())  # a group by itself: its help, as it is
        return int(FsckStatus.USAGE)
    text = _usage_text(error)
    told = _told(error) if text is None else _usage_error(program, text, error)
    _complain(told.render(program))
    documents.record_error(told)
    return status_of(program, told)


def _told(error: Exception) -> ZonedError:
    """An error that is nobody's in particular, as one of ours."""
    if isinstance(error, MemoryError | RecursionError):
        told = ZonedError("out of memory")
        told.error_id = "memory"
        return told
    if isinstance(error, OSError):
        return DeviceError(error.strerror or str(error), device=str(error.filename or ""), errno=error.errno or 0)
    told = ZonedError(f"internal error: {type(error).__name__}: {error}", hint=f"a bug; {DEBUG}=1 shows where")
    told.error_id = "internal"
    return told


def _usage_error(program: str, text: str, error: Exception) -> UsageError:
    """What a command line lacks; the hint names the command whose help says more."""
    context = getattr(error, "ctx", None)
    documents.expect(documents.schema_of(getattr(context, "command", None)))
    return UsageError(text, hint=f"see {getattr(context, 'command_path', program)} --help")


def _is_bug(error: Exception) -> bool:
    return not isinstance(error, OSError | MemoryError | RecursionError) and _usage_text(error) is None


def _is_help(error: Exception) -> bool:
    """Whether a group was called by itself: click's message is its whole help."""
    return type(error).__name__ == "NoArgsIsHelpError"  # private to typer


def _usage_text(error: Exception) -> str | None:
    """What typer says about a command line; the clones read theirs without it, and start without it."""
    if "typer" not in sys.modules:
        return None
    import typer

    if not isinstance(error, typer.TyperException):
        return None
    if _is_help(error):
        return "no command is named"
    text = " ".join(cast("_Formatted", error).format_message().split())
    return _NUMBERS.sub("is not a number", text)


def _reader_gone(program: str) -> int:
    """Of a command whose result goes to standard output byte by byte: it is not complete."""
    _complain(f"{program}: standard output was closed before everything was written")
    return 1 if is_clone(program) else int(FsckStatus.OPERATIONAL)


def _complain(line: str) -> None:
    sys.stdout.flush()
    print(visible(" ".join(line.splitlines())), file=sys.stderr)
