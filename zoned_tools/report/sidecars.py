"""What ``zoned image repair`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.sidecar_repair import SidecarRepair


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
