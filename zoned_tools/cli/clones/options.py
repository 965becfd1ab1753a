"""One reader for the clones' option tables.

Each original reads its command line in a way of its own, which scripts have come to rely on: ``mkzonefs`` strictly from
left to right, ``zdmadm`` as getopt_long does (options mix with the device, may be bundled and abbreviated), ``dmzadm``
with the operation first. What they share is a table of options; help texts, completions and the tests of the manual
pages are made from the same table.
"""

from __future__ import annotations

import getopt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from zoned_tools.errors import UsageError


class Order(Enum):
    """How options and devices may be mixed."""

    MIXED = "mixed"
    """Anywhere; abbreviated and bundled as by getopt_long."""
    FIRST = "first"
    """Before the device; the word behind an option that takes a value is its value, and a device must follow."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        names: its spellings, as they stand on a command line (``-l``, ``--label``).
        value: what follows it, for help texts (empty: a flag); ``a|b`` are its choices.
        summary: its line in the help.
    """

    names: tuple[str, ...]
    value: str
    summary: str

    @property
    def key(self) -> str:
        """How code calls it: the first long name without dashes, else the short one."""
        long = next((name for name in self.names if name.startswith("--")), self.names[0])
        return long.lstrip("-")

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.value.split("|")) if "|" in self.value else ()


@dataclass(frozen=True, slots=True)
class Given:
    """One thing that a command line says.

    Attributes:
        key: of the option; empty for a word that is no option (a device).
        value: of the option, or that word.
        word: the option as it was spelt.
    """

    key: str
    value: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class OptionTable:
    """The options of one program.

    Attributes:
        program: for the hint of a complaint.
        unknown: text of the complaint about an unknown option; ``{option}`` is the word.
        missing: text of the complaint about an option without its value, or without a device behind it.
    """

    program: str
    options: tuple[Option, ...]
    order: Order
    unknown: str = "option {option} not recognized"
    missing: str = "option {option} requires argument"
    _by_name: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update((name, option) for option in self.options for name in option.names)

    def read(self, words: Sequence[str]) -> Iterator[Given]:
        """What a command line says, in the order in which the original takes it.

        Raises:
            UsageError: an option is unknown or lacks its value; in :attr:`Order.FIRST` only when it is reached.
        """
        return self._read_first(words) if self.order is Order.FIRST else self._read_mixed(words)

    def _read_first(self, words: Sequence[str]) -> Iterator[Given]:
        at = 0
        while at < len(words) and words[at].startswith("-"):
            word, value = words[at], ""
            option = self._by_name.get(word)
            if option is None:
                raise UsageError(self.unknown.format(option=word))
            at += 1
            if option.value:
                if at + 1 >= len(words):
                    raise UsageError(self.missing.format(option=word))
                value = words[at]
                at += 1
            yield Given(option.key, value, word)
        yield from (Given("", word) for word in words[at:])

    def _read_mixed(self, words: Sequence[str]) -> Iterator[Given]:
        shorts, longs = "", []
        for name, option in self._by_name.items():
            if name.startswith("--"):
                longs.append(name[2:] + ("=" if option.value else ""))
            else:
                shorts += name[1:] + (":" if option.value else "")
        try:
            given, rest = getopt.gnu_getopt(list(words), shorts, longs)
        except getopt.GetoptError as error:
            raise UsageError(error.msg, hint=f"see {self.program} --help") from None
        yield from (Given(self._by_name[name].key, value, name) for name, value in given)
        yield from (Given("", word) for word in rest)


# -- as the generator of completions and the test of the manual pages want to see it


@dataclass(frozen=True, slots=True)
class _Choices:
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option with the attributes of a click parameter."""

    opts: list[str]
    help: str
    is_flag: bool
    type: _Choices
    param_type_name: str = "option"


@dataclass(frozen=True, slots=True)
class CommandTree:
    """A program without sub-commands, with the attributes of a click command."""

    params: list[Parameter]
    help: str


def command_tree(summary: str, options: Iterable[Option]) -> CommandTree:
    """What completions and manual pages are made from and compared with."""
    return CommandTree(list(_parameters(options)), summary)


def _parameters(options: Iterable[Option]) -> Iterator[Parameter]:
    for option in options:
        yield Parameter(list(option.names), option.summary, not option.value, _Choices(option.choices))
