"""Who else can reach a TCP port of this machine."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress

_FIRST_PERSON, _LAST_PERSON = 1000, 60000
"""User numbers of people (``UID_MIN``, ``UID_MAX`` of login.defs); others belong to services."""
_NO_SHELLS = ("nologin", "false", "sync")


def other_people() -> list[str]:
    """Accounts of other people that can log in to this machine or are at work on it.

    Root is not among them, nor is whoever called ``sudo``.
    """
    own = {os.getuid(), os.geteuid()}
    with suppress(KeyError, ValueError):
        own.add(int(os.environ["SUDO_UID"]))
    people = {account.pw_uid: account.pw_name for account in pwd.getpwall() if _logs_in(account)}
    for uid in _at_work():
        people.setdefault(uid, str(uid))
    return [name for uid, name in sorted(people.items()) if _FIRST_PERSON <= uid <= _LAST_PERSON and uid not in own]


def _logs_in(account: pwd.struct_passwd) -> bool:
    return not account.pw_shell.endswith(_NO_SHELLS)


def _at_work() -> set[int]:
    """Owners of processes: not every directory of accounts can be listed."""
    found = set()
    with suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with suppress(OSError):  # it has ended
                    found.add(entry.stat().st_uid)
    return found
