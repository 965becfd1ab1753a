"""The one JSON document of a command: begun with its result, ended with its exit status and everything that went wrong.

A command that comes to no result still prints its document, of the envelope alone. What is printed with ``--json`` goes
through here; :func:`zoned_tools.cli.run.run` opens and ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoned_tools.errors import ZonedError

F = TypeVar("F", bound=Callable[..., Any])

_SCHEMA = "document_schema"


class _Document:
    """A document in the making.

    Attributes:
        wanted: the command was asked for one.
        schema: of the command that runs, without ``zoned.`` and its number, for a document without a result.
        errors: what went wrong so far.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.schema = ""
        self.errors: list[ZonedError] = []
        self._begun = False
        self._ended = False

    def write(self, fields: Mapping[str, object]) -> None:
        """Write the result: all keys but the envelope's."""
        from zoned_tools.report.stream import members, write_text

        self._begun = True
        write_text(members(fields))

    def write_whole(self, fields: Mapping[str, object]) -> None:
        """Write a document on one line while the command goes on, whose end it will not tell."""
        from zoned_tools.report.stream import encode, write_text

        self._ended = True
        write_text([encode({**fields, "exit_status": None, "errors": []}), "\n"])

    def end(self, status: int) -> None:
        """Write the envelope; all of the document when there is no result."""
        if self._ended or not (self.wanted or self._begun):
            return
        from zoned_tools.report.documents.envelope import error_row
        from zoned_tools.report.stream import encode, members, write_text

        self._ended = True
        if not self._begun:
            write_text(members({"schema": _full_name(self.schema)}))
        write_text([f',\n "exit_status": {status},\n "errors": {encode([*map(error_row, self.errors)])}}}\n'])
        sys.stdout.flush()


def _full_name(name: str) -> str:
    """``zoned.check/1`` of ``check``: the newest number."""
    from zoned_tools.report.documents.envelope import ERROR
    from zoned_tools.report.schemas import find_schema, schema_names

    return find_schema(name, schema_names()) or ERROR


_document = _Document(wanted=False)


def begin(words: Sequence[str]) -> None:
    """Begin the document of a command line, which is written when that asks for one."""
    global _document  # noqa: PLW0603 - a process has one standard output
    options = words[: words.index("--")] if "--" in words else words
    _document = _Document(wanted="--json" in options)


def want() -> None:
    """Have a document although the command line says it in another way (``--format json``)."""
    _document.wanted = True


def is_wanted() -> bool:
    """Whether the command line asks for a document."""
    return _document.wanted


def expect(schema: str) -> None:
    """Name the document that the running command prints, as :func:`prints` does."""
    _document.schema = schema


def record_error(error: ZonedError) -> None:
    """Keep an error for the envelope; the caller tells people."""
    _document.errors.append(error)


def print_json(fields: Mapping[str, object]) -> None:
    """Print the command's result, a key a line, ``schema`` first; a value that is an iterator is JSON text already."""
    _document.write(fields)


def announce(fields: Mapping[str, object]) -> None:
    """Print a document on one line now, of a command that goes on until it is stopped."""
    _document.write_whole(fields)


def end(status: int) -> None:
    """End the document."""
    _document.end(status)


def prints(schema: str) -> Callable[[F], F]:
    """Declare what a command prints with ``--json``: ``check`` for the newest ``zoned.check``."""

    def declared(command: F) -> F:
        declare(schema, command)
        return command

    return declared


def declare(schema: str, command: object) -> None:
    """Give a command, or what runs it, its schema name."""
    setattr(command, _SCHEMA, schema)


def schema_of(command: object) -> str:
    """What was declared for a command, or empty."""
    found: str = getattr(command, _SCHEMA, "")
    return found


def naming(schema: str, command: Callable[..., object]) -> Callable[..., object]:
    """A command that names its document before it runs."""

    def run(*arguments: object, **values: object) -> object:
        expect(schema)
        return command(*arguments, **values)

    return run
