"""Everything about the super blocks of a file system: every copy, the kernel's choice, the newest valid one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from zoned_tools.errors import RefusedError
from zoned_tools.formats.btrfs.copies import (
    COPY_DTYPE,
    Copies,
    Copy,
    Scanner,
    deciding_generation,
    decode_one,
    read_block,
    unreadable_copy,
)
from zoned_tools.formats.btrfs.layout import SUPER_BYTES, RootFields, SuperBlock, parse
from zoned_tools.formats.btrfs.nodes import NodeError
from zoned_tools.formats.btrfs.open import Mirror, Placement, locate
from zoned_tools.formats.btrfs.ring import (
    Fill,
    RingState,
    head_position,
    newest_valid_row,
    ring_state,
    write_position,
)
from zoned_tools.formats.btrfs.trees import ChunkMap, Readability, TreeReader
from zoned_tools.formats.btrfs.validate import known_sys_chunks, zone_size_fault
from zoned_tools.formats.btrfs.zone_states import ZoneStates

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Target

MAX_KEPT_BLOCKS = 256
"""Super blocks of a device whose bytes are kept once they were looked at."""


class Where(TypedDict, total=False):
    """Place of a finding or an action: the device when there are several, the mirror, and what is nearer still."""

    device: str
    mirror: int
    zone: int
    offset_bytes: int
    generation: int


@dataclass(slots=True)
class MirrorSurvey:
    """One mirror with all its copies.

    Attributes:
        copies: in slot order, zone 0 before zone 1.
        next_write_bytes: where the kernel would put the next super block; None in an
            invalid state, where it is overwritten in place, and where the content of a raw
            copy does not tell.
        head: what the kernel takes for the newest, None when it takes none.
        newest: row of the newest valid copy in ``copies``, None without any.
        roots: row -> whether its roots can be read, for the rows that were tested.
    """

    mirror: Mirror
    state: RingState
    copies: Copies
    next_write_bytes: int | None
    head: Copy | None
    newest: int | None
    roots: dict[int, Readability] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.mirror.number

    @property
    def newest_copy(self) -> Copy | None:
        return None if self.newest is None else self.copies[self.newest]

    @property
    def newest_generation(self) -> int:
        """Generation of the newest valid copy, -1 without any."""
        return -1 if self.newest is None else self.generation(self.newest)

    def generation(self, row: int) -> int:
        return int(self.copies["generation"][row])

    @property
    def head_row(self) -> int | None:
        """Row of the kernel's choice in ``copies``; None when it is none of the slots."""
        if self.head is None:
            return None
        rows = np.flatnonzero(self.copies["offset_bytes"] == self.head["offset_bytes"])
        return int(rows[0]) if len(rows) else None

    @property
    def valid_head(self) -> Copy | None:
        """The kernel's choice when it is valid."""
        return self.head if self.head is not None and bool(self.head["valid"]) else None

    @property
    def head_is_valid(self) -> bool:
        return self.valid_head is not None

    @property
    def is_dead(self) -> bool:
        """True when a zone of the ring, or the zone of a block in place, is read-only or offline."""
        pair = self.mirror.pair
        if pair is None:
            return self.mirror.dead_zone
        return Fill.DEAD in (pair[0].fill, pair[1].fill)

    @property
    def is_too_small(self) -> bool:
        """True when a zone of the ring has room for fewer than two super blocks: each write would fill it."""
        pair = self.mirror.pair
        return pair is not None and min(zone.slots for zone in pair) < 2

    def slots_decide(self) -> bool:
        """Whether both zones are full, so that two generation numbers decide."""
        pair = self.mirror.pair
        return pair is not None and pair[0].fill is Fill.FULL and pair[1].fill is Fill.FULL

    @property
    def unreadable(self) -> Copies:
        """The copies that the medium does not give; those of a dead zone are told as such."""
        return self.copies[:0] if self.is_dead else self.copies[self.copies["unreadable"]]

    @property
    def shown_state(self) -> RingState:
        """The ring's state; invalid too where not a single copy can be read."""
        lost = self.mirror.pair is not None and len(self.copies) > 0 and bool(self.copies["unreadable"].all())
        return RingState.INVALID if lost else self.state

    def roots_readable(self, row: int) -> bool | None:
        """Verdict on a row; None also when it was not tested."""
        return self.roots[row].readable if row in self.roots else None


