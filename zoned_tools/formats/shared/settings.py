"""A layout's own choices, declared once: name, values, default, who takes them, help.

Commands parse, refuse, complete and document settings from the declaration. A value reaches a room only
after it was found to be possible, in one spelling.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from zoned_tools.errors import UsageError
from zoned_tools.text import nearest


class Journey(StrEnum):
    """What a setting is for; a command takes the settings of its journeys."""

    CHECK = "check"
    REPAIR = "repair"
    LOGICAL = "the logical device"
    TABLE = "the table line"
    READ = "the decoded metadata"
    FORMAT = "format"


_YES = frozenset({"1", "yes", "true", "on"})
_NO = frozenset({"0", "no", "false", "off"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice.

    Attributes:
        name: key of ``--set KEY=VALUE``.
        help: what it decides, a phrase.
        journeys: who takes it.
        choices: the possible values; empty for any that :attr:`kind` allows.
        kind: ``choice``, ``switch``, ``number``, ``uuid``, ``list`` or ``line`` (texts with commas of their own), or
            another text, for which it is the metavar.
        minimum, maximum: limits of a number.
        default: value that counts when the setting is not given; empty for none.
        faithful: value that counts instead where the very writes of the driver are wanted, as in a replay; empty
            for the default.
        bare: may stand among the devices, as a word of a table line.
        flag: option of its own that generic commands offer (``--use-set``), or a value of a command's flag that a
            switch stands for (``--deep=data``); empty for none.
        aliases: older spellings of the name, accepted and not documented.
        verify: a layout's own test of a text; raises UsageError.
        repeats: a list that may be given several times.
    """

    name: str
    help: str
    journeys: frozenset[Journey]
    choices: tuple[str, ...] = ()
    kind: str = "text"
    minimum: int = 0
    maximum: int = (1 << 63) - 1
    default: str = ""
    faithful: str = ""
    bare: bool = False
    flag: str = ""
    aliases: tuple[str, ...] = ()
    verify: Callable[[str], object] | None = None
    repeats: bool = False

    @property
    def metavar(self) -> str:
        """Its values in a help text: ``data|buffer``, ``0..100``, ``TEXT``."""
        if self.choices:
            return "|".join(self.choices)
        match self.kind:
            case "switch":
                return "yes|no"
            case "number":
                return f"{self.minimum}..{self.maximum}" if self.maximum < 1 << 32 else "N"
            case _:
                return self.kind.upper()

    @property
    def keeps_commas(self) -> bool:
        """Its value goes on after a comma; of others the next setting begins there, as in a table line."""
        return self.kind in ("list", "line")

    def normalise(self, text: str) -> str:
        """The value in its one spelling.

        Raises:
            UsageError: it is not possible.
        """
        match self.kind:
            case "choice":
                good = text in self.choices
            case "switch":
                good = text.lower() in _YES | _NO
                text = text if not good else "yes" if text.lower() in _YES else "no"
            case "number":
                good = text.isascii() and text.isdigit() and len(text) <= 19
                text = str(int(text)) if good else text
                good = good and self.minimum <= int(text) <= self.maximum
            case "uuid":
                good, text = _uuid(text)
            case _:
                good = True
        if not good:
            raise UsageError(f"{self.name}={text} is not possible", hint=f"{self.name}={self.metavar}")
        if self.verify is not None:
            try:
                self.verify(text)
            except UsageError as error:
                raise UsageError(f"{self.name}={text} is not possible: {error.message}") from None
        return text


def _uuid(text: str) -> tuple[bool, str]:
    try:
        return True, str(uuid.UUID(text))
    except ValueError:
        return False, text


def choice(
    name: str,
    values: tuple[str, ...],
    about: str,
    *journeys: Journey,
    default: str = "",
    faithful: str = "",
    flag: str = "",
) -> Setting:
    """One of a few words."""
    return Setting(name, about, frozenset(journeys), values, "choice", default=default, faithful=faithful, flag=flag)


def switch(
    name: str, about: str, *journeys: Journey, default: str = "no", bare: bool = False, flag: str = ""
) -> Setting:
    """Yes or no; a bare word is yes."""
    return Setting(name, about, frozenset(journeys), (), "switch", default=default, bare=bare, flag=flag)


def number(
    name: str,
    about: str,
    *journeys: Journey,
    minimum: int = 0,
    maximum: int = (1 << 63) - 1,
    default: str = "",
    flag: str = "",
) -> Setting:
    """A decimal number inside limits."""
    return Setting(
        name, about, frozenset(journeys), (), "number", minimum=minimum, maximum=maximum, default=default, flag=flag
    )


def text(
    name: str,
    about: str,
    *journeys: Journey,
    kind: str = "text",
    default: str = "",
    bare: bool = False,
    verify: Callable[[str], object] | None = None,
) -> Setting:
    """Any text that ``verify`` lets through; ``kind`` is its metavar."""
    return Setting(name, about, frozenset(journeys), (), kind, default=default, bare=bare, verify=verify)


class Settings(Mapping[str, str]):
    """Values that a user gave, every one possible; in the order in which they were given.

    As a mapping it has what was given alone; the typed accessors know the defaults.
    """

    def __init__(self, values: Mapping[str, str] | None = None, declared: Iterable[Setting] = ()) -> None:
        self._values = dict(values or {})
        self._defaults = {setting.name: setting.default for setting in declared}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        """A value, or the declared default; empty where there is neither."""
        return self._values.get(name, self._defaults.get(name, ""))

    def on(self, name: str) -> bool:
        """A switch."""
        return self.text(name).lower() in ("yes", "1", "true", "on")

    def number(self, name: str) -> int | None:
        """A number, None where neither a value nor a default is there."""
        value = self.text(name)
        return int(value) if value else None


def parse_settings(layout: str, declared: Iterable[Setting], given: Mapping[str, str], *journeys: Journey) -> Settings:
    """Check what a user gave for a layout against its declarations.

    Raises:
        UsageError: a setting that the layout does not have for any of ``journeys``, or an impossible value.
    """
    known = {setting.name: setting for setting in declared if setting.journeys & set(journeys)}
    spellings = {name: setting for setting in known.values() for name in (setting.name, *setting.aliases)}
    values: dict[str, str] = {}
    for name, value in given.items():
        if name not in spellings:
            listed = f"its settings: {', '.join(sorted(known))}" if known else "it has none"
            hint = nearest(name, known) or listed
            raise UsageError(f"{layout} has no setting '{name}' for {' and '.join(journeys)}", hint=hint)
        setting = spellings[name]
        values[setting.name] = setting.normalise(value)
    return Settings(values, known.values())
