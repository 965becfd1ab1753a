"""Text in large blocks, with PYTHONUNBUFFERED set every write of a text stream is a system call; and lines of text.

What commands print as text goes through :func:`write_lines`: one line stays one line, whatever names, labels and
paths hold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from zoned_tools.errors import ZonedError
from zoned_tools.text import visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK_CHARACTERS = 1 << 16


def write_text(pieces: Iterable[str], file: TextIO | None = None) -> None:
    """Write pieces of text, at least :data:`BLOCK_CHARACTERS` at a time; those ahead of an error too."""
    out = sys.stdout if file is None else file
    waiting: list[str] = []
    size = 0
    try:
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= BLOCK_CHARACTERS:
                out.write("".join(waiting))
                waiting, size = [], 0
    finally:
        out.write("".join(waiting))


def write_lines(lines: Iterable[str], file: TextIO | None = None, *, tabs: bool = False) -> None:
    """Write lines, each with a newline; control characters and what is no UTF-8 become escapes.

    Args:
        tabs: tabs stay: the lines are laid out with them, and hold no names.
    """
    shown = visible_lines if tabs else visible
    write_text((f"{shown(line)}\n" for line in lines), file)


def write_line(line: str, file: TextIO | None = None) -> None:
    """Write one line."""
    write_lines([line], file)


def encode(value: object) -> str:
    """JSON text by the C encoder; what JSON does not know becomes its text."""
    import json  # clones that print text start without it

    return json.dumps(value, ensure_ascii=True, default=str)


def members(fields: Mapping[str, object | Iterator[str]]) -> Iterator[str]:
    """The pieces of a JSON object that is not ended, a key a line; a value that is an iterator is JSON text already."""
    separator = "{"
    for name, value in fields.items():
        yield f"{separator}{encode(name)}: "
        separator = ",\n "
        if isinstance(value, Iterator):
            yield from value
        else:
            yield encode(value)


def elements(rows: Iterable[str | Iterator[str]]) -> Iterator[str]:
    """The pieces of a JSON array whose elements are text (one, or several joined by commas), or come in pieces.

    An error between two elements ends the array, which is well formed then, and goes on to the caller.
    """
    yield "["
    separator = "\n"
    try:
        for row in rows:
            yield separator
            yield from ([row] if isinstance(row, str) else row)
            separator = ",\n"
    except ZonedError:
        yield "]"
        raise
    yield "]"
