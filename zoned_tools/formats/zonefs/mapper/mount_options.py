"""Mount options, and what a mounted zonefs does to a file after an I/O error (``errors=``).

Source: ``Documentation/filesystems/zonefs.rst`` (table of the error options) and
``zonefs_handle_io_error`` in ``fs/zonefs/super.c`` for the cases in which a size is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned_tools.device.zones import ZoneCondition
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class ErrorPolicy(StrEnum):
    """Values of ``errors=``."""

    REMOUNT_RO = "remount-ro"
    ZONE_RO = "zone-ro"
    ZONE_OFFLINE = "zone-offline"
    REPAIR = "repair"

    @classmethod
    def parse(cls, text: str) -> ErrorPolicy:
        """The policy that a mount option names.

        Raises:
            UsageError: there is none of that name.
        """
        try:
            return cls(text)
        except ValueError:
            raise UsageError(f"errors={text}: no such error policy", hint=f"one of {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """Mount options.

    Attributes:
        errors: what an I/O error does.
        explicit_open: open a zone explicitly when its file is first opened for writing.
        old_root_size: show the size of the root directory as kernels before 6.3 do.
    """

    errors: ErrorPolicy = ErrorPolicy.REMOUNT_RO
    explicit_open: bool = False
    old_root_size: bool = False


def parse_options(options: Mapping[str, str]) -> TreeOptions:
    """Mount options from ``key -> value``; a switch has the value "1".

    Raises:
        UsageError: zonefs has no such option.
    """
    result = TreeOptions()
    for key, value in options.items():
        if key == "errors":
            result = replace(result, errors=ErrorPolicy.parse(value))
        elif key == "explicit-open" and value == "1":
            result = replace(result, explicit_open=True)
        elif key == "old-root-size" and value == "1":
            result = replace(result, old_root_size=True)
        else:
            shown = f"{key}={value}" if value else key
            raise UsageError(f"{shown}: no such zonefs option", hint="errors=POLICY, explicit-open")
    return result


@dataclass(frozen=True, slots=True)
class Outcome:
    """State of a file after an error was handled; ``remount_read_only`` concerns the whole volume."""

    size_bytes: int
    readable: bool
    writable: bool
    remount_read_only: bool


def after_error(
    policy: ErrorPolicy, condition: int, *, writing: bool, size_bytes: int, written_bytes: int
) -> Outcome | None:
    """What an error makes of a file that was accessible before.

    Args:
        condition: what the drive reports for the zone now.
        writing: whether a write failed.
        size_bytes: size of the file before.
        written_bytes: what the drive's write pointer says now.

    Returns:
        The new state, None when a failed read changes nothing.
    """
    read_only = condition == ZoneCondition.READ_ONLY
    offline = condition == ZoneCondition.OFFLINE
    if not (read_only or offline or writing) and size_bytes == written_bytes:
        return None
    remount = policy is ErrorPolicy.REMOUNT_RO
    if offline or policy is ErrorPolicy.ZONE_OFFLINE:
        return Outcome(0, readable=False, writable=False, remount_read_only=remount)
    if read_only or policy is ErrorPolicy.ZONE_RO:
        return Outcome(size_bytes, readable=True, writable=False, remount_read_only=remount)
    # Data past the size that the application knew of are not exposed by a volume that turns read-only.
    size = min(size_bytes, written_bytes) if remount else written_bytes
    return Outcome(size, readable=True, writable=True, remount_read_only=remount)
