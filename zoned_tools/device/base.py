"""The protocol that every drive speaks, real or emulated.

Positions and lengths are bytes; zones are named by their index on the device.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, runtime_checkable

from zoned_tools.device.zones import Model, ZoneTable
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What can be written to a device."""


class ZoneOperation(StrEnum):
    """Zone management commands (``BLKRESETZONE`` and its siblings)."""

    RESET = "reset"
    OPEN = "open"
    CLOSE = "close"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Geometry:
    """What does not change while a drive is open.

    Attributes:
        zone_bytes: size of every zone but a runt last one; 0 on a regular device.
        nr_zones: zones, the runt included; 0 on a regular device.
        write_granularity_bytes: unit of writes to sequential zones.
        max_open_zones, max_active_zones: 0 means no limit.
        vendor: ``"vendor model revision"`` as zbd prints it, ``"Unknown"`` when there is none.
    """

    model: Model
    size_bytes: int
    zone_bytes: int = 0
    nr_zones: int = 0
    logical_block_bytes: int = 512
    physical_block_bytes: int = 512
    write_granularity_bytes: int = 512
    max_open_zones: int = 0
    max_active_zones: int = 0
    vendor: str = "Unknown"

    @property
    def is_zoned(self) -> bool:
        return self.model is not Model.REGULAR

    def zone_of(self, offset_bytes: int) -> int:
        """Index of the zone that holds ``offset_bytes``."""
        return offset_bytes // self.zone_bytes

    def zone_range_bytes(self, first_zone: int, count: int) -> tuple[int, int]:
        """``(offset, length)`` of ``count`` zones, the runt's real length taken into account."""
        start = first_zone * self.zone_bytes
        return start, min((first_zone + count) * self.zone_bytes, self.size_bytes) - start


class ClosesOnExit(ABC):
    """Makes anything with a ``close()`` a context manager."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_range(geometry: Geometry, path: str, offset_bytes: int, length_bytes: int) -> None:
    """Refuse a range that is not on the device (``EIO``)."""
    if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > geometry.size_bytes:
        raise DeviceError(
            f"{length_bytes} bytes at byte {offset_bytes} are not on the device ({geometry.size_bytes} bytes)",
            device=path,
            errno=errno.EIO,
        )


def check_zones(geometry: Geometry, path: str, first_zone: int, count: int) -> None:
    """Refuse zones that are not on the device (``EINVAL``), and a device without zones (``ENOTTY``)."""
    if not geometry.is_zoned:
        raise DeviceError("not a zoned device", device=path, errno=errno.ENOTTY)
    if first_zone < 0 or count < 1 or first_zone + count > geometry.nr_zones:
        last = first_zone + count - 1
        zones = f"zone {first_zone} is" if count == 1 else f"zones {first_zone} to {last} are"
        raise DeviceError(f"{zones} not on the drive, it has {geometry.nr_zones}", device=path, errno=errno.EINVAL)


@runtime_checkable
class Device(Protocol):
    """A drive that is open.

    Every method raises :class:`~zoned_tools.errors.DeviceError` with the errno that a
    drive gives (``EIO`` for a write off the write pointer, ...). Reads at or above the
    write pointer of a sequential zone return zeroes. Nothing is durable before
    :meth:`flush`. Use it as a context manager; :meth:`close` flushes a writable device.
    """

    @property
    def path(self) -> str:
        """As the user named it; messages start with it."""
        ...

    @property
    def geometry(self) -> Geometry: ...

    @property
    def writable(self) -> bool: ...

    @property
    def emulated(self) -> bool:
        """True for images and overlays, False for a block device of the running kernel."""
        ...

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Exactly ``length_bytes`` bytes; any alignment."""
        ...

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (writable, contiguous bytes) from ``offset_bytes``."""
        ...

    def write(self, offset_bytes: int, data: Buffer) -> None:
        """Write ``data``; in sequential zones at the write pointer and in whole blocks."""
        ...

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range of conventional zones or of a regular device read as zeroes, freeing space where possible."""
        ...

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        """A fresh copy of the zone table; empty on a regular device."""
        ...

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        """Run a zone management command over ``count`` zones in order.

        RESET over every zone skips conventional, empty, read-only and offline zones;
        any other range fails at the first zone that does not allow the operation. Zones
        that are not on the device are refused before anything is done (``EINVAL``).
        """
        ...

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        """``(offset, length)`` of the parts of a range that may hold other bytes than zeroes, ascending."""
        ...

    def flush(self) -> None:
        """Make everything written so far durable, zone states included.

        When that fails once, the device accepts nothing more: this and every later write,
        zone command, discard and flush, and the closing, raise the same errno until it is
        opened again. Reading goes on.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class KeepsZoneFlags(Protocol):
    """A device whose host-aware zones' flags can be set: an emulated drive, or a view of one."""

    def set_zone_flags(self, zone: int, *, non_seq: bool, reset: bool) -> None:
        """Set both flags of a zone."""
        ...