@dataclass(slots=True)
class DeviceSurvey:
    """All mirrors of one device."""

    device: Device
    start_bytes: int
    placement: Placement
    mirrors: tuple[MirrorSurvey, ...]
    _blocks: dict[int, bytes] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of the device from where the file system begins."""
        return self.device.geometry.size_bytes - self.start_bytes

    def mirror(self, number: int) -> MirrorSurvey | None:
        return next((m for m in self.mirrors if m.number == number), None)

    def block(self, copy: Copy) -> bytes:
        """The bytes of one copy.

        Raises:
            DeviceError: it cannot be read any more.
        """
        offset = int(copy["offset_bytes"])
        if offset in self._blocks:
            return self._blocks[offset]
        block = self.device.read(offset, SUPER_BYTES)
        if len(self._blocks) < MAX_KEPT_BLOCKS:
            self._blocks[offset] = block
        return block

    def super_block(self, copy: Copy) -> SuperBlock:
        """One copy, parsed."""
        return parse(self.block(copy))

    def zone_bytes(self, block: SuperBlock) -> int:
        """Size of real zones, or of emulated ones, which is that of the first stripe; 0 when there are none."""
        system = known_sys_chunks(block)
        emulated = system[0].stripe_bytes if system and block.is_zoned else 0
        return self.placement.zone_bytes or emulated

    def zone_states(self, block: SuperBlock) -> ZoneStates | None:
        """The zones as block groups see them; None where their size is not possible, which is a finding."""
        zone_bytes = self.zone_bytes(block)
        if not zone_bytes or zone_size_fault(zone_bytes):
            return None
        return ZoneStates.of(self.device, self.start_bytes, zone_bytes)

    @property
    def best(self) -> tuple[MirrorSurvey, Copy] | None:
        """The newest valid copy: mirror 0's while the kernel finds a valid one there, else the highest generation's.

        A rollback can leave higher generations in the other mirrors; they do not count then.
        """
        first = self.mirror(0)
        if first is not None and first.head_is_valid and first.newest is not None:
            return first, first.copies[first.newest]
        found = max(self.mirrors, key=lambda m: m.newest_generation, default=None)
        return None if found is None or found.newest is None else (found, found.copies[found.newest])


@dataclass(frozen=True, slots=True)
class Missing:
    """Devices of a file system that were not given.

    Attributes:
        needed: how many the file system has.
        devids: those that it names and that are not there.
        block_groups: logical addresses of those with a stripe on one of them.
    """

    given: int
    needed: int
    devids: list[int]
    block_groups: list[int]

    @property
    def sentence(self) -> str:
        numbers = f"; not there: {', '.join(map(str, self.devids))}" if self.devids else ""
        return f"{self.given} of {self.needed} devices given{numbers}"


@dataclass(slots=True)
class FileSystem:
    """All given devices of one file system.

    Attributes:
        surveys: one for each device, in the target's order.
        supers: each device's newest valid super block; None without any.
        reader: of the trees that the devices share.
    """

    target: Target
    surveys: tuple[DeviceSurvey, ...]
    supers: tuple[SuperBlock | None, ...]
    reader: TreeReader

    @property
    def newest(self) -> SuperBlock | None:
        """The super block with the highest generation of all devices."""
        found = [block for block in self.supers if block is not None]
        return max(found, key=lambda block: block.generation, default=None)

    def where(self, index: int, survey: MirrorSurvey | None = None) -> Where:
        """Place of a finding: the mirror, and the device when there are several."""
        where = Where()
        if len(self.surveys) > 1:
            where["device"] = self.surveys[index].device.path
        if survey is not None:
            where["mirror"] = survey.number
        return where

    def path_of(self, devid: int) -> str | None:
        """Path of the device with this number; None where it was not given."""
        device = self.reader.devices.get(devid)
        return None if device is None else device.path

    def missing(self) -> Missing | None:
        """What was not given, after the newest super block's chunk tree, or its own number where that is lost."""
        block = self.newest
        if block is None:
            return None
        given = {one.dev_item.devid for one in self.supers if one is not None and one.fsid == block.fsid}
        try:
            chunks = self.reader.chunk_map(block)
        except NodeError:  # told as roots that cannot be read; the number of devices is all that is known then
            chunks = ChunkMap(known_sys_chunks(block))
        named = {stripe.devid for chunk in chunks.chunks for stripe in chunk.stripes} | set(chunks.devices)
        needed = len(chunks.devices) or block.num_devices
        absent = named - given
        if len(given) >= needed and not absent:
            return None
        groups = [c.logical for c in chunks.chunks if any(stripe.devid in absent for stripe in c.stripes)]
        return Missing(len(given), needed, sorted(absent), groups)

    def refuse_missing(self, doing: str) -> None:
        """Refuse what needs every device: the kernel takes the one with the highest generation (chapter 12).

        Raises:
            RefusedError: one was not given.
        """
        missing = self.missing()
        if missing is not None:
            raise RefusedError(
                f"{doing} needs all devices: {missing.sentence}",
                device=self.target.device.path,
                hint="the next mount would undo it from the device with the highest generation",
            )

    def zone_states(self, block: SuperBlock) -> dict[int, ZoneStates]:
        """devid -> the zones of the device, for those whose zone size is possible."""
        found: dict[int, ZoneStates] = {}
        for survey, own in zip(self.surveys, self.supers, strict=True):
            states = None if own is None or own.fsid != block.fsid else survey.zone_states(own)
            if own is not None and states is not None:
                found.setdefault(own.dev_item.devid, states)
        return found

    def readability(self, index: int, survey: MirrorSurvey, row: int) -> Readability:
        """Whether the roots of one copy can be read; the verdict is kept in the survey."""
        if row not in survey.roots:
            fields = RootFields.of(self.surveys[index].block(survey.copies[row]))
            survey.roots[row] = self.reader.roots_readable(fields)
        return survey.roots[row]


