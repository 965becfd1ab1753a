"""Which layouts exist: names first, the declared objects when they are asked for.

Ours are probed in the order of :data:`OURS`. Others come from installed packages through the entry-point
group ``zoned_tools.layouts``, each naming a :class:`~zoned_tools.formats.contract.Layout`; they are asked only
when none of ours recognises a drive or knows a word, or somebody names one: looking for them costs more than most
commands.
One that cannot be had is passed over with a warning, and an error only for whoever names it.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.text import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import AnyLayout, Target
    from zoned_tools.formats.strangers import Strangers

OURS: dict[str, str] = {
    "dm-zoned": "zoned_tools.formats.dm_zoned",
    "zdm": "zoned_tools.formats.zdm",
    "zonefs": "zoned_tools.formats.zonefs",
    "btrfs": "zoned_tools.formats.btrfs",
    "inplace-compress": "zoned_tools.formats.inplace_compress",
}
"""Layout name to package; also the order in which devices are probed."""


@cache
def get(name: str) -> AnyLayout:
    """The layout of that name, ours or an installed one.

    Raises:
        UsageError: there is none, or it was passed over.
    """
    if name in OURS:
        layout: AnyLayout = importlib.import_module(OURS[name]).LAYOUT
        return layout
    installed = _installed()
    if name in installed.layouts:
        return installed.layouts[name]
    installed.refuse_passed_over(name)
    hint = nearest(name, names()) or f"one of {', '.join(names())}"
    raise UsageError(f"there is no layout '{name}'", hint=hint)


def of(target: Target) -> AnyLayout:
    """The layout of a target."""
    return get(target.layout)


def ours() -> Iterator[AnyLayout]:
    """Our layouts, in the order in which devices are probed."""
    return (get(name) for name in OURS)


@cache
def _installed() -> Strangers:
    from zoned_tools.formats.strangers import find  # importlib.metadata: 30 ms

    return find(OURS)


def strangers() -> tuple[AnyLayout, ...]:
    """Layouts of installed packages, by name; ours cannot be replaced.

    What was passed over is warned of (:class:`~zoned_tools.errors.LayoutWarning`).
    """
    installed = _installed()
    installed.warn()
    return tuple(installed.layouts.values())


def named_in(word: str) -> AnyLayout | None:
    """The layout whose name a word begins with, as codes do (``dm-zoned.sb-bad-crc``); None where it is no layout's.

    Raises:
        UsageError: it is the name of an installed one that was passed over.
    """
    name, dot, _ = word.partition(".")
    if not dot:
        return None
    if name not in OURS:
        _installed().refuse_passed_over(name)
        if name not in _installed().layouts:
            return None
    return get(name)


def everything() -> Iterator[AnyLayout]:
    """Ours, then the installed ones."""
    yield from ours()
    yield from strangers()


def names() -> list[str]:
    """All names, ours first."""
    return [*OURS, *(layout.name for layout in strangers())]
