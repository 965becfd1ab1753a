"""Settings of this layout as users write them: switches and numbers."""

from __future__ import annotations

from collections.abc import Mapping

from zoned_tools.errors import UsageError

CONSENTS = ("relink", "zero-unreadable", "salvage-raw", "decode-mistagged", "swap-words", "clear-slack")
"""Repairs that guess or lose data, each a switch of its own."""

_TRUE = frozenset({"1", "yes", "true", "on", ""})
_FALSE = frozenset({"0", "no", "false", "off"})


def switch(settings: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    """A switch: absent means ``default``; a bare word, ``yes`` and ``1`` mean on.

    Raises:
        UsageError: neither on nor off.
    """
    value = settings.get(key)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f"{key}={value} is neither yes nor no")
