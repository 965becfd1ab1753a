"""``KEY=VALUE`` words of a layout's own choices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from zoned_tools.errors import UsageError

_WORD = re.compile(r"[a-z][a-z_]*[=:].*", re.DOTALL)
_TABLE = ("table=", "table:")
"""A whole table line as one value, commas and all."""


def parse_settings(words: Iterable[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` or ``KEY:VALUE`` words as a mapping; a bare word is a switch and becomes ``"1"``.

    Several may be joined by commas, as in a table line; of the same key the last counts, and
    its place in the order.

    Raises:
        UsageError: a word has no key.
    """
    settings: dict[str, str] = {}
    for word in _pieces(words or ()):
        ends = [at for at in (word.find("="), word.find(":")) if at >= 0]
        cut = min(ends, default=len(word))
        if cut == 0:
            raise UsageError(f"'{word}' is not KEY=VALUE")
        settings.pop(word[:cut], None)
        settings[word[:cut]] = word[cut + 1 :] if ends else "1"
    return settings


def _pieces(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith(_TABLE):
            yield word
        else:
            yield from filter(None, word.split(","))


def split_settings(arguments: Sequence[str], options: Iterable[str] | None) -> tuple[list[str], dict[str, str]]:
    """``(device paths, settings)``: table parameters such as ``rlow=40`` may stand among the devices.

    A word that names an existing file is a device, whatever it looks like.
    """
    words = [a for a in arguments if _is_parameter(a) and not os.path.exists(a)]
    return [a for a in arguments if a not in words], parse_settings([*(options or ()), *words])


def _is_parameter(word: str) -> bool:
    from zoned_tools.formats.registry import TABLE_SWITCHES

    return _WORD.fullmatch(word) is not None or word.partition(",")[0] in TABLE_SWITCHES
