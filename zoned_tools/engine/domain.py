"""What of a target's drives matters: metadata, and valid blocks below the write pointers.

A domain file keeps ddrescue to it: 2 TB of a drive of 14 TB are read, and nothing at or beyond a write pointer,
where drives answer with errors.

Source: section 2 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import FINISHED, NON_TRIED, covering
from zoned_tools.device.partition import start_of_view
from zoned_tools.device.runs import intersections
from zoned_tools.device.zones import shown_rows
from zoned_tools.engine.logical import opened_logical
from zoned_tools.engine.rehearsing import PLACE_BITS, look_up_in
from zoned_tools.errors import RefusedError, UsageError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import Target


def domain_of(target: Target, settings: Mapping[str, str], *, metadata_only: bool = False) -> list[IntArray]:
    """What matters on each device: ``(first byte, end byte)`` rows of the drive that the user named, shape (n, 2).

    Raises:
        UsageError: the layout does not tell where its metadata are.
        RefusedError: only a zone table tells what is written, and there is none.
        ZonedError: the metadata cannot be read.
    """
    layout = registry.of(target)
    if layout.metadata is None:
        raise UsageError(f"{target.layout} does not tell where its metadata are", device=target.device.path)
    rows: list[list[IntArray]] = [[] for _ in target.devices]
    for index, start, length in layout.metadata(target):
        rows[index].append(np.array([(start, start + length)], np.int64))
    if not metadata_only:
        for index, found in enumerate(_data(target, settings)):
            rows[index].append(found)
    return [_finished(device, parts) for device, parts in zip(target.devices, rows, strict=True)]


def _data(target: Target, settings: Mapping[str, str]) -> Iterator[IntArray]:
    """Where blocks are stored; of a layout without a map of blocks all that is written."""
    if registry.of(target).open_mapper is None:
        for device in target.devices:
            yield _written(device)
        return
    with opened_logical(target, writable=False, settings=settings) as mapper:
        lookup = look_up_in(target, mapper)
    lengths = np.diff(np.append(lookup.starts, lookup.size))
    stored = lookup.places >= 0
    devices = lookup.places[stored] >> PLACE_BITS
    starts = (lookup.places[stored] & ((1 << PLACE_BITS) - 1)) * LOGICAL_BLOCK_BYTES
    ends = starts + lengths[stored] * LOGICAL_BLOCK_BYTES
    for index in range(len(target.devices)):
        mine = devices == index
        yield np.stack((starts[mine], ends[mine]), axis=1)


def _written(device: Device) -> IntArray:
    """What is written of a device, by its zone table: of a copy that is not complete its content tells nothing."""
    if not device.geometry.is_zoned:
        raise RefusedError(
            "a raw copy without its zone table, which alone says what is written",
            device=device.path,
            hint="zoned map --domain-out on the drive itself reads no data",
        )
    return _shown(device)


def _shown(device: Device) -> IntArray:
    return shown_rows(device.zones(), device.geometry.size_bytes)


def _finished(device: Device, parts: Sequence[IntArray]) -> IntArray:
    """Rows of the whole drive: cut at write pointers, ascending, overlapping and touching ones joined."""
    rows = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    rows, _ = intersections(rows[np.lexsort((rows[:, 1], rows[:, 0]))], _shown(device))
    if len(rows):
        reach = np.maximum.accumulate(rows[:, 1])
        first = np.flatnonzero(np.append(True, rows[1:, 0] > reach[:-1]))
        rows = np.stack((rows[first, 0], np.append(reach[first[1:] - 1], reach[-1])), axis=1)
    return rows + start_of_view(device)


def domain_rows(ranges: IntArray, size_bytes: int) -> Iterator[tuple[int, int, str]]:
    """Rows of a domain file of a whole drive: ``+`` for what is to be read."""
    return covering(((start, end, FINISHED) for start, end in ranges.tolist()), size_bytes, NON_TRIED)
