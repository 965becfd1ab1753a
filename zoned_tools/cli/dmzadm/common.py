"""What the operations of ``dmzadm`` share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

LAYOUT = "dm-zoned"

MAX_LABEL_BYTES = 31


@dataclass(frozen=True, slots=True)
class Common:
    """Options of every operation."""

    paths: tuple[str, ...]
    verbose: bool = False
    very_verbose: bool = False
    json: bool = False
    dry_run: bool = False
    undo: str | None = None


def parse_number(text: str | None, complaint: str, allowed: Sequence[int] | None = None) -> int | None:
    """A positive decimal number, or one of ``allowed``; None when the option was not given."""
    if text is None:
        return None
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value not in allowed if allowed is not None else value < 1:
        raise UsageError(complaint)
    return value


def parse_label(text: str | None) -> str:
    """Without its quotes, as the original takes it; at most 31 bytes."""
    if not text:
        return ""
    if text[0] in "'\"":
        text = text[1:-1]
    if len(os.fsencode(text)) > MAX_LABEL_BYTES:
        raise UsageError(f"Label too long (max {MAX_LABEL_BYTES} characters)")
    return text


def check_members(devices: Sequence[Device]) -> None:
    """One zoned device, or a regular one followed by zoned ones.

    Raises:
        UsageError: anything else; the texts are the original's.
    """
    first = devices[0]
    if len(devices) == 1 and not first.geometry.is_zoned:
        raise UsageError("Not a zoned block device", device=first.path)
    if len(devices) > 1 and first.geometry.is_zoned:
        raise UsageError("Not a regular block device", device=first.path)
    for device in devices[1:]:
        if not device.geometry.is_zoned:
            raise UsageError("Not a zoned block device", device=device.path)
    if len({os.path.realpath(device.path) for device in devices}) < len(devices):
        raise UsageError("the same device is named twice", device=first.path)
