"""What a plan puts where, as digests: playing back tells by them a plan that was cut short from another program's work.

A place is a block of 4096 bytes, or a part of one where a step begins or ends inside it. So each step changes a
place as a whole or not at all, and after any number of steps it holds what was there before, or what one of them
puts there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Produce, Stream, Write, ZoneFlags
from zoned_tools.device.ranges import Ranges
from zoned_tools.device.undo_format import WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Step

_PIECE_BYTES = 4096


def written_records(devices: Sequence[Device], steps: Sequence[Step]) -> Iterator[bytes]:
    """:data:`WRITTEN` records of everything that a plan writes or copies, step by step.

    A fill is known by its records only where another step writes, too: elsewhere nothing is compared.
    """
    written: defaultdict[int, Ranges] = defaultdict(Ranges)
    edges: defaultdict[int, set[int]] = defaultdict(set)
    for step in steps:
        if isinstance(step, Write | Produce | Copy | Fill):
            start, end = step.offset_bytes, step.offset_bytes + step.length_bytes
            edges[step.device].update(edge for edge in (start, end) if edge % _PIECE_BYTES)
            if not isinstance(step, Fill):
                written[step.device].add(start, end)
    cuts = {device: sorted(found) for device, found in edges.items()}
    for step in steps:
        for offset, data in _new_content(devices[step.device], step, written[step.device]):
            yield _records(step.device, offset, data, cuts.get(step.device, []))


def _new_content(device: Device, step: Step, written: Ranges) -> Iterator[tuple[int, bytes]]:
    """``(offset, data)`` of what a step stores, of a fill where others write; what a stream brings nobody knows yet."""
    match step:
        case Write():
            yield step.offset_bytes, step.data
        case Produce():
            yield step.offset_bytes, step.produce()
        case Copy():
            yield from step.chunks(device)
        case Fill():
            for offset, data in step.chunks():
                for start, end in written.parts(offset, offset + len(data)):
                    yield start, data[start - offset : end - offset]
        case Stream() | ManageZones() | ZoneFlags() | Flush():
            pass


def _records(device: int, offset_bytes: int, data: bytes, cuts: Sequence[int]) -> bytes:
    """Records of a write, cut at multiples of 4096 bytes and at ``cuts`` (ascending)."""
    pieces, at, end = [], offset_bytes, offset_bytes + len(data)
    cut = bisect_right(cuts, at)
    while at < end:
        stop = min(at - at % _PIECE_BYTES + _PIECE_BYTES, end)
        if cut < len(cuts) and cuts[cut] <= stop:
            stop = cuts[cut]
            cut += 1
        pieces.append((device, stop - at, at, hashlib.sha256(data[at - offset_bytes : stop - offset_bytes]).digest()))
        at = stop
    return np.array(pieces, WRITTEN).tobytes()
