"""The logical device of a layout: what its mapper does, and what some can do beside that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.plan import Plan

LOGICAL_BLOCK_BYTES = 4096
"""Block of every mapper: reads, writes and lookups are in these units."""


@dataclass(frozen=True, slots=True)
class MapExtent:
    """A run of logical blocks that live together (``zoned.map/1``).

    ``physical_block`` is in 4096-byte blocks of device number ``device_index`` (-1: one that was
    not given); None when nothing is stored. ``blocks`` is the length of both runs for mappers that move whole
    blocks. ``why`` says how the place was found (``chunk 3, zone 17 (buffer zone 5)``).
    """

    logical_block: int
    blocks: int
    device_index: int
    physical_block: int | None
    why: str


class Mapper(Protocol):
    """Offline model of a kernel driver: a logical device of 4096-byte blocks.

    Blocks that were never written or were discarded read as zeroes. Writes are durable
    after :meth:`flush` as the driver's own contract says.
    """

    @property
    def size_blocks(self) -> int: ...

    @property
    def writable(self) -> bool: ...

    def read(self, block: int, count: int) -> bytes: ...

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        """Write whole blocks; ``stream`` is a placement hint that most layouts ignore."""
        ...

    def discard(self, block: int, count: int) -> None: ...

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where the blocks live: ascending, without gaps, holes included."""
        ...

    def flush(self) -> None: ...

    def close(self) -> None:
        """Clean close: flush and write whatever a clean stop of the driver writes."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """A mapper that can read into a caller's buffer, which saves a copy."""

    def read_into(self, block: int, buffer: memoryview) -> None: ...


@runtime_checkable
class CopiesItself(Protocol):
    """A mapper whose content costs so much to decode that several processes pay."""

    def copy_to(
        self, path: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
    ) -> tuple[int, list[tuple[int, int, str]]] | None:
        """Write the whole content to an existing, empty file, holes left out.

        Args:
            processes: 0 for one on each core.
            progress: told the bytes done, holes included.

        Returns:
            The bytes stored, and ``(offset, length, reason)`` of what could not be read; None
            when more than one process would not pay or cannot be had.
        """
        ...


@runtime_checkable
class Reclaims(Protocol):
    """A mapper whose driver frees zones while it is idle."""

    @property
    def reclaims_when_idle(self) -> bool:
        """True when the user asked that idle time be used for it."""
        ...

    @property
    def idle_seconds(self) -> int:
        """A driver that had no request for so long is idle."""
        ...

    def reclaim(self) -> int:
        """Do what the idle driver does; returns how many steps that took."""
        ...


@runtime_checkable
class CountsZones(Protocol):
    """A mapper that knows how many zones of each kind are free."""

    def free_zones(self) -> Mapping[str, int]: ...


@runtime_checkable
class Warns(Protocol):
    """A mapper that has something to say about how it read the metadata."""

    @property
    def warnings(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to fill a target with raw content.

    Attributes:
        force: also one that holds data, where the content goes to what is free.
        resume: go on after an import that was cut off: what is there has to be what the content has there.
        commit_every: make what was written so far a part of the target after so many chunks; 0 for once, at the end.
        rehearse: count what would be written, and write nothing.
    """

    force: bool = False
    resume: bool = False
    commit_every: int = 0
    rehearse: bool = False


@dataclass(slots=True)
class Imported:
    """What an import did.

    Attributes:
        data_bytes: content that is not zero.
        written_bytes: everything that was written, metadata too.
        chunks: parts of the logical device that got a place.
        zones: of each kind, how many were filled.
    """

    data_bytes: int = 0
    written_bytes: int = 0
    chunks: int = 0
    zones: dict[str, int] = field(default_factory=dict)


class Importer(Protocol):
    """Content goes straight to where a driver would move it in the end."""

    @property
    def size_bytes(self) -> int:
        """Of the logical device."""
        ...

    @property
    def chunk_bytes(self) -> int:
        """What gets a place as a whole."""
        ...

    def free_zones(self) -> Mapping[str, int]:
        """Zones of each kind that content may go to."""
        ...

    def overwrites(self, chunks: int | None) -> Plan:
        """What may be written when at most so many chunks get a place: streams that run nothing."""
        ...

    def taken(self) -> Sequence[tuple[int, int]]:
        """``(offset, length)`` of what may only be zeroes in the content."""
        ...

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Whole blocks, in ascending order; what lies between them is zeroes."""
        ...

    def finish(self) -> Imported:
        """Make everything durable."""
        ...
