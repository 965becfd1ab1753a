"""Names of ZDM that need no library: a usage error must not wait for numpy."""

from __future__ import annotations

from zoned_tools.formats.contract import ZoneRole

NAME = "zdm"
"""The layout's name, as users write it."""

DEFAULT_RESERVED, MAX_RESERVED = 8, 1023
"""Zones that create keeps back of each 1024, for metadata and over-provision: the fewest, which is the
default, and the most."""

LABEL_BYTES = 63
"""Longest label."""

ROLES = (
    ZoneRole("metadata", "M", "#bc4b51"),
    ZoneRole("data", "D", "#3d6fb6"),
    ZoneRole("write zone", "w", "#f2c14e"),
    ZoneRole("reserve", "R", "#8e5ea2"),
)
"""What zones are used for; the ``roles`` room says which are."""