def survey_file_system(target: Target) -> FileSystem:
    """Survey every device of a target; trees are read from those that belong to the newest super block's."""
    surveys = tuple(survey_device(device, target.start_bytes) for device in target.devices)
    supers: list[SuperBlock | None] = []
    for survey in surveys:
        best = survey.best
        supers.append(None if best is None else survey.super_block(best[1]))
    by_devid: dict[int, Device] = {}
    fs = FileSystem(target, surveys, tuple(supers), TreeReader(by_devid, target.start_bytes))
    newest = fs.newest
    for survey, block in zip(surveys, supers, strict=True):
        if block is not None and newest is not None and block.fsid == newest.fsid:
            by_devid.setdefault(block.dev_item.devid, survey.device)
    return fs


def survey_device(device: Device, start_bytes: int = 0) -> DeviceSurvey:
    """Read every super block of every mirror and verify its checksum."""
    placement = locate(device, start_bytes)
    mirrors = tuple(survey_mirror(device, mirror) for mirror in placement.mirrors)
    return DeviceSurvey(device, start_bytes, placement, mirrors)


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
    return survey_ring(device, mirror, copies)


def _survey_place(device: Device, mirror: Mirror) -> MirrorSurvey:
    block = read_block(device, mirror.place_bytes)
    copies = (
        unreadable_copy(mirror.place_bytes) if block is None else decode_one(block, mirror.place_bytes, mirror.bytenr)
    )
    newest = 0 if copies["valid"][0] else None
    return MirrorSurvey(mirror, RingState.OK, copies, None, copies[0], newest)


def survey_ring(device: Device, mirror: Mirror, copies: Copies) -> MirrorSurvey:
    """Both answers for a ring whose copies are read: the kernel's choice and the newest valid one."""
    pair = mirror.pair
    assert pair is not None
    by_offset = RowFinder(copies)

    def last_generation(index: int) -> int:
        return deciding_generation(copies, by_offset(pair[index].last_slot_bytes))

    state = ring_state(pair)
    write = write_position(pair, last_generation)
    head: Copy | None = None
    position = head_position(pair, write)
    if position is not None:
        row = by_offset(position)
        head = copies[row] if row is not None else read_copy(device, mirror, position)
    newest = newest_valid_row(copies["zone"], copies["valid"], copies["generation"])
    unknown = not mirror.capacity_known and pair[0].fill is Fill.IN_USE
    full = pair[0].fill is Fill.FULL and pair[1].fill is Fill.FULL
    unknown |= full and head is not None and bool(head["unreadable"])
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


def read_copy(device: Device, mirror: Mirror, offset_bytes: int) -> Copy | None:
    """Decode the block at any position of a mirror; None when it cannot be read."""
    block = read_block(device, offset_bytes)
    if block is None:
        return None
    row: Copy = decode_one(block, offset_bytes, mirror.bytenr)[0]
    return row
