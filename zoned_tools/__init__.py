"""Tools for zoned storage: zone reports, emulated drives and five on-disk layouts.

The names in ``__all__`` are the public Python API (documented in :mod:`zoned_tools.api` and docs/api.md). They are
loaded when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoned_tools.api import (
        ContentError,
        Evidence,
        LogicalFile,
        MapExtent,
        RepairPlan,
        Target,
        UsageError,
        ZonedError,
        find_targets,
        format,  # noqa: A004 - the field's own word
        open_drive,
        open_target,
        probe,
    )

__version__ = "0.1.0"

__all__ = [
    "ContentError",
    "Evidence",
    "LogicalFile",
    "MapExtent",
    "RepairPlan",
    "Target",
    "UsageError",
    "ZonedError",
    "__version__",
    "find_targets",
    "format",
    "open_drive",
    "open_target",
    "probe",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from zoned_tools import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
