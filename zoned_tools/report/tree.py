"""Nested metadata as an indented tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_MAX_ITEMS = 64
"""Items of a list shown as text; JSON has them all."""


def tree_lines(tree: Mapping[str, object], indent: int = 0) -> Iterator[str]:
    """One line a value; mappings and lists of mappings are indented under their name.

    A mapping with the keys ``value`` and ``meaning`` is one field and becomes one line.
    """
    pad = "  " * indent
    width = max((len(key) for key in tree), default=0)
    for key, value in tree.items():
        if isinstance(value, Mapping) and "value" in value and "meaning" in value:
            yield f"{pad}{key:<{width}}  {_scalar(value['value'])}  ({value['meaning']})"
        elif isinstance(value, Mapping):
            yield f"{pad}{key}:"
            yield from tree_lines(value, indent + 1)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield from _list_lines(key, value, indent, width)
        else:
            yield f"{pad}{key:<{width}}  {_scalar(value)}"


def _list_lines(key: str, items: Sequence[object], indent: int, width: int) -> Iterator[str]:
    pad = "  " * indent
    if not any(isinstance(item, Mapping) for item in items):
        shown = ", ".join(_scalar(item) for item in items[:_MAX_ITEMS])
        yield f"{pad}{key:<{width}}  {shown or '-'}{_more(items)}"
        return
    for number, item in enumerate(items[:_MAX_ITEMS]):
        yield f"{pad}{key} {number}:"
        if isinstance(item, Mapping):
            yield from tree_lines(item, indent + 1)
    if len(items) > _MAX_ITEMS:
        yield f"{pad}{key}{_more(items)}"


def _more(items: Sequence[object]) -> str:
    return f" ... and {len(items) - _MAX_ITEMS} more" if len(items) > _MAX_ITEMS else ""


def _scalar(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
