"""Whether an object of somebody else's package is declared as a layout is."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from zoned_tools.formats.contract import Layout, Rule, Rules, Setting, ZoneRole
from zoned_tools.formats.strangers.values import WrongError, kind_of, require, require_line

if TYPE_CHECKING:
    from zoned_tools.formats.contract import AnyLayout

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""No dot, which ends a layout's name in a code; nothing that a command line or a table would have to quote."""

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CODE = re.compile(r"[!-~]{1,200}")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")

_NEEDED = ("probe", "rules", "check", "plan_repair", "inspect")
OPTIONAL_ROOMS = (
    "open_mapper",
    "table_line",
    "dump",
    "restore",
    "zone_roles",
    "figures",
    "plan_format",
    "order_members",
    "claims",
)


def require_layout(thing: object) -> AnyLayout:
    """A layout as it is declared, with rules that are known to be some.

    A copy: of a class of its own nothing but the declaration counts.

    Raises:
        WrongError: it is none.
    """
    if not isinstance(thing, Layout):
        raise WrongError(f"is {kind_of(thing)}, not a Layout")
    if not isinstance(thing.name, str) or not _NAME.fullmatch(thing.name):
        raise WrongError(f"has an impossible name: {thing.name!r}")
    for room in (*_NEEDED, *OPTIONAL_ROOMS):
        if not callable(getattr(thing, room)) and (room in _NEEDED or getattr(thing, room) is not None):
            raise WrongError(f"has {kind_of(getattr(thing, room))} as {room}")
    try:
        declared = {part.name: getattr(thing, part.name) for part in fields(Layout)}
        rules = _rules(thing)
        declared.update(
            summary=require_line(thing.summary),
            rules=lambda: rules,
            settings=_settings(thing.settings),
            roles=_roles(thing.roles),
            private_keys=frozenset(require(key, str) for key in require(thing.private_keys, frozenset)),
            whole_drive=require(thing.whole_drive, bool),
            scanner=None,  # shown every block of a drive: too much to guard
            diff_copies=None,  # for layouts with two sets of their metadata
            orphans=None,  # shown every block of a zone, as the scanner
            metadata=None,  # what of a dying drive is read first is not for somebody else's package to say
            open_importer=None,
            open_views=None,  # for layouts whose logical space is no device
            map_copies=None,
            map_zone=None,
            find_starts=None,  # a start outside of partition tables has to be named
            derive_zones=None,  # a raw copy needs its zone table
            measured=frozenset(),
            reads_raw=False,
        )
    except WrongError as error:
        raise WrongError(f"is not declared as a layout is: {error}") from None
    return Layout(**declared)


def _rules(layout: AnyLayout) -> Rules:
    rules = require(layout.rules(), Rules)
    if rules.layout != layout.name:
        raise WrongError(f"its rules are those of {rules.layout!r}")
    for code, rule in rules.items():
        require(rule, Rule)
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise WrongError(f"{code!r} as a code")
    return rules


def _settings(declared: object) -> tuple[Setting, ...]:
    settings = tuple(require(one, Setting) for one in require(declared, tuple))
    for setting in settings:
        for name in (setting.name, *setting.aliases):
            if not isinstance(name, str) or not _KEY.fullmatch(name):
                raise WrongError(f"{name!r} as the name of a setting")
        require_line(setting.help)
        require_line(setting.kind)
        for value in (setting.default, setting.faithful):
            if require(value, str) and setting.kind in ("choice", "switch", "number"):
                setting.normalise(value)
    if len({setting.name for setting in settings}) != len(settings):
        raise WrongError("two settings of one name")
    return settings


def _roles(declared: object) -> tuple[ZoneRole, ...]:
    roles = tuple(require(one, ZoneRole) for one in require(declared, tuple))
    for role in roles:
        require_line(role.name)
        if len(require_line(role.letter)) != 1:
            raise WrongError(f"{role.letter!r} as the letter of a role")
        if not _COLOUR.fullmatch(require(role.colour, str)):
            raise WrongError(f"{role.colour!r} as a colour")
    if len({role.name for role in roles}) != len(roles):
        raise WrongError("two roles of one name")
    return roles
