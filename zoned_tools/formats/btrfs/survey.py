"""Everything about the super blocks of one device: every copy, the kernel's choice, the newest valid one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.formats.btrfs.copies import COPY_DTYPE, Copies, Scanner, decode_one, read_block
from zoned_tools.formats.btrfs.layout import SUPER_BLOCK, SUPER_BYTES
from zoned_tools.formats.btrfs.placement import Mirror, Placement, locate
from zoned_tools.formats.btrfs.ring import (
    Fill,
    RingState,
    head_position,
    newest_valid_row,
    ring_state,
    write_position,
)


@dataclass(slots=True)
class MirrorSurvey:
    """One mirror with all its copies.

    Attributes:
        copies: in slot order, zone 0 before zone 1.
        next_write_bytes: where the kernel would put the next super block; None in an
            invalid state, where it is overwritten in place, and where the content of a raw
            copy does not tell.
        head: what the kernel takes for the newest (one row), None when it takes none.
        newest: row of the newest valid copy in ``copies``, None without any.
    """

    mirror: Mirror
    state: RingState
    copies: Copies
    next_write_bytes: int | None
    head: Any | None
    newest: int | None
    readable: dict[int, bool | None] = field(default_factory=dict)
    """Row -> whether its roots can be read, for the rows that were tested."""

    @property
    def newest_copy(self) -> Any | None:
        return None if self.newest is None else self.copies[self.newest]

    @property
    def head_row(self) -> int | None:
        """Row of the kernel's choice in ``copies``; None when it is none of the slots."""
        if self.head is None:
            return None
        rows = np.flatnonzero(self.copies["offset_bytes"] == self.head["offset_bytes"])
        return int(rows[0]) if len(rows) else None

    @property
    def head_is_valid(self) -> bool:
        return self.head is not None and bool(self.head["valid"])

    def slots_decide(self) -> bool:
        """Whether both zones are full, so that two generation numbers decide."""
        pair = self.mirror.pair
        return pair is not None and pair[0].fill is Fill.FULL and pair[1].fill is Fill.FULL


@dataclass(slots=True)
class DeviceSurvey:
    """All mirrors of one device."""

    device: Device
    start_bytes: int
    placement: Placement
    mirrors: tuple[MirrorSurvey, ...]

    def mirror(self, number: int) -> MirrorSurvey | None:
        return next((m for m in self.mirrors if m.mirror.number == number), None)

    def block(self, copy: Any) -> bytes:
        """The bytes of one copy."""
        return self.device.read(int(copy["offset_bytes"]), SUPER_BYTES)

    def super_block(self, copy: Any) -> Any:
        """One copy, parsed."""
        return SUPER_BLOCK.parse(self.block(copy))

    @property
    def best(self) -> tuple[MirrorSurvey, Any] | None:
        """The newest valid copy: mirror 0's while the kernel finds a valid one there, else the highest generation's.

        A rollback can leave higher generations in the other mirrors; they do not count then.
        """
        first = self.mirror(0)
        if first is not None and first.head_is_valid and first.newest is not None:
            return first, first.newest_copy
        found: tuple[MirrorSurvey, Any] | None = None
        for survey in self.mirrors:
            copy = survey.newest_copy
            if copy is not None and (found is None or copy["generation"] > found[1]["generation"]):
                found = survey, copy
        return found


def survey_device(device: Device, start_bytes: int = 0) -> DeviceSurvey:
    """Read every super block of every mirror and verify its checksum."""
    placement = locate(device, start_bytes)
    return DeviceSurvey(
        device, start_bytes, placement, tuple(survey_mirror(device, mirror) for mirror in placement.mirrors)
    )


def survey_mirror(device: Device, mirror: Mirror) -> MirrorSurvey:
    """Read every super block of one mirror."""
    if mirror.pair is None:
        return _survey_place(device, mirror)
    scanner = Scanner(device, mirror.bytenr)
    counts = [zone.written_slots for zone in mirror.pair]
    copies = np.zeros(sum(counts), COPY_DTYPE)
    parts = (copies[: counts[0]], copies[counts[0] :])
    for index, zone in enumerate(mirror.pair):
        scanner.scan(zone.start_bytes, counts[index], index, into=parts[index])
    return judge_ring(device, mirror, copies)


def _survey_place(device: Device, mirror: Mirror) -> MirrorSurvey:
    block = read_block(device, mirror.place_bytes)
    if block is None:
        copies = np.zeros(1, COPY_DTYPE)
        copies["offset_bytes"], copies["unreadable"] = mirror.place_bytes, True
    else:
        copies = decode_one(block, mirror.place_bytes, mirror.bytenr)
    newest = 0 if copies["valid"][0] else None
    return MirrorSurvey(mirror, RingState.OK, copies, None, copies[0], newest)


def judge_ring(device: Device, mirror: Mirror, copies: Copies) -> MirrorSurvey:
    """Both answers for a ring whose copies are read: the kernel's choice and the newest valid one."""
    pair = mirror.pair
    assert pair is not None
    by_offset = RowFinder(copies)

    def last_generation(index: int) -> int:
        row = by_offset(pair[index].last_slot_bytes)
        return 0 if row is None else int(copies["generation"][row])

    state = ring_state(pair)
    write = write_position(pair, last_generation)
    head: Any | None = None
    position = head_position(pair, write)
    if position is not None:
        row = by_offset(position)
        head = copies[row] if row is not None else read_copy(device, mirror, position)
    newest = newest_valid_row(copies["zone"], copies["valid"], copies["generation"])
    unknown = not mirror.capacity_known and pair[0].fill is Fill.IN_USE
    return MirrorSurvey(mirror, state, copies, None if unknown else write, head, newest)


class RowFinder:
    """Looks up copies by position; positions ascend."""

    def __init__(self, copies: Copies) -> None:
        self._offsets = np.ascontiguousarray(copies["offset_bytes"])

    def __call__(self, offset_bytes: int) -> int | None:
        if offset_bytes < 0:
            return None
        row = int(np.searchsorted(self._offsets, np.uint64(offset_bytes)))
        found = row < len(self._offsets) and int(self._offsets[row]) == offset_bytes
        return row if found else None


def read_copy(device: Device, mirror: Mirror, offset_bytes: int) -> Any | None:
    """Decode the block at any position of a mirror; None when it cannot be read."""
    block = read_block(device, offset_bytes)
    if block is None:
        return None
    return decode_one(block, offset_bytes, mirror.bytenr)[0]
