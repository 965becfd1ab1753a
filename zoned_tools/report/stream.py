"""Text in large blocks: with PYTHONUNBUFFERED set every write of a text stream is a system call."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK_CHARACTERS = 1 << 16


def write_text(pieces: Iterable[str], file: TextIO | None = None) -> None:
    """Write pieces of text, at least :data:`BLOCK_CHARACTERS` at a time."""
    out = sys.stdout if file is None else file
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK_CHARACTERS:
            out.write("".join(waiting))
            waiting, size = [], 0
    out.write("".join(waiting))


def write_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Write lines, each with a newline."""
    write_text((f"{line}\n" for line in lines), file)


def encode(value: object) -> str:
    """JSON text by the C encoder; what JSON does not know becomes its text."""
    return json.dumps(value, ensure_ascii=True, default=str)


def document(fields: Mapping[str, object | Iterator[str]]) -> Iterator[str]:
    """The pieces of one JSON object, a key a line; a value that is an iterator is text that is JSON already."""
    separator = "{"
    for name, value in fields.items():
        yield f"{separator}{json.dumps(name)}: "
        separator = ",\n "
        if isinstance(value, Iterator):
            yield from value
        else:
            yield encode(value)
    yield "}\n"


def array(blocks: Iterable[str]) -> Iterator[str]:
    """The pieces of a JSON array of objects that come as blocks, joined by commas inside."""
    yield "["
    separator = "\n"
    for block in blocks:
        yield separator
        yield block
        separator = ",\n"
    yield "]"
