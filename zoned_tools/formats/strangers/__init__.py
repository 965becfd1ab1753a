"""Layouts of installed packages: found by their entry points, refused when they are none, and guarded.

What is wrong with a package stays there: an entry point that is no layout is passed over with a warning, a room that
fails is one target's outcome, and both name the package. Nothing here is loaded for drives that our own layouts know.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from zoned_tools.errors import LayoutWarning, UsageError
from zoned_tools.formats.strangers.declaration import require_layout
from zoned_tools.formats.strangers.guard import Guard, text_of
from zoned_tools.formats.strangers.rooms import guarded
from zoned_tools.formats.strangers.values import WrongError

if TYPE_CHECKING:
    from collections.abc import Collection

    from zoned_tools.formats.contract import AnyLayout

ENTRY_POINTS = "zoned_tools.layouts"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An entry point that gives no layout.

    Attributes:
        name: of the entry point.
        layout: name that its layout has, empty where that is not known.
    """

    name: str
    package: str
    reason: str
    layout: str = ""

    def __str__(self) -> str:
        return f"the layout {self.name} of the package {self.package} {self.reason}"


@dataclass(slots=True)
class Strangers:
    """What is installed: layouts by name, and what was passed over."""

    layouts: dict[str, AnyLayout] = field(default_factory=dict)
    passed_over: list[PassedOver] = field(default_factory=list)

    def warn(self) -> None:
        """Say what was passed over."""
        for one in self.passed_over:
            warnings.warn(f"{one}; it is passed over", LayoutWarning, stacklevel=3)

    def refuse_passed_over(self, name: str) -> None:
        """Refuse the name of what was passed over.

        Raises:
            UsageError: it is that of an entry point, or of the layout behind one.
        """
        for one in self.passed_over:
            if name in (one.name, one.layout) and name not in self.layouts:
                raise UsageError(str(one))


def find(taken: Collection[str]) -> Strangers:
    """Load every entry point; what cannot be had is noted, and raises nothing.

    Args:
        taken: names that no installed layout may have.
    """
    found = Strangers()
    owners = dict.fromkeys(taken, "zoned_tools")
    try:
        points = sorted((point.name, _package(point), point) for point in entry_points(group=ENTRY_POINTS))
    except Exception as error:  # noqa: BLE001 - whatever a damaged description of a package leads to
        found.passed_over.append(PassedOver("*", "*", f"cannot be looked for: {text_of(error)}"))
        return found
    for name, package, point in points:
        try:
            layout = _load(point, package)
        except WrongError as error:
            found.passed_over.append(PassedOver(name, package, str(error)))
            continue
        if layout.name in owners:
            reason = f"is named {layout.name}, as that of the package {owners[layout.name]}"
            found.passed_over.append(PassedOver(name, package, reason, layout.name))
            continue
        owners[layout.name] = package
        found.layouts[layout.name] = layout
    return found


def _load(point: EntryPoint, package: str) -> AnyLayout:
    """The layout of an entry point, its rooms guarded.

    Raises:
        WrongError: it cannot be loaded, or is not declared as a layout is.
    """
    try:
        layout = require_layout(point.load())
    except WrongError:
        raise
    except (Exception, SystemExit) as error:
        raise WrongError(f"cannot be loaded: {text_of(error)}") from error
    return guarded(layout, Guard(layout.name, package))


def _package(point: EntryPoint) -> str:
    """Name of the package that an entry point belongs to; its module where the package does not say."""
    name = None if point.dist is None else point.dist.metadata["Name"]
    return str(name or point.value.partition(":")[0])
