"""Command lines of ``zdmadm``: what its options are called and how the original reads them."""

from __future__ import annotations

import getopt
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zoned_tools.errors import UsageError
from zoned_tools.formats.zdm.settings import GC_STATES

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.superblock import SuperBlock

BANNER = "zdmadm 0.125"
_UNSIGNED_32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Option:
    """One option: ``name`` is its long form, ``value`` what follows it (empty: a flag)."""

    name: str
    short: str
    value: str
    summary: str
    aliases: tuple[str, ...] = ()


OPTIONS = (
    Option("create", "c", "", "Write identity and empty tables, and start the mapping"),
    Option("restore", "r", "", "Start an existing ZDM"),
    Option("unload", "u", "", "Stop a running ZDM"),
    Option("set", "s", "", "Change run-time parameters", ("adjust",)),
    Option("check", "k", "", "Check the metadata, exit status 1 when errors are found"),
    Option("probe", "p", "", "Print the identity (default)"),
    Option("wipe", "w", "", "Erase the ZDM, needs --force"),
    Option("force", "F", "", "Overwrite an existing ZDM; create on a device that is not zoned"),
    Option("label", "l", "TEXT", "Label, also names the mapping: zdm_TEXT"),
    Option("over", "R", "N", "Zones reserved of each 1024: more than 8, less than 1024"),
    Option("trim", "t", "N", "Trim on (1, default) or off (0)"),
    Option("raid-trim", "a", "N", "Trim for RAID 5 on (1) or off (0)"),
    Option("queue", "q", "N", "I/O queue depth"),
    Option("meta", "m", "DEV", "Separate metadata device"),
    Option("mirror", "M", "", "Mirror the metadata, needs --meta"),
    Option("gc", "", "on|off|force", "Garbage collection"),
    Option("gc-prio-def", "", "N", "Stale blocks that make a zone a candidate"),
    Option("gc-prio-low", "", "N", "The same when few zones are empty"),
    Option("gc-prio-high", "", "N", "The same when very few zones are empty"),
    Option("gc-prio-crit", "", "N", "The same when almost no zone is empty"),
    Option("gc-wm-crit", "", "N", "Empty zones that are almost none"),
    Option("gc-wm-high", "", "N", "Per cent of empty zones that are very few"),
    Option("gc-wm-low", "", "N", "Per cent of empty zones that are few"),
    Option("cache-timeout", "", "MS", "Age at which cached tables are written"),
    Option("cache-size", "", "N", "Table pages kept in memory"),
    Option("cache-to-pagecache", "", "N", "Keep tables in the page cache"),
    Option("journal-age", "", "N", "Syncs that a page stays in the journal, at most 500"),
    Option("verbose", "v", "", "More output, repeatable"),
)
OWN_OPTIONS = (
    Option("start", "", "SECTOR", "The partition begins at this 512-byte sector of a whole drive or image"),
    Option("uuid", "", "UUID", "UUID of a new ZDM instead of a random one"),
    Option("reset-zones", "", "", "With --wipe or --create: reset the data zones, too"),
    Option("json", "", "", "Print one JSON document"),
    Option("dry-run", "", "", "Print what would be written and run, and change nothing"),
    Option("undo", "", "FILE", "Save what is overwritten to FILE, for zoned undo"),
)
"""What the original does not have."""

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
    lines = ["Usage: zdmadm [options] DEVICE", "Options:"]
    for option in (*OPTIONS, *OWN_OPTIONS):
        short = f"-{option.short}, " if option.short else "    "
        names = "".join(f", --{alias}" for alias in option.aliases)
        lines.append(f"  {short}--{option.name}{names} {option.value}".rstrip().ljust(34) + option.summary)
    lines.append("  -h, --help".ljust(34) + "This text")
    return "\n".join(lines)


def parse_arguments(words: Sequence[str]) -> Arguments | str:
    """Read a command line; ``-h`` or ``--help`` when that was asked for.

    Raises:
        UsageError: an option is unknown or lacks its value, or there is more than one device.
    """
    every = (*OPTIONS, *OWN_OPTIONS)
    shorts = "h" + "".join(o.short + (":" if o.value else "") for o in every if o.short)
    longs = ["help", *(n + ("=" if o.value else "") for o in every for n in (o.name, *o.aliases))]
    names = {f"--{n}": o.name for o in every for n in (o.name, *o.aliases)}
    names |= {f"-{o.short}": o.name for o in every if o.short}
    try:
        given, rest = getopt.gnu_getopt(list(words), shorts, longs)
    except getopt.GetoptError as error:
        raise UsageError(error.msg, hint="see zdmadm --help") from None
    arguments = Arguments()
    for word, value in given:
        if word in ("-h", "--help"):
            return word
        name = names[word]
        if name in VERBS:
            arguments.verb = name
        elif name == "verbose":
            arguments.values[name] = arguments.values.get(name, "") + "v"
        else:
            arguments.values[name] = value
    if not rest:
        raise UsageError("no device", hint="see zdmadm --help")
    if len(rest) > 1:
        raise UsageError("one verb and one device at a time", hint="see zdmadm --help")
    arguments.path = rest[0]
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


@dataclass(frozen=True, slots=True)
class _Parameter:
    """An option as the completion generator wants to see it."""

    opts: list[str]
    help: str
    is_flag: bool
    type: object
    param_type_name: str = "option"


@dataclass(frozen=True, slots=True)
class _Choices:
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tree:
    params: list[_Parameter]
    help: str


def command_tree() -> _Tree:
    """Options for completions and for the test of the manual page."""
    parameters = []
    for option in (*OPTIONS, *OWN_OPTIONS):
        names = ([f"-{option.short}"] if option.short else []) + [f"--{n}" for n in (option.name, *option.aliases)]
        choices = _Choices(tuple(option.value.split("|")) if "|" in option.value else ())
        parameters.append(_Parameter(names, option.summary, not option.value, choices))
    return _Tree(parameters, "Create, restore, check, probe, unload and wipe ZDM partitions.")
