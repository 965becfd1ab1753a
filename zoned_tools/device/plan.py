"""Changes to devices as data: print them, journal them, apply them, verify them.

Format and repair decide everything first and hand a :class:`Plan` over. Its steps are
applied strictly in order; only :class:`Flush` makes earlier steps durable, so a plan
that has to survive a power cut says where its flushes are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.errors import DeviceError

FILL_CHUNK_BYTES = 4 << 20
"""How much of a fill or a copy is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write ``data`` at a byte offset of device number ``device``."""

    device: int
    offset_bytes: int
    data: bytes
    note: str = ""

    @property
    def length_bytes(self) -> int:
        return len(self.data)

    def describe(self) -> str:
        return f"write {self.length_bytes} bytes at {self.offset_bytes}"


@dataclass(frozen=True, slots=True)
class Produce:
    """A :class:`Write` whose data are made when they are needed, for plans that change more than fits in memory.

    ``produce`` gives the same ``length_bytes`` bytes before, while and after the plan is carried out, so
    it reads nothing that an earlier step of the plan changes in a way that matters.
    """

    device: int
    offset_bytes: int
    length_bytes: int
    produce: Callable[[], bytes]
    note: str = ""

    def describe(self) -> str:
        return f"write {self.length_bytes} bytes at {self.offset_bytes}"


@dataclass(frozen=True, slots=True)
class Fill:
    """Write a two-byte pattern (low byte first) over a range; for tables of a whole zone and more.

    A range of zeroes in conventional zones or on a regular device is discarded instead,
    which leaves images sparse.
    """

    device: int
    offset_bytes: int
    length_bytes: int
    pattern: int
    note: str = ""

    def describe(self) -> str:
        return f"fill {self.length_bytes} bytes at {self.offset_bytes} with {self.pattern:#06x}"

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """``(offset, data)`` of the writes to issue."""
        block = self.pattern.to_bytes(2, "little") * (FILL_CHUNK_BYTES // 2)
        for done in range(0, self.length_bytes, FILL_CHUNK_BYTES):
            yield self.offset_bytes + done, block[: self.length_bytes - done]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy a range of device number ``device`` to another place on it, however long it is.

    The two ranges do not overlap, and no earlier step of the plan changes the source.
    """

    device: int
    source_bytes: int
    offset_bytes: int
    length_bytes: int
    note: str = ""

    def describe(self) -> str:
        return f"copy {self.length_bytes} bytes from {self.source_bytes} to {self.offset_bytes}"

    def chunks(self, device: Device) -> Iterator[tuple[int, bytes]]:
        """``(offset, data)`` of the writes to issue."""
        for done in range(0, self.length_bytes, FILL_CHUNK_BYTES):
            count = min(FILL_CHUNK_BYTES, self.length_bytes - done)
            yield self.offset_bytes + done, device.read(self.source_bytes + done, count)


@dataclass(frozen=True, slots=True)
class ManageZones:
    """Run a zone management command over ``count`` zones."""

    device: int
    operation: ZoneOperation
    first_zone: int
    count: int = 1
    note: str = ""

    def describe(self) -> str:
        last = self.first_zone + self.count - 1
        zones = f"zone {self.first_zone}" if self.count == 1 else f"zones {self.first_zone} to {last}"
        return f"{self.operation} {zones}"


@dataclass(frozen=True, slots=True)
class Flush:
    """Make the steps before this one durable on device number ``device``."""

    device: int
    note: str = ""

    def describe(self) -> str:
        return "flush"


Step: TypeAlias = Write | Produce | Fill | Copy | ManageZones | Flush


@dataclass(slots=True)
class Plan:
    """An ordered list of changes, and what they mean.

    Attributes:
        title: one line (``repair dm-zoned metadata``).
        steps: the changes, in order.
        messages: what a human should know before agreeing (lost ranges, choices made).
    """

    title: str
    steps: list[Step] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps)

    def write(self, device: int, offset_bytes: int, data: bytes, note: str = "") -> None:
        self.steps.append(Write(device, offset_bytes, data, note))

    def fill(self, device: int, offset_bytes: int, length_bytes: int, pattern: int, note: str = "") -> None:
        if length_bytes:
            self.steps.append(Fill(device, offset_bytes, length_bytes, pattern, note))

    def copy(self, device: int, source_bytes: int, offset_bytes: int, length_bytes: int, note: str = "") -> None:
        if length_bytes:
            self.steps.append(Copy(device, source_bytes, offset_bytes, length_bytes, note))

    def manage(self, device: int, operation: ZoneOperation, first_zone: int, count: int = 1, note: str = "") -> None:
        self.steps.append(ManageZones(device, operation, first_zone, count, note))

    def flush(self, device: int, note: str = "") -> None:
        self.steps.append(Flush(device, note))

    def describe(self, paths: Sequence[str]) -> Iterator[str]:
        """One line a step, for ``--dry-run``."""
        for step in self.steps:
            note = f"  # {step.note}" if step.note else ""
            yield f"{paths[step.device]}: {step.describe()}{note}"


