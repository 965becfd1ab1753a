"""Views of a device that keep writes to themselves: dry runs, crash cuts, recorded logs.

:class:`Overlay` is a copy-on-write view with the zone rules of a drive.
:class:`Recorder` passes everything through and writes down what reaches the device.
:func:`replay_cut` builds, from such a record, what a power cut could have left.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from zoned_tools.device.badareas import BadAreas, known_bad_areas, missing_bytes
from zoned_tools.device.base import Buffer, ClosesOnExit, Device, Geometry, ZoneOperation, check_range
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.filestore import join_extents
from zoned_tools.device.pages import PAGE_BYTES, Pages
from zoned_tools.device.plan import Produce, Step, apply_step
from zoned_tools.device.ranges import Ranges
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from zoned_tools.device.machine import DriveFamily
    from zoned_tools.device.zones import ZoneTable


class _LateRanges:
    """Disjoint ranges, ascending, whose bytes are made when they are read."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._steps: list[Produce] = []
        self._made: tuple[Produce, bytes] | None = None

    def add(self, start: int, end: int, step: Produce) -> None:
        """Put a range of bytes over what is there."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        kept = [(start, end, step)]
        if first < last:
            before = (self._starts[first], start, self._steps[first])
            after = (end, self._ends[last - 1], self._steps[last - 1])
            kept = [piece for piece in (before, *kept, after) if piece[0] < piece[1]]
        self._starts[first:last] = [piece[0] for piece in kept]
        self._ends[first:last] = [piece[1] for piece in kept]
        self._steps[first:last] = [piece[2] for piece in kept]

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill in the parts of ``buffer`` that ranges cover; the last range's bytes are kept for the next read."""
        end = offset_bytes + len(buffer)
        for index in range(bisect_right(self._ends, offset_bytes), bisect_left(self._starts, end)):
            step = self._steps[index]
            start, stop = max(self._starts[index], offset_bytes), min(self._ends[index], end)
            if self._made is None or self._made[0] is not step:
                self._made = (step, step.produce())
            content = memoryview(self._made[1])[start - step.offset_bytes : stop - step.offset_bytes]
            buffer[start - offset_bytes : stop - offset_bytes] = content

    def inside(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that are covered."""
        for index in range(bisect_right(self._ends, start), bisect_left(self._starts, end)):
            yield max(self._starts[index], start), min(self._ends[index], end)


class _OverlayStore:
    """Changed pages over the bytes of another device, which is only read."""

    def __init__(self, base: Device) -> None:
        self._base = base
        self._pages = Pages()
        self._late = _LateRanges()  # below the pages

    def write_later(self, step: Produce) -> bool:
        """Take what ``step`` makes for the content of its range, without making it; False where that was changed."""
        first, end = step.offset_bytes // PAGE_BYTES, (step.offset_bytes + step.length_bytes) // PAGE_BYTES
        if self._pages.stored(first, end) or list(self._pages.zeroes.gaps(first, end)) != [(first, end)]:
            return False
        self._late.add(step.offset_bytes, step.offset_bytes + step.length_bytes, step)
        return True

    def _unchanged_into(self, offset_bytes: int, buffer: memoryview) -> None:
        try:
            self._base.read_into(offset_bytes, buffer)
        except DeviceError as error:
            if error.errno != errno.EIO:
                raise
            # What was written over need not be readable below.
            for start, stop in self._gaps(offset_bytes, offset_bytes + len(buffer)):
                self._base.read_into(start, buffer[start - offset_bytes : stop - offset_bytes])
        self._late.read_into(offset_bytes, buffer)

    def _gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range of bytes that nothing was written over."""
        first, last = start // PAGE_BYTES, -(-end // PAGE_BYTES)
        pages = [(page * PAGE_BYTES, (page + 1) * PAGE_BYTES) for page in self._pages.stored(first, last)]
        written = Ranges()
        for low, high in (*pages, *self._late.inside(start, end)):
            written.add(low, high)
        for gap, gap_end in self._pages.zeroes.gaps(first, last):
            low, high = max(gap * PAGE_BYTES, start), min(gap_end * PAGE_BYTES, end)
            if low < high:
                yield from written.gaps(low, high)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        end_bytes = offset_bytes + len(buffer)
        first, end = offset_bytes // PAGE_BYTES, -(-end_bytes // PAGE_BYTES)
        if end - first == 1 and first in self._pages:
            self._pages.read(first, offset_bytes - first * PAGE_BYTES, buffer)
            return
        at = offset_bytes
        for gap, gap_end in self._pages.zeroes.gaps(first, end):
            start, stop = max(gap * PAGE_BYTES, offset_bytes), min(gap_end * PAGE_BYTES, end_bytes)
            buffer[at - offset_bytes : start - offset_bytes] = bytes(start - at)
            self._unchanged_into(start, buffer[start - offset_bytes : stop - offset_bytes])
            at = stop
        buffer[at - offset_bytes :] = bytes(end_bytes - at)
        for page in self._pages.stored(first, end):
            start, stop = max(page * PAGE_BYTES, offset_bytes), min((page + 1) * PAGE_BYTES, end_bytes)
            self._pages.read(page, start - page * PAGE_BYTES, buffer[start - offset_bytes : stop - offset_bytes])

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            page, skip = divmod(offset_bytes + done, PAGE_BYTES)
            count = min(PAGE_BYTES - skip, len(view) - done)
            if count == PAGE_BYTES:
                self._pages.put(page, view[done : done + count])
            else:
                content = bytearray(PAGE_BYTES)
                start = page * PAGE_BYTES
                inside = min(PAGE_BYTES, self._base.geometry.size_bytes - start)
                self.read_into(start, memoryview(content)[:inside])
                content[skip : skip + count] = view[done : done + count]
                self._pages.put(page, content)
            done += count

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        first_whole, end_whole = -(-offset_bytes // PAGE_BYTES), end // PAGE_BYTES
        if first_whole > end_whole:
            self.pwrite(offset_bytes, bytes(length_bytes))
            return
        self._pages.drop(first_whole, end_whole)
        for start, stop in ((offset_bytes, first_whole * PAGE_BYTES), (end_whole * PAGE_BYTES, end)):
            if start < stop:
                self.pwrite(start, bytes(stop - start))

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        end_bytes = offset_bytes + length_bytes
        first, end = offset_bytes // PAGE_BYTES, -(-end_bytes // PAGE_BYTES)
        found = [(page * PAGE_BYTES, (page + 1) * PAGE_BYTES) for page in self._pages.stored(first, end)]
        for gap, gap_end in self._pages.zeroes.gaps(first, end):
            start, stop = max(gap * PAGE_BYTES, offset_bytes), min(gap_end * PAGE_BYTES, end_bytes)
            found.extend((at, at + length) for at, length in self._base.data_extents(start, stop - start))
            found.extend(self._late.inside(start, stop))
        for first_byte, length in join_extents((start, stop - start) for start, stop in sorted(found)):
            start, stop = max(first_byte, offset_bytes), min(first_byte + length, end_bytes)
            yield start, stop - start

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What cannot be read of the base and was not written over."""
        return BadAreas.of(
            (low, high, letter)
            for start, stop, letter in known_bad_areas(self._base, offset_bytes, length_bytes)
            for low, high in self._gaps(start, stop)
        )

    @property
    def missing_bytes(self) -> int:
        return missing_bytes(self._base)

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Nothing to do: an overlay ends with the process."""

    def close(self) -> None:
        """The base stays open; it belongs to whoever opened it."""
        self._pages.close()


class Overlay(EmulatedDrive):
    """A copy-on-write view of ``base``: same geometry and zone rules, nothing is written through.

    Args:
        base: only read, also when it is writable. Zones that were reset in the overlay no
            longer show the base's content.

    Changed pages stay in memory up to 64 MiB, then go to a temporary file; zeroes cost nothing.
    """

    def __init__(self, base: Device, family: DriveFamily | None = None) -> None:
        rules = family or (base.machine.family if isinstance(base, EmulatedDrive) else None)
        self._pages = _OverlayStore(base)
        super().__init__(base.path, base.geometry, base.zones(), self._pages, writable=True, family=rules)

    def write_later(self, step: Produce) -> None:
        """Write what ``step`` makes, but make it when it is read, as often as that is.

        Only right while nothing changes what it is made from: it must not read this overlay.
        """
        if step.offset_bytes % PAGE_BYTES or step.length_bytes % PAGE_BYTES:
            self.write(step.offset_bytes, step.produce())
            return
        check_range(self.geometry, self.path, step.offset_bytes, step.length_bytes)
        parts = list(self._zone_parts(step.offset_bytes, step.length_bytes))
        sequential = [zone for zone, _, _ in parts if self.machine.is_sequential(zone)]
        if len(parts) > 1 and sequential:  # parts fail one by one
            self.write(step.offset_bytes, step.produce())
            return
        for zone, at, count in parts:
            self.machine.check_write(zone, at, count)
        if self._to_punch.intersection(sequential) or not self._pages.write_later(step):
            self.write(step.offset_bytes, step.produce())
            return
        for zone, at, count in parts:
            self.machine.advance(zone, at, count)

    def _zone_parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
        """``(zone, first sector in it, sectors)`` of a range; none on a regular device."""
        zone_bytes, end = self.geometry.zone_bytes, offset_bytes + length_bytes
        at = offset_bytes
        while self.geometry.is_zoned and at < end:
            zone, skip = divmod(at, zone_bytes)
            count = min(zone_bytes - skip, end - at)
            yield zone, skip // SECTOR_BYTES, count // SECTOR_BYTES
            at += count


def apply_to_overlays(devices: Sequence[Overlay], steps: Iterable[Step]) -> None:
    """Run the steps of a plan that was made from the overlays' bases; produced data take no memory."""
    for step in steps:
        if isinstance(step, Produce):
            devices[step.device].write_later(step)
        else:
            apply_step(devices, step)


@dataclass(frozen=True, slots=True)
class LoggedWrite:
    """Data that reached the device."""

    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LoggedDiscard:
    """A range that was made to read as zeroes."""

    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class LoggedManage:
    """A zone management command."""

    operation: ZoneOperation
    first_zone: int
    count: int


@dataclass(frozen=True, slots=True)
class LoggedFlush:
    """Everything logged before is durable."""


LogEntry: TypeAlias = LoggedWrite | LoggedDiscard | LoggedManage | LoggedFlush


class Recorder(ClosesOnExit):
    """Passes everything to ``device`` and appends each change to :attr:`log`.

    ``before`` is called ahead of each change and may raise to inject a fault. Several
    recorders may share one ``log`` of ``(device number, entry)`` pairs, which keeps the
    order of changes over the devices of one target.
    """

    def __init__(
        self,
        device: Device,
        log: list[tuple[int, LogEntry]] | None = None,
        number: int = 0,
        before: Callable[[LogEntry], None] | None = None,
    ) -> None:
        self.device = device
        self.log: list[tuple[int, LogEntry]] = [] if log is None else log
        self._number = number
        self._before = before

    @property
    def path(self) -> str:
        return self.device.path

    @property
    def geometry(self) -> Geometry:
        return self.device.geometry

    @property
    def writable(self) -> bool:
        return self.device.writable

    @property
    def emulated(self) -> bool:
        return self.device.emulated

    def _note(self, entry: LogEntry) -> None:
        if self._before is not None:
            self._before(entry)
        self.log.append((self._number, entry))

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return self.device.read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.device.read_into(offset_bytes, buffer)

    def write(self, offset_bytes: int, data: Buffer) -> None:
        self._note(LoggedWrite(offset_bytes, bytes(data)))
        self.device.write(offset_bytes, data)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._note(LoggedDiscard(offset_bytes, length_bytes))
        self.device.discard(offset_bytes, length_bytes)

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        return self.device.zones(first_zone, count)

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        self._note(LoggedManage(operation, first_zone, count))
        self.device.manage(operation, first_zone, count)

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        return self.device.data_extents(offset_bytes, length_bytes)

    def flush(self) -> None:
        self._note(LoggedFlush())
        self.device.flush()

    def close(self) -> None:
        self.device.close()


def apply_entry(device: Device, entry: LogEntry) -> None:
    """Repeat one logged change."""
    match entry:
        case LoggedWrite():
            device.write(entry.offset_bytes, entry.data)
        case LoggedDiscard():
            device.discard(entry.offset_bytes, entry.length_bytes)
        case LoggedManage():
            device.manage(entry.operation, entry.first_zone, entry.count)
        case LoggedFlush():
            device.flush()


def replay_cut(
    devices: list[Device],
    log: list[tuple[int, LogEntry]],
    cut: int,
    keep: Callable[[int], bool] = lambda _index: True,
) -> None:
    """Apply what a power cut after ``cut`` log entries can have left.

    Entries that a later flush of their device (before the cut) made durable are always
    applied; of the others only those for which ``keep(index)`` is true. Inside one
    sequential zone a drive loses only a suffix: once a write to a zone is dropped, later
    un-flushed changes of that zone are dropped too.
    """
    durable = set(_durable_entries(log, cut))
    torn: set[tuple[int, int | None]] = set()
    for index, (number, entry) in enumerate(log[:cut]):
        zone = _zone_of(devices[number], entry)
        if index not in durable and ((number, zone) in torn or not keep(index)):
            if zone is not None:
                torn.add((number, zone))
            continue
        apply_entry(devices[number], entry)


def _durable_entries(log: list[tuple[int, LogEntry]], cut: int) -> Iterable[int]:
    flushed: set[int] = set()
    for index in range(cut - 1, -1, -1):
        number, entry = log[index]
        if isinstance(entry, LoggedFlush):
            flushed.add(number)
        if number in flushed:
            yield index


def _zone_of(device: Device, entry: LogEntry) -> int | None:
    """The sequential zone that an entry changes, None for others."""
    geometry = device.geometry
    if not geometry.is_zoned:
        return None
    match entry:
        case LoggedWrite():
            zone = geometry.zone_of(entry.offset_bytes)
            return zone if device.zones(zone, 1)["type"][0] != 1 else None
        case LoggedManage():
            return entry.first_zone
        case _:
            return None
