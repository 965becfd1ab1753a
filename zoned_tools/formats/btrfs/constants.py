"""What the declaration of the layout needs: light to import."""

from __future__ import annotations

from typing import Final

from zoned_tools.formats.contract import ZoneRole

NAME: Final = "btrfs"

ROLES = (
    ZoneRole("orphan", "?", "#7f7f7f"),
    ZoneRole("data", "D", "#3d6fb6"),
    ZoneRole("metadata", "M", "#bc4b51"),
    ZoneRole("reserved", "R", "#8e5ea2"),
    ZoneRole("super blocks", "S", "#e07a2f"),
)
"""Later ones win: the zones of a pair of super blocks are reserved, too."""
