"""Which layouts exist: names first, the declared objects when they are asked for.

Ours are probed in the order of :data:`OURS`. Others come from installed packages through the entry-point
group ``zoned_tools.layouts``, each naming a :class:`~zoned_tools.formats.contract.Layout`; they are asked only
when none of ours recognises a drive, or somebody names one: looking for them costs more than most commands.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import AnyLayout, Layout, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_POINTS = "zoned_tools.layouts"

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
        UsageError: there is none.
    """
    if name in OURS:
        layout: AnyLayout = importlib.import_module(OURS[name]).LAYOUT
        return layout
    for stranger in strangers():
        if stranger.name == name:
            return stranger
    raise UsageError(f"there is no layout '{name}'", hint=f"one of {', '.join(names())}")


def of(target: Target) -> AnyLayout:
    """The layout of a target."""
    return get(target.layout)


def ours() -> Iterator[AnyLayout]:
    """Our layouts, in the order in which devices are probed."""
    return (get(name) for name in OURS)


@cache
def strangers() -> tuple[AnyLayout, ...]:
    """Layouts of installed packages, by name; ours cannot be replaced.

    Raises:
        UsageError: an entry point cannot be loaded, or is no layout.
    """
    from importlib.metadata import entry_points  # 30 ms

    found: dict[str, AnyLayout] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        try:
            layout = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the layout {point.name} of an installed package cannot be loaded: {error}") from None
        if not isinstance(layout, Layout):
            raise UsageError(f"the layout {point.name} of an installed package is a {type(layout).__name__}")
        if layout.name not in OURS:
            found.setdefault(layout.name, layout)
    return tuple(found.values())


def everything() -> Iterator[AnyLayout]:
    """Ours, then the installed ones."""
    yield from ours()
    yield from strangers()


def names() -> list[str]:
    """All names, ours first."""
    return [*OURS, *(layout.name for layout in strangers())]
