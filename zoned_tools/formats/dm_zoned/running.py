"""What a running target says of its zones: the kernel's own count, which is ahead of its last commit.

Source: section 5.1 (status line) of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.device_mapper import mappings_on
from zoned_tools.formats.dm_zoned.geometry import ZoneKind

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target

KIND = "zoned"
"""Name of the kernel's target."""

_COUNTS = re.compile(r"\b([0-9]{1,10})/([0-9]{1,10}) (cache|random|sequential)\b")


@dataclass(frozen=True, slots=True)
class Running:
    """A target that the kernel runs.

    Attributes:
        name: of the device below ``/dev/mapper``.
        zones: free zones and all zones of each kind, of all devices together; empty where dmsetup does not tell.
    """

    name: str
    zones: dict[ZoneKind, tuple[int, int]]


def running_on(target: Target) -> Running | None:
    """The kernel's target on the devices; None when there is none."""
    for path in target.paths:
        for mapping in mappings_on(path):
            if mapping.kind == KIND:
                return Running(mapping.name, parse_status(mapping.status))
    return None


def parse_status(line: str) -> dict[ZoneKind, tuple[int, int]]:
    """Free zones and all zones by kind, the devices added up; empty for another line."""
    counts: dict[ZoneKind, tuple[int, int]] = {}
    for free, total, word in _COUNTS.findall(line):
        kind = ZoneKind[word.upper()]
        before = counts.get(kind, (0, 0))
        counts[kind] = before[0] + int(free), before[1] + int(total)
    return counts
