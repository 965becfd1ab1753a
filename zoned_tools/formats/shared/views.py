"""Layouts whose logical space is no device: each of their drives as a file system finds it, and where addresses live.

A layout of several devices can have a logical space of its own that no kernel shows as a block device. What can be
exported and served is then each device, as a view without what only a zoned drive can make sense of; what is mapped
are addresses, of which several copies may exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.formats.shared.logical import Mapper
    from zoned_tools.formats.shared.losses import Loss


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device of a target as it is exported and served.

    Attributes:
        name: of its file and its export (``devid-2``).
        mapper: its content, read-only.
        generation: of the metadata that it shows.
        gone: what the drive does not give any more and the view has as holes, ascending; no consent is needed for it.
        parts_of: a range of bytes as ``(offset, length, place)``: whose they are (device number, zone, block group),
            for what is lost; None: nobody's, then nothing is lost.
    """

    name: str
    mapper: Mapper
    generation: int
    gone: Sequence[Loss]
    parts_of: Callable[[int, int], Iterator[tuple[int, int, Mapping[str, int | None] | None]]]


@dataclass(frozen=True, slots=True)
class CopyExtent:
    """A run of logical blocks of 4096 bytes in one of its copies.

    Attributes:
        device_index: None where the device was not given, or nothing is stored.
        physical_block: in 4096-byte blocks of the device; None where nothing is stored.
        why: how the place was found.
        place: which copy it is, on which device and zone, and its state.
    """

    logical_block: int
    blocks: int
    device_index: int | None
    physical_block: int | None
    why: str
    place: Mapping[str, int | str | None] = field(default_factory=dict)
