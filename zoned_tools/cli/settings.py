"""``KEY=VALUE`` words of a layout's own choices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from zoned_tools.errors import UsageError

_WORD = re.compile(r"[a-z][a-z_]*[=:].*", re.DOTALL)


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


def split_settings(arguments: Sequence[str], options: Iterable[str] | None) -> tuple[list[str], dict[str, str]]:
    """``(device paths, settings)``: table parameters such as ``rlow=40`` may stand among the devices.

    A word that names an existing file is a device, whatever it looks like.
    """
    words = [a for a in arguments if _WORD.fullmatch(a) and not os.path.exists(a)]
    return [a for a in arguments if a not in words], parse_settings([*(options or ()), *words])
