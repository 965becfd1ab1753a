"""Command lines of ``zdmadm``: what its options are called and how the original reads them."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zoned_tools.cli.clones.options import Option, OptionTable, Order
from zoned_tools.errors import UsageError
from zoned_tools.formats.zdm.constants import LABEL_BYTES
from zoned_tools.formats.zdm.settings import GC_STATES, require_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.formats.zdm.superblock import SuperBlock

BANNER = "zdmadm 0.125"
_UNSIGNED_32 = 0xFFFFFFFF
_MAX_JOURNAL_AGE = 500


OPTIONS = (
    Option(("-c", "--create"), "", "Write identity and empty tables, and start the mapping"),
    Option(("-r", "--restore"), "", "Start an existing ZDM"),
    Option(("-u", "--unload"), "", "Stop a running ZDM"),
    Option(("-s", "--set", "--adjust"), "", "Change run-time parameters"),
    Option(("-k", "--check"), "", "Check the metadata, exit status 1 when errors are found"),
    Option(("-p", "--probe"), "", "Print the identity (default)"),
    Option(("-w", "--wipe"), "", "Erase the ZDM, needs --force"),
    Option(("-F", "--force"), "", "Overwrite an existing ZDM; create on a device that is not zoned"),
    Option(("-l", "--label"), "TEXT", "Label, also names the mapping: zdm_TEXT"),
    Option(("-R", "--over"), "N", "Zones reserved of each 1024: more than 8, less than 1024"),
    Option(("-t", "--trim"), "N", "Trim on (1, default) or off (0)"),
    Option(("-a", "--raid-trim"), "N", "Trim for RAID 5 on (1) or off (0)"),
    Option(("-q", "--queue"), "N", "I/O queue depth"),
    Option(("-m", "--meta"), "DEV", "Separate metadata device"),
    Option(("-M", "--mirror"), "", "Mirror the metadata, needs --meta"),
    Option(("--gc",), "on|off|force", "Garbage collection"),
    Option(("--gc-prio-def",), "N", "Stale blocks that make a zone a candidate"),
    Option(("--gc-prio-low",), "N", "The same when few zones are empty"),
    Option(("--gc-prio-high",), "N", "The same when very few zones are empty"),
    Option(("--gc-prio-crit",), "N", "The same when almost no zone is empty"),
    Option(("--gc-wm-crit",), "N", "Empty zones that are almost none"),
    Option(("--gc-wm-high",), "N", "Per cent of empty zones that are very few"),
    Option(("--gc-wm-low",), "N", "Per cent of empty zones that are few"),
    Option(("--cache-timeout",), "MS", "Age at which cached tables are written"),
    Option(("--cache-size",), "N", "Table pages kept in memory"),
    Option(("--cache-to-pagecache",), "N", "Keep tables in the page cache"),
    Option(("--journal-age",), "N", "Syncs that a page stays in the journal, at most 500"),
    Option(("-v", "--verbose"), "", "More output, repeatable"),
)
OWN_OPTIONS = (
    Option(("--start",), "SECTOR", "The partition begins at this 512-byte sector of a whole drive or image"),
    Option(("--meta-start",), "SECTOR", "The same for the device of --meta"),
    Option(("--uuid",), "UUID", "UUID of a new ZDM instead of a random one"),
    Option(("--reset-zones",), "", "With --wipe or --create: reset the data zones, too"),
    Option(("--json",), "", "Print one JSON document"),
    Option(("--dry-run",), "", "Print what would be written and run, and change nothing"),
    Option(("--undo",), "FILE", "Save what is overwritten to FILE, for zoned undo"),
    Option(("--no-undo",), "", "Save nothing of what is overwritten"),
)
"""What the original does not have."""
HELP = Option(("-h", "--help"), "", "This text")
TABLE = OptionTable(
    "zdmadm",
    "Create, restore, check, probe, unload and wipe ZDM partitions.",
    (*OPTIONS, *OWN_OPTIONS, HELP),
    Order.MIXED,
)
command_tree = TABLE.command_tree

VERBS = ("create", "restore", "unload", "set", "check", "probe", "wipe")

_RUN_TIME = {
    "queue": "io_queue",
    "cache-timeout": "cache_ageout_ms",
    "cache-size": "cache_size",
    "cache-to-pagecache": "cache_to_pagecache",
    "journal-age": "journal_age",
}
_PRIORITIES = ("gc-prio-def", "gc-prio-low", "gc-prio-high", "gc-prio-crit")
_WATERMARKS = ("gc-wm-crit", "gc-wm-high", "gc-wm-low")
_NUMBERS = (*_RUN_TIME, *_PRIORITIES, *_WATERMARKS)


@dataclass(slots=True)
class Arguments:
    """A command line.

    Attributes:
        verb: the last one given.
        paths: the devices.
        values: options with a value by name, as given; flags are empty.
        numbers: run-time options that count, as they are stored.
        lines: what is said about values that do not count.
    """

    verb: str = "probe"
    paths: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return name in self.values

    def sector(self, name: str) -> int | None:
        """The value of an option that names a sector."""
        return int(self.values[name]) if name in self.values else None


def atoi(text: str) -> int:
    """An unsigned 32-bit number the way C reads it: 64 bits, which saturate, cut to 32."""
    found = re.match(r"\s*([+-]?[0-9]+)", text)
    number = int(found[1]) if found else 0
    return min(max(number, -(1 << 63)), (1 << 63) - 1) & _UNSIGNED_32


def strtol(text: str) -> int:
    """The same with 0x for hexadecimal and 0 for octal numbers."""
    found = re.match(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    if not found:
        return 0
    digits = found[2].lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    return int(found[1] + digits, base)


def usage() -> str:
    """The help text."""
    return "\n".join(["Usage: zdmadm [options] DEVICE...", "Options:", *(_usage(option) for option in TABLE.options)])


def _usage(option: Option) -> str:
    indent = "" if len(option.names[0]) == 2 else "    "
    return f"  {indent}{', '.join(option.names)} {option.value}".rstrip().ljust(34) + option.summary


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line; ``-h`` or ``--help`` when that was asked for.

    Raises:
        UsageError: an option is unknown or lacks its value, or there is no device.
    """
    arguments = Arguments()
    for given in TABLE.read(words):
        match given.key:
            case "help":
                return given.word
            case "":
                arguments.paths.append(given.value)
            case key if key in VERBS:
                arguments.verb = key
            case key:
                _take(arguments, key, given.value)
    if not arguments.paths:
        raise UsageError("no device", hint=f"see {TABLE.program} --help")
    return arguments


