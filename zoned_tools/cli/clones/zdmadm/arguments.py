"""Command lines of ``zdmadm``: what its options are called and how the original reads them."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zoned_tools.cli.clones.options import Option, OptionTable, Order
from zoned_tools.errors import UsageError
from zoned_tools.formats.zdm.settings import GC_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.formats.zdm.superblock import SuperBlock

BANNER = "zdmadm 0.125"
_UNSIGNED_32 = 0xFFFFFFFF


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


@dataclass(slots=True)
class Arguments:
    """A command line: the verb that counts, the device, and the values given."""

    verb: str = "probe"
    path: str = ""
    values: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return name in self.values

    def number(self, name: str, default: int) -> int:
        """Decimal, as C's atoi: what follows the digits is ignored, no digits are 0."""
        text = self.values.get(name)
        return default if text is None else atoi(text)


def atoi(text: str) -> int:
    """An unsigned 32-bit number the way C reads it."""
    found = re.match(r"\s*([+-]?\d+)", text)
    return int(found[1]) & _UNSIGNED_32 if found else 0


def strtol(text: str) -> int:
    """The same with 0x for hexadecimal and 0 for octal numbers."""
    found = re.match(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)", text)
    if not found:
        return 0
    digits = found[2].lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    return int(found[1] + digits, base)


def usage() -> str:
    """The help text."""
    return "\n".join(["Usage: zdmadm [options] DEVICE", "Options:", *(_usage(option) for option in TABLE.options)])


def _usage(option: Option) -> str:
    indent = "" if len(option.names[0]) == 2 else "    "
    return f"  {indent}{', '.join(option.names)} {option.value}".rstrip().ljust(34) + option.summary


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line; ``-h`` or ``--help`` when that was asked for.

    Raises:
        UsageError: an option is unknown or lacks its value, or there is more than one device.
    """
    arguments = Arguments()
    paths: list[str] = []
    for given in TABLE.read(words):
        match given.key:
            case "help":
                return given.word
            case "":
                paths.append(given.value)
            case "verbose":
                arguments.values["verbose"] = arguments.values.get("verbose", "") + "v"
            case key if key in VERBS:
                arguments.verb = key
            case key:
                arguments.values[key] = given.value
    hint = f"see {TABLE.program} --help"
    if not paths:
        raise UsageError("no device", hint=hint)
    if len(paths) > 1:
        raise UsageError("one verb and one device at a time", hint=hint)
    arguments.path = paths[0]
    _check_values(arguments)
    return arguments


def _check_values(arguments: Arguments) -> None:
    """Ignore with a note what the original ignores; refuse what it refuses."""
    values = arguments.values
    if arguments.has("mirror") and not arguments.has("meta"):
        raise UsageError("--mirror needs --meta")
    if arguments.has("label") and len(os.fsencode(values["label"])) >= 64:
        arguments.notes.append("label is longer than 63 bytes, ignored")
        del values["label"]
    if arguments.has("gc") and values["gc"] not in GC_STATES:
        arguments.notes.append(f"--gc {values['gc']} is none of on, off, force, ignored")
        del values["gc"]
    if arguments.number("journal-age", 0) > 500:
        arguments.notes.append("--journal-age is more than 500, ignored")
        del values["journal-age"]
    if arguments.has("start") and not (values["start"].isascii() and values["start"].isdigit()):
        raise UsageError(f"--start {values['start']} is not a sector number")


def merged(identity: SuperBlock, arguments: Arguments, *, create: bool) -> SuperBlock:
    """``identity`` with the run-time parameters of the command line, and for create the other options."""
    values = arguments.values
    changes: dict[str, Any] = {
        attribute: arguments.number(name, 0) for name, attribute in _RUN_TIME.items() if name in values
    }
    prio = tuple(arguments.number(n, old) for n, old in zip(_PRIORITIES, identity.gc_prio, strict=True))
    wm = tuple(arguments.number(n, old) for n, old in zip(_WATERMARKS, identity.gc_wm, strict=True))
    changes |= {"gc_prio": prio, "gc_wm": wm}
    if "gc" in values:
        changes["gc_status"] = GC_STATES[values["gc"]]
    if create or arguments.verb == "restore":
        bits = identity.discard
        for name, bit in (("trim", 1), ("raid-trim", 1 << 16)):
            if name in values:
                bits = bits | bit if atoi(values[name]) else bits & ~bit
        changes["discard"] = bits
    if create:
        changes["label"] = values.get("label", "")
    return replace(identity, **changes)


def has_run_time(arguments: Arguments) -> bool:
    """Whether a run-time parameter was given."""
    return any(name in arguments.values for name in (*_RUN_TIME, *_PRIORITIES, *_WATERMARKS, "gc"))


def uuid_of(arguments: Arguments) -> uuid.UUID:
    """The UUID for a new ZDM."""
    text = arguments.values.get("uuid")
    try:
        return uuid.UUID(text) if text is not None else uuid.uuid4()
    except ValueError:
        raise UsageError(f"{text!r} is not a uuid") from None
