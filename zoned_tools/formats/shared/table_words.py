"""Names and other free text as words of a device-mapper table line.

device-mapper splits the arguments of a target at blanks; a backslash makes the next character part of the word
(``dm_split_args`` in ``drivers/md/dm-table.c``). Blanks are what the kernel's ``isspace()`` says of single bytes:
A0 is one, also inside a character of UTF-8. A line has no spelling for control characters.
"""

from __future__ import annotations

import re

from zoned_tools.errors import UsageError

_KERNEL_BLANK = b"\xa0"
_HINT = "use MAJOR:MINOR, or a symbolic link with another name"
_SPECIAL = re.compile(r"([ \\])")


def require_carried(text: str) -> None:
    """Refuse text that a table line cannot carry.

    Raises:
        UsageError: it is empty, has control characters or a byte that the kernel takes for a blank, or is no UTF-8.
    """
    if not text:
        raise UsageError("a table line cannot carry an empty name")
    if not text.isprintable() or _KERNEL_BLANK in text.encode():
        raise UsageError(f"a table line cannot carry the name {text!r}", hint=_HINT)


def table_word(text: str) -> str:
    """``text`` as one word of a table line, its blanks and backslashes behind a backslash.

    Raises:
        UsageError: as :func:`require_carried`.
    """
    require_carried(text)
    return _SPECIAL.sub(r"\\\1", text)
