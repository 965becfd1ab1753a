"""The logical device of a target, opened through its layout's mapper."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.partition import start_of_view
from zoned_tools.errors import UsageError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Journey, MapExtent, Mapper, Target, need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.formats.shared.views import CopyExtent


def open_logical(target: Target, *, writable: bool, settings: Mapping[str, str], faithful: bool = False) -> Mapper:
    """Open the target's mapper.

    Args:
        faithful: settings that are not given are those with which it writes what the driver does.

    Raises:
        UsageError: the layout has no logical device, or does not know a setting.
        ZonedError: what the mapper raises.
    """
    layout = registry.of(target)
    unsaid = {one.name: one.faithful for one in layout.settings if one.faithful} if faithful else {}
    parsed = layout.parse_settings({**unsaid, **settings}, Journey.LOGICAL)
    if layout.open_mapper is None:
        raise UsageError(f"{target.layout} has no logical device", device=target.device.path)
    return layout.open_mapper(target, writable=writable, settings=parsed)


@contextmanager
def opened_logical(target: Target, *, writable: bool, settings: Mapping[str, str]) -> Iterator[Mapper]:
    """The target's mapper, closed at the end."""
    mapper = open_logical(target, writable=writable, settings=settings)
    try:
        yield mapper
    finally:
        mapper.close()


@dataclass(frozen=True, slots=True)
class MappedRun:
    """Logical blocks and where they live, in terms of the devices that the user named.

    Attributes:
        device: None where it was not given, or the address is in no place.
        physical_bytes: from the start of the device; None when nothing is stored.
        place: which copy it is, of layouts that have several.
    """

    extent: MapExtent
    device: str | None
    physical_bytes: int | None
    place: Mapping[str, int | str | None] = field(default_factory=dict)


def map_blocks(target: Target, mapper: Mapper, first_block: int, count: int) -> Iterator[MappedRun]:
    """Where logical blocks live: ascending, without gaps, holes included.

    Raises:
        UsageError: the range is not on the logical device.
    """
    if count < 0 or first_block < 0 or first_block + count > mapper.size_blocks:
        blocks = f"block {first_block} is" if count <= 1 else f"blocks {first_block} to {first_block + count - 1} are"
        raise UsageError(
            f"{blocks} not on the logical device of {mapper.size_blocks} blocks", device=target.device.path
        )
    if not count:
        return iter(())
    starts = [start_of_view(device) for device in target.devices]
    return (
        MappedRun(
            extent,
            target.devices[extent.device_index].path,
            None
            if extent.physical_block is None
            else starts[extent.device_index] + extent.physical_block * LOGICAL_BLOCK_BYTES,
        )
        for extent in mapper.lookup(first_block, count)
    )


def has_copies(target: Target) -> bool:
    """Whether the target's logical space is no device, and its addresses have copies."""
    return registry.of(target).map_copies is not None


def map_copies(
    target: Target, settings: Mapping[str, str], ranges: Sequence[tuple[int, int]] | None
) -> Iterator[MappedRun]:
    """Every copy of ``(first block, blocks)`` ranges of such a space; None for all that is there.

    What cannot be is refused at once; what cannot be read ends the iteration.

    Raises:
        UsageError: the layout does not know a setting.
        ZonedError: what the layout raises.
    """
    layout = registry.of(target)
    room = need(layout.map_copies, target, "map copy by copy")
    starts = [start_of_view(device) for device in target.devices]

    def run_of(extent: CopyExtent) -> MappedRun:
        index, block = extent.device_index, extent.physical_block
        start = 0 if index is None else starts[index]
        at = None if block is None else start + block * LOGICAL_BLOCK_BYTES
        run = MapExtent(extent.logical_block, extent.blocks, -1 if index is None else index, block, extent.why)
        return MappedRun(run, None if index is None else target.devices[index].path, at, extent.place)

    return map(run_of, room(target, layout.parse_settings(settings, Journey.LOGICAL), ranges))


def map_zone(target: Target, settings: Mapping[str, str], zone: int) -> Sequence[Mapping[str, object]]:
    """Whose a zone is, on each device that has it.

    Raises:
        UsageError: the layout does not tell, or does not know a setting.
        ZonedError: what the layout raises.
    """
    layout = registry.of(target)
    room = need(layout.map_zone, target, "tell of zones")
    return room(target, layout.parse_settings(settings, Journey.LOGICAL), zone)
