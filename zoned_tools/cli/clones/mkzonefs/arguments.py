"""Command lines of ``mkzonefs``: taken strictly from left to right, with the original's complaints."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.options import Option, OptionTable, Order
from zoned_tools.cli.entry import VERSION_TEXT
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from zoned_tools.formats.zonefs.features import FeatureSet

HELP = Option(("--help", "-h"), "", "General help message")
VERSION = Option(("--version",), "", "Print version number and exit")
OPTIONS = (
    VERSION,
    HELP,
    Option(("-v",), "", "Verbose output"),
    Option(("-f",), "", "Force overwrite of existing content"),
)
FEATURES = Option(("-o",), "features", "Optional features")
OWN_OPTIONS = (
    Option(("-L",), "label", "Volume label (up to 64 bytes)"),
    Option(("--uuid",), "uuid", "UUID of the volume (default: random)"),
    Option(("--undo",), "file", "Save what is overwritten to FILE, for zoned undo"),
    Option(("--no-undo",), "", "Save nothing of what is overwritten"),
    Option(("--json",), "", "Print one JSON document"),
    Option(("--dry-run",), "", "Print what would be written, and change nothing"),
)
"""What the original's help does not have."""

TABLE = OptionTable(
    "mkzonefs",
    "Make a zonefs file system.",
    (*OPTIONS, FEATURES, *OWN_OPTIONS),
    Order.FIRST,
    unknown="Invalid option '{option}'",
    missing="Invalid command line",
)


command_tree = TABLE.command_tree


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line."""

    path: str = ""
    force: bool = False
    verbose: bool = False
    label: bytes = b""
    features: FeatureSet | None = None
    uuid: uuid.UUID | None = None
    json: bool = False
    dry_run: bool = False
    undo: str | None = None
    no_undo: bool = False


def usage(*, own: bool) -> str:
    """The help text; ``own`` adds the options that the original's does not list."""
    lines = ["Usage: mkzonefs [options] <device path>", "Options:"]
    lines += [f"  {_usage(option):<14}: {option.summary}" for option in OPTIONS]
    lines.append(f"  {_usage(FEATURES)}\t: {FEATURES.summary}")
    if own:
        lines += [f"  {_usage(option):<14}: {option.summary}" for option in OWN_OPTIONS]
    return "\n".join([*lines, 'See "man mkzonefs" for more information'])


def _usage(option: Option) -> str:
    return " | ".join(option.names) + (f" <{option.value}>" if option.value else "")


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line; a text to print when it asks for help or the version.

    Raises:
        UsageError: with the original's message.
    """
    result = Arguments()
    devices: list[str] = []
    for given in TABLE.read(words):
        match given.key:
            case "version":
                return VERSION_TEXT["mkzonefs"]
            case "help":
                return usage(own=given.word == "--help")
            case "":
                devices.append(given.value)
            case key:
                result = _with(result, key, given.value)
    if len(devices) != 1:
        raise UsageError("No device specified")
    return replace(result, path=devices[0])


def _with(result: Arguments, key: str, value: str) -> Arguments:
    match key:
        case "f":
            return replace(result, force=True)
        case "v":
            return replace(result, verbose=True)
        case "json":
            return replace(result, json=True)
        case "dry-run":
            return replace(result, dry_run=True)
        case "undo":
            return replace(result, undo=value)
        case "no-undo":
            return replace(result, no_undo=True)
        case "L":
            return replace(result, label=_label(value))
        case "o":
            from zoned_tools.formats.zonefs.features import parse_features

            return replace(result, features=parse_features(value, result.features))
    import uuid

    try:
        return replace(result, uuid=uuid.UUID(value))
    except ValueError:
        raise UsageError(f"Invalid UUID '{value}'") from None


def _label(text: str) -> bytes:
    from zoned_tools.formats.zonefs.constants import LABEL_BYTES

    label = os.fsencode(text)
    if len(label) > LABEL_BYTES:
        raise UsageError(f"Label too long ({LABEL_BYTES} chars allowed)")
    return label
