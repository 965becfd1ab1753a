"""``KEY=VALUE`` words of a layout's own choices."""

from __future__ import annotations

from collections.abc import Iterable

from zoned_tools.errors import UsageError


def parse_settings(words: Iterable[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` or ``KEY:VALUE`` words as a mapping; a bare word is a switch and becomes ``"1"``.

    Raises:
        UsageError: a word has no key.
    """
    settings: dict[str, str] = {}
    for word in words or ():
        ends = [at for at in (word.find("="), word.find(":")) if at >= 0]
        cut = min(ends, default=len(word))
        if cut == 0:
            raise UsageError(f"'{word}' is not KEY=VALUE")
        settings[word[:cut]] = word[cut + 1 :] if ends else "1"
    return settings