def _take(arguments: Arguments, key: str, text: str) -> None:
    """Note an option; a value that does not count leaves an earlier one."""
    if key == "gc":
        if text.lower() in GC_STATES:
            arguments.numbers[key] = GC_STATES[text.lower()]
        else:
            arguments.lines.append(f"Invalid gc opt `{text}' ignored")
    elif key == "label" and len(os.fsencode(text)) > LABEL_BYTES:
        arguments.lines.append(f"Label: '{text}' is too long. Max is {LABEL_BYTES}")
    elif key == "journal-age" and atoi(text) > _MAX_JOURNAL_AGE:
        arguments.lines.append("Journal age out of range, ignored")
    elif key == "cache-to-pagecache":
        arguments.numbers[key] = int(atoi(text) != 0)
    elif key in _NUMBERS:
        arguments.numbers.pop(key, None)
        if atoi(text) != _UNSIGNED_32:
            arguments.numbers[key] = atoi(text)
    else:
        arguments.values[key] = text


def require_sensible(arguments: Arguments) -> None:
    """Refuse what the original has no idea of.

    Raises:
        UsageError: a sector is no number, or one name is given to several devices.
    """
    for name in ("start", "meta-start"):
        text = arguments.values.get(name, "0")
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"--{name} {text} is not a sector number")
    if len(arguments.paths) > 1:
        single = ("label", "uuid", "undo") if arguments.verb == "create" else ("undo",)
        for name in single:
            if arguments.values.get(name):
                raise UsageError(f"--{name} is for one device")
    if arguments.verb == "create":
        require_label(arguments.values.get("label", ""))


def merged(identity: SuperBlock, arguments: Arguments, *, create: bool) -> SuperBlock:
    """``identity`` with the run-time parameters of the command line, and for create the other options."""
    values, numbers = arguments.values, arguments.numbers
    changes: dict[str, Any] = {_RUN_TIME[name]: number for name, number in numbers.items() if name in _RUN_TIME}
    prio = tuple(numbers.get(n, old) for n, old in zip(_PRIORITIES, identity.gc_prio, strict=True))
    wm = tuple(numbers.get(n, old) for n, old in zip(_WATERMARKS, identity.gc_wm, strict=True))
    changes |= {"gc_prio": prio, "gc_wm": wm, "gc_status": numbers.get("gc", identity.gc_status)}
    if create:
        bits = identity.discard
        for name, bit in (("trim", 1), ("raid-trim", 1 << 16)):
            if name in values:
                bits = bits | bit if atoi(values[name]) else bits & ~bit
        changes |= {"discard": bits, "label": values.get("label", "")}
    return replace(identity, **changes)


def has_run_time(arguments: Arguments) -> bool:
    """Whether a run-time parameter was given."""
    return bool(arguments.numbers)


def uuid_of(arguments: Arguments) -> uuid.UUID:
    """The UUID for a new ZDM."""
    text = arguments.values.get("uuid")
    try:
        return uuid.UUID(text) if text is not None else uuid.uuid4()
    except ValueError:
        raise UsageError(f"{text!r} is not a uuid") from None
