"""``zoned schema``: the JSON Schemas of what commands print."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.errors import UsageError
from zoned_tools.report.stream import write_lines, write_text


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The schema key of a document, or the word in it, as check; without one, list them all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of a document."""
    from zoned_tools.report.schemas import find_schema, schema_names, schema_text

    names = schema_names()
    if name is None:
        write_lines(names)
        return
    found = find_schema(name, names)
    if found is None:
        raise UsageError(f"there is no schema '{name}'", hint=_suggestion(name, names))
    write_text([schema_text(found)])


def _suggestion(words: str, names: list[str]) -> str:
    from difflib import get_close_matches

    wanted = words.removeprefix("zoned.").partition("/")[0]
    by_word = {name.removeprefix("zoned.").partition("/")[0]: name for name in names}
    near = [by_word[word] for word in get_close_matches(wanted, by_word)]
    return f"possible schemas: {', '.join(near)}" if near else "zoned schema lists them all"
