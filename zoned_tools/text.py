"""Text that anybody may have written (labels, names, paths), made fit to be shown."""

from __future__ import annotations


def visible(text: str) -> str:
    """``text`` with control characters, undecodable bytes and the like as escapes: one line, valid UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def visible_lines(text: str) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join("\t".join(visible(cell) for cell in line.split("\t")) for line in text.split("\n"))