def _apply_fill(device: Device, step: Fill) -> None:
    if step.pattern == 0 and not _touches_sequential(device, step):
        device.discard(step.offset_bytes, step.length_bytes)
        return
    for offset, data in step.chunks():
        device.write(offset, data)


def _touches_sequential(device: Device, step: Fill) -> bool:
    geometry = device.geometry
    if not geometry.is_zoned:
        return False
    first = geometry.zone_of(step.offset_bytes)
    last = geometry.zone_of(step.offset_bytes + step.length_bytes - 1)
    zones = device.zones(first, last - first + 1)
    return bool((zones["type"] != 1).any())


def apply_step(devices: Sequence[Device], step: Step) -> None:
    """Run one step."""
    device = devices[step.device]
    match step:
        case Write():
            device.write(step.offset_bytes, step.data)
        case Produce():
            device.write(step.offset_bytes, step.produce())
        case Fill():
            _apply_fill(device, step)
        case Copy():
            for offset, data in step.chunks(device):
                device.write(offset, data)
        case ManageZones():
            device.manage(step.operation, step.first_zone, step.count)
        case Flush():
            device.flush()


def apply_plan(
    devices: Sequence[Device], steps: Iterable[Step], progress: Callable[[Step], None] | None = None
) -> None:
    """Run ``steps`` in order; ``progress`` is told each step before it runs."""
    for step in steps:
        if progress is not None:
            progress(step)
        apply_step(devices, step)


class _Ranges:
    """A set of byte ranges, kept sorted and disjoint."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """``(start, end)`` of the parts of a range that are not in the set, in pieces of bounded length."""
        at = start
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            yield from _pieces(at, self._starts[index])
            at = self._ends[index]
        yield from _pieces(at, end)


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, FILL_CHUNK_BYTES):
        yield at, min(at + FILL_CHUNK_BYTES, end)


def verify_plan(devices: Sequence[Device], plan: Plan) -> None:
    """Read back what an applied plan wrote, as far as no later step of it wrote there again.

    Raises:
        DeviceError: the device does not return what the last write to a place stored there.
    """
    changed: defaultdict[int, _Ranges] = defaultdict(_Ranges)
    for step in reversed(plan.steps):
        device, later = devices[step.device], changed[step.device]
        match step:
            case Write() | Produce() | Fill() | Copy():
                end = step.offset_bytes + step.length_bytes
                for start, stop in later.gaps(step.offset_bytes, end):
                    _verify_range(device, step, start, stop, later)
                later.add(step.offset_bytes, end)
            case ManageZones(operation=ZoneOperation.RESET):
                offset, length = device.geometry.zone_range_bytes(step.first_zone, step.count)
                later.add(offset, offset + length)
            case ManageZones() | Flush():
                pass


def _verify_range(device: Device, step: Write | Produce | Fill | Copy, start: int, end: int, later: _Ranges) -> None:
    """Compare one piece of what a step wrote; ``later`` is what changed after the step."""
    match step:
        case Write():
            good = device.read(start, end - start) == step.data[start - step.offset_bytes : end - step.offset_bytes]
        case Produce():
            part = slice(start - step.offset_bytes, end - step.offset_bytes)
            good = device.read(start, end - start) == step.produce()[part]
        case Fill(pattern=0):
            good = not any(any(device.read(*extent)) for extent in device.data_extents(start, end - start))
        case Fill():
            wanted = step.pattern.to_bytes(2, "little") * ((end - start) // 2 + 1)
            skip = (start - step.offset_bytes) % 2
            good = device.read(start, end - start) == wanted[skip : skip + end - start]
        case Copy():
            moved = step.offset_bytes - step.source_bytes
            good = all(
                device.read(at, stop - at) == device.read(at + moved, stop - at)
                for at, stop in later.gaps(start - moved, end - moved)
            )
    if not good:
        raise DeviceError(f"what was written at byte {start} does not read back", device=device.path)
