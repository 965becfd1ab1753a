"""Views of a device that keep writes to themselves: dry runs, crash cuts, recorded logs.

:class:`Overlay` is a copy-on-write view with the zone rules of a drive.
:class:`Recorder` passes everything through and writes down what reaches the device.
:func:`replay_cut` builds, from such a record, what a power cut could have left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from zoned_tools.device.base import Buffer, ClosesOnExit, Device, Geometry, ZoneOperation
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.machine import DriveFamily
from zoned_tools.device.zones import ZoneTable

_PAGE = 4096


class _OverlayStore:
    """Changed pages in memory over the bytes of another device, which is only read."""

    def __init__(self, base: Device) -> None:
        self._base = base
        self._pages: dict[int, bytes | None] = {}  # None: punched, reads as zeroes

    def _page(self, page: int) -> bytes:
        if page in self._pages:
            return self._pages[page] or bytes(_PAGE)
        return self._base_bytes(page * _PAGE, _PAGE)

    def _base_bytes(self, offset_bytes: int, length_bytes: int) -> bytes:
        length = min(length_bytes, self._base.geometry.size_bytes - offset_bytes)
        return self._base.read(offset_bytes, length).ljust(length_bytes, b"\0")

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        first, last = offset_bytes // _PAGE, (offset_bytes + len(buffer) - 1) // _PAGE
        changed = (
            sorted(p for p in self._pages if first <= p <= last)
            if len(self._pages) < last - first
            else [p for p in range(first, last + 1) if p in self._pages]
        )
        self._base.read_into(offset_bytes, buffer)
        for page in changed:
            content = self._page(page)
            start, end = max(page * _PAGE, offset_bytes), min((page + 1) * _PAGE, offset_bytes + len(buffer))
            buffer[start - offset_bytes : end - offset_bytes] = content[start - page * _PAGE : end - page * _PAGE]

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            page, skip = divmod(offset_bytes + done, _PAGE)
            count = min(_PAGE - skip, len(view) - done)
            if count == _PAGE:
                self._pages[page] = bytes(view[done : done + count])
            else:
                content = bytearray(self._page(page))
                content[skip : skip + count] = view[done : done + count]
                self._pages[page] = bytes(content)
            done += count

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        first_whole, end_whole = -(-offset_bytes // _PAGE), end // _PAGE
        if first_whole > end_whole:
            self.pwrite(offset_bytes, bytes(length_bytes))
            return
        for page in range(first_whole, end_whole):
            self._pages[page] = None
        for start, stop in ((offset_bytes, first_whole * _PAGE), (end_whole * _PAGE, end)):
            if start < stop:
                self.pwrite(start, bytes(stop - start))

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        yield offset_bytes, length_bytes

    def sync(self, table: ZoneTable, changed: set[int]) -> None:
        """Nothing to do: an overlay ends with the process."""

    def close(self) -> None:
        """The base stays open; it belongs to whoever opened it."""


class Overlay(EmulatedDrive):
    """A copy-on-write view of ``base``: same geometry and zone rules, nothing is written through.

    Args:
        base: only read, also when it is writable. Zones that were reset in the overlay no
            longer show the base's content.
    """

    def __init__(self, base: Device, family: DriveFamily | None = None) -> None:
        rules = family or (base.machine.family if isinstance(base, EmulatedDrive) else None)
        super().__init__(base.path, base.geometry, base.zones(), _OverlayStore(base), writable=True, family=rules)


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
    keep: Callable[[int], bool] = lambda index: True,
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
