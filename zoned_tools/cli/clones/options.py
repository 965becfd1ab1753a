"""One reader for the clones' option tables.

Each original reads its command line in a way of its own, which scripts have come to rely on: ``mkzonefs`` strictly from
left to right, ``zdmadm`` as getopt_long does (options mix with the device, may be bundled and abbreviated), ``dmzadm``
with the operation first and every option spelt out. What they share is a table of options; help texts, completions and
the tests of the manual pages are made from the same table.
"""

from __future__ import annotations

import getopt
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from zoned_tools.cli.settings import Taken


class Order(Enum):
    """How options and devices may be mixed."""

    MIXED = "mixed"
    """Anywhere; abbreviated and bundled as by getopt_long."""
    WHOLE = "whole"
    """Anywhere; long names are spelt out, as ``--name VALUE`` or ``--name=VALUE``."""
    FIRST = "first"
    """Before the device; the word behind an option that takes a value is its value, and a device must follow."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        names: its spellings, as they stand on a command line (``-l``, ``--label``).
        value: what follows it, for help texts (empty: a flag); ``a|b`` are its choices.
        summary: its line in the help.
        operations: keys of the operations that it belongs to; empty: to every one.
    """

    names: tuple[str, ...]
    value: str
    summary: str
    operations: tuple[str, ...] = ()

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
        summary: what the program does, for completions.
        unknown: text of the complaint about an unknown option; ``{option}`` is the word.
        missing: text of the complaint about an option without its value, or without a device behind it.
    """

    program: str
    summary: str
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
        match self.order:
            case Order.FIRST:
                return self._read_first(words)
            case Order.MIXED:
                return self._read_mixed(words)
            case Order.WHOLE:
                return _WholeWords(self._by_name, self._refuse).read(words)

    def foreign(self, operation: str, keys: Collection[str]) -> Iterator[Option]:
        """The options among ``keys`` that belong to other operations, in the order of the table."""
        for option in self.options:
            if option.key in keys and option.operations and operation not in option.operations:
                yield option

    def command_tree(self, taken_settings: Taken | None = None) -> CommandTree:
        """The options as completions and the test of the manual page want to see them; they add help and version.

        Args:
            taken_settings: what may follow ``--set``.
        """
        shown = (option for option in self.options if option.key not in ("help", "version"))
        return CommandTree([_parameter(option) for option in shown], self.summary, taken_settings)

    def _refuse(self, text: str) -> UsageError:
        return UsageError(text, hint=f"see {self.program} --help")

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
            raise self._refuse(error.msg) from None
        yield from (Given(self._by_name[name].key, value, name) for name, value in given)
        yield from (Given("", word) for word in rest)


class _WholeWords:
    """Reads :attr:`Order.WHOLE`: single letters are flags, which may be bundled; ``--`` ends the options."""

    def __init__(self, by_name: dict[str, Option], refuse: Callable[[str], UsageError]) -> None:
        self._by_name = by_name
        self._refuse = refuse
        self._long_names = [name for name in by_name if name.startswith("--")]

    def read(self, words: Sequence[str]) -> Iterator[Given]:
        waiting = iter(words)
        for word in waiting:
            if word == "--":
                break
            if word.startswith("--"):
                yield self._long(word, waiting)
            elif word.startswith("-") and len(word) > 1:
                yield from self._letters(word[1:])
            else:
                yield Given("", word)
        yield from (Given("", word) for word in waiting)

    def _long(self, word: str, following: Iterator[str]) -> Given:
        name, equals, value = word.partition("=")
        option = self._by_name.get(name)
        if option is None:
            raise self._unknown(name)
        if not option.value:
            if equals:
                raise self._refuse(f"Option {name!r} does not take a value.")
        elif not equals:
            found = next(following, None)
            if found is None:
                raise self._refuse(f"Option {name!r} requires an argument.")
            value = found
        return Given(option.key, value, name)

    def _letters(self, letters: str) -> Iterator[Given]:
        for letter in letters:
            name = f"-{letter}"
            if name not in self._by_name:
                raise self._refuse(f"No such option: {visible(name)}")
            yield Given(self._by_name[name].key, "", name)

    def _unknown(self, name: str) -> UsageError:
        from difflib import get_close_matches

        near = ", ".join(sorted(get_close_matches(name, self._long_names)))
        return self._refuse(f"No such option: {visible(name)}" + (f" (Possible options: {near})" if near else ""))


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
    taken_settings: Taken | None = None


def _parameter(option: Option) -> Parameter:
    return Parameter(list(option.names), option.summary, not option.value, _Choices(option.choices))


class Command:
    """What :func:`zoned_tools.cli.run.run` runs: a function of the words of a command line.

    It returns the exit status; errors are rendered by the caller.
    """

    def __init__(self, run: Callable[[Sequence[str]], int]) -> None:
        self._run = run

    def main(self, *, args: list[str], **_: object) -> int:
        """The exit status."""
        return self._run(args)
