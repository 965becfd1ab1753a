"""What the rooms declare and need before they are loaded: the layout's name, and what zones are used for."""

from __future__ import annotations

from zoned_tools.formats.contract import ZoneRole

NAME = "dm-zoned"

ROLES = (
    ZoneRole("metadata", "M", "#bc4b51"),
    ZoneRole("data", "D", "#3d6fb6"),
    ZoneRole("buffer", "B", "#8e5ea2"),
)

MEASURED = frozenset({"bits-after-wp", "map-empty-seq", "zone-unmapped-not-empty"})
"""Findings that compare with write pointers: they mean nothing with derived ones, or with another drive's."""
