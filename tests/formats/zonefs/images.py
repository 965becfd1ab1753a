"""Emulated drives for the zonefs tests, and the results of programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from zoned_tools.device.base import Geometry
from zoned_tools.device.image import create_image
from zoned_tools.device.zones import SECTOR_BYTES, Model, ZoneTable, make_table

VECTORS = Path(__file__).parents[2] / "vectors" / "zonefs"
MIB = 1 << 20

Edit: TypeAlias = Callable[[ZoneTable], None]
"""Changes a zone table in place."""


def make_image(
    path: Path,
    *,
    size_bytes: int = 64 * MIB,
    zone_bytes: int = 4 * MIB,
    conventional: int = 3,
    capacity_bytes: int | None = None,
    block_bytes: int = 4096,
    max_open: int = 0,
    max_active: int = 0,
    edit: Edit | None = None,
    vendor: str = "Unknown",
    model: Model = Model.HOST_MANAGED,
) -> Path:
    """A new image; ``edit`` may change its zone table."""
    table = make_table(
        size_bytes // SECTOR_BYTES,
        zone_bytes // SECTOR_BYTES,
        nr_conventional=conventional,
        capacity_sectors=None if capacity_bytes is None else capacity_bytes // SECTOR_BYTES,
    )
    if edit is not None:
        edit(table)
    geometry = Geometry(
        model,
        size_bytes,
        zone_bytes,
        len(table),
        block_bytes,
        block_bytes,
        block_bytes,
        max_open,
        max_active,
        vendor,
    )
    create_image(str(path), geometry, table, overwrite=True)
    return path
