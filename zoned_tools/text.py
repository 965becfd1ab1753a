"""Text that anybody may have written (labels, names, paths), made fit to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def visible(text: str) -> str:
    """``text`` with control characters, undecodable bytes and the like as escapes: one line, valid UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shell_word(text: str) -> str:
    """``text`` as one word of a shell's command line: quoted where it must be, control characters as ``$'...'``."""
    import shlex  # regular expressions are not for every start

    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_shell_character, text))}'"


def _shell_character(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'check'?`` when something known is spelt nearly so, else empty."""
    from difflib import get_close_matches  # only for what is wrong anyway

    found = get_close_matches(word, sorted(known), n=2, cutoff=0.7)
    return f"did you mean {' or '.join(map(repr, found))}?" if found else ""


def roff(text: str) -> str:
    """Plain text for a manual page."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def visible_lines(text: str) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join("\t".join(visible(cell) for cell in line.split("\t")) for line in text.split("\n"))
