"""What ``zoned image repair`` and ``zoned image adopt`` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.sidecar_repair import SidecarRepair
    from zoned_tools.engine.adopting import Adopted


def sidecar_lines(result: SidecarRepair, *, dry_run: bool) -> Iterator[str]:
    """What was rebuilt, what is missing, and the outcome."""
    yield from (f"  {sentence}" for sentence in result.repaired)
    yield from (f"  missing: {sentence}" for sentence in result.missing)
    if result.missing:
        yield f"{result.sidecar}: left alone, it cannot be rebuilt for certain"
    elif not result.repaired:
        yield f"{result.sidecar}: nothing to repair"
    else:
        yield f"{result.sidecar}: {'would be' if dry_run else 'was'} repaired"


def adopt_lines(adopted: Adopted, *, dry_run: bool) -> Iterator[str]:
    """The zone tables that raw copies got, what of them is known, and what is estimated."""
    for one in adopted.images:
        zones, conventional = one.zones, one.zones.conventional
        bounds = "" if conventional.low == conventional.high else f" ({conventional.low} to {conventional.high} fit)"
        yield (
            f"{one.image}: {zones.geometry.nr_zones} zones of {format_size(zones.geometry.zone_bytes)}, "
            f"{conventional.used} conventional{bounds}"
        )
        yield f"  certain: {', '.join(zones.certain) or 'nothing'}"
        yield f"  estimated: {', '.join(zones.estimated) or 'nothing'}"
        yield f"  {one.sidecar}: {'would be' if dry_run else 'was'} written"
