"""``KEY=VALUE`` words of a layout's own choices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from zoned_tools.formats.contract import AnyLayout, Journey, Setting

F = TypeVar("F", bound=Callable[..., Any])

_KEY = re.compile(r"([^=:,]+)[=:]")
_WORD = re.compile(r"[a-z][a-z_]*[=:].*", re.DOTALL)
_COMMA = re.compile(r"(?<!\\),")
"""A comma between settings; one behind a backslash belongs to a value."""


def parse_settings(words: Iterable[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` or ``KEY:VALUE`` words as a mapping; a bare word is a switch and becomes ``"1"``.

    Several may be joined by commas, as in a table line, unless the first one's value has commas of its own;
    a comma inside a value is written ``\\,``. Of the same key the last counts, and its place in the order; values of a
    setting that repeats (``pair=3:17``) are joined.

    Raises:
        UsageError: a word has no key, or only switches may do without a value.
    """
    settings: dict[str, str] = {}
    for word in _pieces(words or ()):
        ends = [at for at in (word.find("="), word.find(":")) if at >= 0]
        cut = min(ends, default=len(word))
        if cut == 0:
            raise UsageError(f"'{word}' is not KEY=VALUE")
        if not ends:
            _refuse_without_value(word)
        key, value = word[:cut], word[cut + 1 :] if ends else "1"
        before = settings.pop(key, "")
        settings[key] = f"{before},{value}" if before and any(one.repeats for one in _declared_as(key)) else value
    return settings


def _refuse_without_value(name: str) -> None:
    """Refuse the bare name of a setting that is no switch; unknown names are the layout's to refuse.

    Raises:
        UsageError: it needs a value.
    """
    declared = _declared_as(name)
    if declared and all(setting.kind != "switch" for setting in declared):
        raise UsageError(f"{name} needs a value", hint=f"{name}={declared[0].metavar}")


def _declared_as(name: str) -> list[Setting]:
    """The settings of that name: ours, else those of installed layouts, which cost a search."""
    from zoned_tools.formats import registry

    def among(layouts: Iterable[AnyLayout]) -> list[Setting]:
        return [s for layout in layouts for s in layout.settings if name in (s.name, *s.aliases)]

    return among(registry.ours()) or among(registry.strangers())


def _pieces(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if "," in word and _keeps_commas(word):
            yield word
            continue
        pieces = [piece.replace("\\,", ",") for piece in _COMMA.split(word) if piece]
        if not pieces:
            raise UsageError(f"'{word}' is not KEY=VALUE")
        yield from pieces


def _keeps_commas(word: str) -> bool:
    """Whether a word's key is a setting whose value may have commas (``features=aggr_cnv,uid=0``, ``table=...``)."""
    key = _KEY.match(word)
    return key is not None and any(setting.keeps_commas for setting in _declared_as(key[1]))


def split_settings(arguments: Sequence[str], options: Iterable[str] | None) -> tuple[list[str], dict[str, str]]:
    """``(device paths, settings)``: table parameters such as ``rlow=40`` may stand among the devices.

    A word that names an existing file is a device, whatever it looks like.
    """
    words = [a for a in arguments if not os.path.exists(a) and _is_parameter(a)]
    return [a for a in arguments if a not in words], parse_settings([*(options or ()), *words])


def _is_parameter(word: str) -> bool:
    if _WORD.fullmatch(word) is not None:
        return True
    if os.path.sep in word or word.startswith("."):
        return False
    return any(setting.bare for setting in _declared_as(word.partition(",")[0]))


@dataclass(frozen=True, slots=True)
class Taken:
    """Which settings a command takes.

    Attributes:
        journeys: those that layouts declare for any of these.
        layout: of this layout alone; empty: of every one.
    """

    journeys: frozenset[Journey] = frozenset()
    layout: str = ""

    def declared(self, *, installed: bool = False) -> Iterator[tuple[AnyLayout, Setting]]:
        """The settings and their layouts, those of ``installed`` layouts on request."""
        from zoned_tools.formats import registry

        for layout in registry.everything() if installed else registry.ours():
            if self.layout in ("", layout.name):
                yield from ((layout, s) for s in layout.settings if not s.journeys.isdisjoint(self.journeys))


def takes_settings(*journeys: Journey, layout: str = "") -> Callable[[F], F]:
    """Marks a command whose ``settings`` parameter takes what layouts, or one, declare for ``journeys``.

    :func:`zoned_tools.cli.lazy.build` adds the options that settings have of their own, and help and
    completions list the settings.
    """

    def mark(function: F) -> F:
        function.taken_settings = Taken(frozenset(journeys), layout)  # type: ignore[attr-defined]
        return function

    return mark


def taken_by(command: object) -> Taken:
    """What a command takes, or the function that it calls."""
    found: Taken | None = getattr(command, "taken_settings", None)
    return found or Taken()
