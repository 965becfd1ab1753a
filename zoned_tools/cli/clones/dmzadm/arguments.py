"""Command lines of ``dmzadm``: the operation first, then devices and options in any order."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.options import Option, OptionTable, Order
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.cli.clones.options import CommandTree

MAX_LABEL_BYTES = 31

HELP = Option(("--help", "-h"), "", "General help message")
VERSION = Option(("--version", "-v"), "", "Print version number and exit")
OPERATIONS = (
    Option(("--format",), "", "Format the device metadata"),
    Option(("--check",), "", "Check the device metadata, exit status 1 when errors are found"),
    Option(("--repair",), "", "Repair the device metadata"),
    Option(("--relabel",), "", "Change the device label"),
    Option(("--start",), "", "Start the device mapper target"),
    Option(("--stop",), "", "Stop the device mapper target"),
)
GENERAL = (
    Option(("--verbose",), "", "Verbose output"),
    Option(("--vverbose",), "", "Very verbose output, every zone is printed"),
    Option(("--json",), "", "Print one JSON document"),
    Option(("--dry-run",), "", "Print what would be written, and change nothing"),
    Option(("--undo",), "FILE", "Save what is overwritten to FILE, for zoned undo"),
    Option(("--no-undo",), "", "Save nothing of what is overwritten"),
)
_FORMAT, _REPAIR = ("format",), ("repair",)
FORMAT = (
    Option(("--force",), "", "Overwrite existing content", _FORMAT),
    Option(("--label",), "STR", "Label of the target (also for --relabel)", ("format", "relabel")),
    Option(("--seq",), "NUM", "Number of sequential zones reserved for reclaim (default 16)", _FORMAT),
    Option(("--uuid",), "UUID", "UUID of the target instead of a random one", _FORMAT),
    Option(("--device-uuid",), "UUID", "UUID of a device, repeated in device order", _FORMAT),
    Option(("--metadata-version",), "1|2", "Version of the metadata (default 2)", _FORMAT),
)
REPAIR = (
    Option(("--use-set",), "0|1", "Trust this metadata set", _REPAIR),
    Option(("--allow",), "CODE", "Agree to a repair that loses or guesses data; repeatable", _REPAIR),
    Option(("--set",), "KEY=VALUE", "A choice of repair (overlap=buffer, reclaim=clear); repeatable", _REPAIR),
)
START = (Option(("--no-sync",), "", "Refuse to start metadata sets of different generations", ("start",)),)
CHECK = (
    Option(("--mapfile",), "FILE", "ddrescue map file of an image, repeated in device order", ("check", "repair")),
)
TABLE = OptionTable(
    "dmzadm",
    "Format, check, repair, relabel, start and stop dm-zoned targets.",
    # The version is asked for by the first word alone, which never comes to be read.
    (*OPERATIONS, *GENERAL, *FORMAT, *CHECK, *REPAIR, *START, HELP),
    Order.WHOLE,
)


def command_tree() -> CommandTree:
    """The options, and the settings that a repair takes, for completions."""
    from zoned_tools.cli.settings import Taken
    from zoned_tools.formats.shared.settings import Journey

    return TABLE.command_tree(Taken(frozenset({Journey.CHECK, Journey.REPAIR}), "dm-zoned"))


ONLY_FORMAT = ("seq", "label")
"""Options that the original itself refuses, in its words and before any other."""


@dataclass(slots=True)
class Arguments:
    """A command line.

    Attributes:
        operation: key of the operation.
        paths: the devices.
        values: of each option that was given, in order; a flag has an empty one.
    """

    operation: str
    paths: tuple[str, ...] = ()
    values: dict[str, list[str]] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        return key in self.values

    def every(self, key: str) -> Sequence[str]:
        """The values of an option that may be repeated."""
        return self.values.get(key, ())

    def last(self, key: str) -> str | None:
        """The value that counts; None when the option was not given."""
        given = self.values.get(key)
        return given[-1] if given else None

    @property
    def verbose(self) -> bool:
        return self.has("verbose") or self.very_verbose

    @property
    def very_verbose(self) -> bool:
        return self.has("vverbose")

    @property
    def json(self) -> bool:
        return self.has("json")

    @property
    def dry_run(self) -> bool:
        return self.has("dry-run")

    @property
    def undo(self) -> str | None:
        return self.last("undo")

    @property
    def no_undo(self) -> bool:
        return self.has("no-undo")


def usage() -> str:
    """The help text."""
    return "\n".join(
        [
            "Usage: dmzadm <operation> <device(s)> [options]",
            "Operations:",
            *_usage((HELP, VERSION, *OPERATIONS)),
            "Devices are block devices or image files: one zoned device, or a regular one",
            "followed by zoned ones.",
            "General options:",
            *_usage(GENERAL),
            "Format options:",
            *_usage(FORMAT),
            "Repair options:",
            *_usage(REPAIR),
            "Start options:",
            *_usage(START),
        ]
    )


def _usage(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        names = " | ".join(option.names) + (f"={option.value}" if option.value else "")
        if len(names) > 14:
            yield f"  {names}"
            names = ""
        yield f"  {names:<14} : {option.summary}"


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line whose first word is an operation; the help text when it asks for that.

    Raises:
        UsageError: an unknown option, several operations, no device, or an option of another operation.
    """
    operations = {option.key for option in OPERATIONS}
    chosen: set[str] = set()
    paths: list[str] = []
    values: dict[str, list[str]] = {}
    for given in TABLE.read(words):
        if given.key in operations:
            chosen.add(given.key)
        elif given.key:
            values.setdefault(given.key, []).append(given.value)
        else:
            paths.append(given.value)
    if HELP.key in values:
        return usage()
    if len(chosen) != 1:
        raise UsageError("give exactly one operation", hint=f"see {TABLE.program} --help")
    if not paths:
        raise UsageError("No device specified")
    arguments = Arguments(chosen.pop(), tuple(paths), values)
    _refuse_foreign(arguments)
    return arguments


def _refuse_foreign(arguments: Arguments) -> None:
    foreign = [option.key for option in TABLE.foreign(arguments.operation, arguments.values)]
    for key in ONLY_FORMAT:
        if key in foreign:
            raise UsageError(f"--{key} option is valid only with the format operation")
    if foreign:
        raise UsageError(f"--{foreign[0]} option is not valid with --{arguments.operation}")


def parse_number(text: str | None, complaint: str, allowed: Sequence[int] | None = None) -> int | None:
    """A positive decimal number, or one of ``allowed``; None when the option was not given."""
    if text is None:
        return None
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value not in allowed if allowed is not None else value < 1:
        raise UsageError(complaint)
    return value


def parse_label(text: str | None) -> str:
    """Without its quotes, as the original takes it; at most 31 bytes."""
    if not text:
        return ""
    if text[0] in "'\"":
        text = text[1:-1]
    if len(os.fsencode(text)) > MAX_LABEL_BYTES:
        raise UsageError(f"Label too long (max {MAX_LABEL_BYTES} characters)")
    return text
