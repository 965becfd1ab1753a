"""The zone table of a raw copy, as a layout's metadata imply it: what is certain of it, and what is a bound.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.errors import RefusedError, UsageError
from zoned_tools.formats.shared.findings import Severity
from zoned_tools.formats.shared.rules import Consent, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.base import Device, Geometry
    from zoned_tools.device.zones import ZoneTable

_SMALLEST_ZONE_BYTES = 32 << 10


@dataclass(frozen=True, slots=True)
class ZoneWishes:
    """What a user says about the zones of raw copies.

    Attributes:
        zone_bytes: their size; 0 leaves it to the metadata.
        conventional: number of conventional zones of each zoned member, in order; empty leaves it to the metadata.
        insisted: the devices are raw copies of zoned drives although regular ones could look the same.
    """

    zone_bytes: int = 0
    conventional: tuple[int, ...] = ()
    insisted: bool = False

    def conventional_of(self, member: int) -> int | None:
        """The wish for the zoned member with this number, from 0."""
        return self.conventional[member] if member < len(self.conventional) else None


class Bounds(NamedTuple):
    """Number of conventional zones: what the metadata allow, and what the table has."""

    low: int
    high: int
    used: int

    @classmethod
    def choose(cls, low: int, high: int, guess: int, wish: int | None, path: str) -> Bounds:
        """With the wish of a user, or ``guess`` as far as the bounds allow it.

        Raises:
            RefusedError: the wish contradicts the metadata.
        """
        low = min(low, high)
        if wish is None:
            return cls(low, high, min(high, max(low, guess)))
        if not low <= wish <= high:
            zones = f"{low} to {high} zones" if low < high else f"{low} zones"
            raise RefusedError(f"{wish} conventional zones contradict the metadata, which allow {zones}", device=path)
        return cls(low, high, wish)


@dataclass(frozen=True)
class DerivedZones:
    """The zone table of one raw copy.

    Attributes:
        geometry: of its drive.
        conventional: zones at its start that take writes anywhere.
        certain, estimated: what of the table is known, and what is a bound; phrases.
        make_table: measures the write pointers: reads the copy, as far as it is no hole.
    """

    geometry: Geometry
    conventional: Bounds
    certain: tuple[str, ...]
    estimated: tuple[str, ...]
    make_table: Callable[[], ZoneTable]

    @cached_property
    def table(self) -> ZoneTable:
        """The zone table; whoever changes it works on a copy."""
        return self.make_table()


def derived_rule() -> dict[str, Rule]:
    """The rule about derived zone tables, of layouts that derive them."""
    return {
        "zones-derived": Rule(
            Severity.INFO,
            "the image is a raw copy of a zoned drive without its zone table, which is derived from the metadata",
            "dd, ddrescue and cp copy the content of a drive and not its zone table",
            "nothing is written before somebody agrees; zoned image adopt writes the derived table beside the image",
            kernel="needs the drive",
            asks=Consent.GUESSES,
            allow="the repair is made on the derived table, of which write pointers and the number of conventional "
            "zones are estimates",
        )
    }


def zones_by_content(
    device: Device,
    zone_bytes: int,
    conventional: Bounds,
    certain: tuple[str, ...],
    estimated: tuple[str, ...],
    finish: Callable[[ZoneTable], ZoneTable] = lambda table: table,
) -> DerivedZones:
    """The zone table of a raw copy whose write pointers nothing but its content tells.

    Args:
        finish: puts right what a layout knows better.

    Raises:
        UsageError: no drive has zones of this size.
    """
    from zoned_tools.device.derived import raw_geometry, table_by_content

    if zone_bytes < _SMALLEST_ZONE_BYTES or zone_bytes & (zone_bytes - 1):
        raise UsageError(
            f"{zone_bytes} bytes are no size of a zone",
            device=device.path,
            hint=f"a power of two of {_SMALLEST_ZONE_BYTES} or more",
        )
    geometry = raw_geometry(device.geometry.size_bytes, zone_bytes)
    make = lambda: finish(table_by_content(device, geometry, conventional.used))  # noqa: E731 - reads the copy
    return DerivedZones(geometry, conventional, certain, estimated, make)
