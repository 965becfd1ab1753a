"""Changes to devices as data: print them, journal them, apply them, verify them.

Format and repair decide everything first and hand a :class:`Plan` over. Its steps are
applied strictly in order; only :class:`Flush` makes earlier steps durable, so a plan
that has to survive a power cut says where its flushes are.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from zoned_tools.device.base import Device, KeepsZoneFlags, ZoneOperation
from zoned_tools.device.ranges import Ranges
from zoned_tools.device.runs import mask_runs
from zoned_tools.device.zones import is_sequential, takes_operation
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from zoned_tools.device.zones import ZoneTable

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

    Attributes:
        moves: a later step takes away what it is made from; it is read back at once, and not when all is done.
    """

    device: int
    offset_bytes: int
    length_bytes: int
    produce: Callable[[], bytes]
    note: str = ""
    moves: bool = False

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
class Stream:
    """Content that is written to a range as it comes, by whoever reads it: ``run`` does that.

    It cannot be read back, and an undo file takes whatever it finds there for what was written.
    """

    device: int
    offset_bytes: int
    length_bytes: int
    run: Callable[[], None]
    note: str = ""

    def describe(self) -> str:
        return f"write {self.length_bytes} bytes at {self.offset_bytes}"


@dataclass(frozen=True, slots=True)
class ManageZones:
    """Run a zone management command over ``count`` zones.

    A RESET of every zone of a drive is what drives call reset-all: it skips what cannot be
    reset. ``whole_drive`` says so where the plan is shown; :meth:`Plan.manage_all` sets it.
    """

    device: int
    operation: ZoneOperation
    first_zone: int
    count: int = 1
    note: str = ""
    whole_drive: bool = False

    def describe(self) -> str:
        if self.whole_drive:
            return f"{self.operation} every zone that is not conventional, empty, read-only or offline"
        last = self.first_zone + self.count - 1
        zones = f"zone {self.first_zone}" if self.count == 1 else f"zones {self.first_zone} to {last}"
        return f"{self.operation} {zones}"


@dataclass(frozen=True, slots=True)
class ZoneFlags:
    """Set the flags of a host-aware zone as they were; only an emulated drive can, others are left alone.

    Attributes:
        non_seq: non-sequential write resources are in use.
        reset: a reset is recommended.
    """

    device: int
    zone: int
    non_seq: bool = False
    reset: bool = False
    note: str = ""

    def describe(self) -> str:
        flags = [name for name, is_set in (("non_seq", self.non_seq), ("reset", self.reset)) if is_set]
        return f"flags of zone {self.zone}: {', '.join(flags) or 'none'}"


@dataclass(frozen=True, slots=True)
class Flush:
    """Make the steps before this one durable on device number ``device``."""

    device: int
    note: str = ""

    def describe(self) -> str:
        return "flush"


Step: TypeAlias = Write | Produce | Fill | Copy | Stream | ManageZones | ZoneFlags | Flush


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

    def manage_all(self, device: int, operation: ZoneOperation, table: ZoneTable, note: str = "") -> None:
        """Run a command over every zone of a drive that can take it; the others are skipped.

        RESET becomes the drive's own reset-all; for the others the steps name runs of zones.
        """
        runs = mask_runs(takes_operation(table, operation)).tolist()
        if operation is ZoneOperation.RESET and runs:
            self.steps.append(ManageZones(device, operation, 0, len(table), note, whole_drive=True))
            return
        for first, end in runs:
            self.manage(device, operation, first, end - first, note)

    def flush(self, device: int, note: str = "") -> None:
        self.steps.append(Flush(device, note))

    def describe(self, paths: Sequence[str]) -> Iterator[str]:
        """One line a step, for ``--dry-run``."""
        for step in self.steps:
            note = f"  # {step.note}" if step.note else ""
            yield f"{paths[step.device]}: {step.describe()}{note}"


def _apply_fill(device: Device, step: Fill) -> None:
    if step.pattern == 0 and not touches_sequential(device, step.offset_bytes, step.length_bytes):
        device.discard(step.offset_bytes, step.length_bytes)
        return
    for offset, data in step.chunks():
        device.write(offset, data)


def _apply_produced(device: Device, step: Produce) -> None:
    data = step.produce()
    device.write(step.offset_bytes, data)
    if step.moves and device.read(step.offset_bytes, len(data)) != data:
        raise _not_read_back(device, step.offset_bytes)


def _apply_flags(device: Device, step: ZoneFlags) -> None:
    if isinstance(device, KeepsZoneFlags):
        device.set_zone_flags(step.zone, non_seq=step.non_seq, reset=step.reset)


def touches_sequential(device: Device, offset_bytes: int, length_bytes: int) -> bool:
    """Whether any of a range that is not empty lies in a sequential zone."""
    geometry = device.geometry
    if not geometry.is_zoned:
        return False
    first = geometry.zone_of(offset_bytes)
    last = geometry.zone_of(offset_bytes + length_bytes - 1)
    zones = device.zones(first, last - first + 1)
    return bool((zones["type"] != 1).any())


def apply_step(devices: Sequence[Device], step: Step) -> None:
    """Run one step."""
    device = devices[step.device]
    match step:
        case Write():
            device.write(step.offset_bytes, step.data)
        case Produce():
            _apply_produced(device, step)
        case Fill():
            _apply_fill(device, step)
        case Copy():
            for offset, data in step.chunks(device):
                device.write(offset, data)
        case Stream():
            step.run()
        case ManageZones():
            device.manage(step.operation, step.first_zone, step.count)
        case ZoneFlags():
            _apply_flags(device, step)
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


def _unchanged(later: Ranges, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of the parts of a range that nothing changed later, in pieces of bounded length."""
    for first, last in later.gaps(start, end):
        for at in range(first, last, FILL_CHUNK_BYTES):
            yield at, min(at + FILL_CHUNK_BYTES, last)


def _not_read_back(device: Device, offset_bytes: int) -> DeviceError:
    return DeviceError(f"what was written at byte {offset_bytes} does not read back", device=device.path)


def verify_plan(devices: Sequence[Device], plan: Plan) -> None:
    """Read back what an applied plan wrote, as far as no later step of it wrote there again.

    Raises:
        DeviceError: the device does not return what the last write to a place stored there.
    """
    changed: defaultdict[int, Ranges] = defaultdict(Ranges)
    reader = _Reader()
    for step in reversed(plan.steps):
        device, later = devices[step.device], changed[step.device]
        match step:
            case Stream() | Produce(moves=True):
                later.add(step.offset_bytes, step.offset_bytes + step.length_bytes)
            case Write() | Produce() | Fill() | Copy():
                if isinstance(step, Produce):
                    step = Write(step.device, step.offset_bytes, step.produce())  # noqa: PLW2901 -- made once
                end = step.offset_bytes + step.length_bytes
                for start, stop in _unchanged(later, step.offset_bytes, end):
                    _verify_range(reader, device, step, start, stop, later)
                later.add(step.offset_bytes, end)
            case ManageZones(operation=ZoneOperation.RESET):
                for offset, stop in _reset_ranges(device, step):
                    later.add(offset, stop)
            case ManageZones() | ZoneFlags() | Flush():
                pass


def _reset_ranges(device: Device, step: ManageZones) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of what a reset takes away; one of the whole drive leaves conventional zones alone."""
    if step.count < device.geometry.nr_zones:
        offset, length = device.geometry.zone_range_bytes(step.first_zone, step.count)
        yield offset, offset + length
        return
    for first, end in mask_runs(is_sequential(device.zones())).tolist():
        offset, length = device.geometry.zone_range_bytes(first, end - first)
        yield offset, offset + length


class _Reader:
    """Compares what a device returns, in buffers that are used again; nothing is copied."""

    def __init__(self) -> None:
        self._first = bytearray(FILL_CHUNK_BYTES)
        self._second = bytearray(0)
        self._pattern = (0, bytes(FILL_CHUNK_BYTES))

    def equals(self, device: Device, offset_bytes: int, wanted: memoryview) -> bool:
        """Whether a device holds ``wanted``, at most a chunk, at an offset."""
        device.read_into(offset_bytes, memoryview(self._first)[: len(wanted)])
        return self._first.startswith(wanted)

    def holds_pattern(self, device: Device, start: int, end: int, pattern: int, skip: int) -> bool:
        """Whether a range of at most a chunk repeats a two-byte pattern, beginning with its byte ``skip``."""
        if self._pattern[0] != pattern:
            self._pattern = (pattern, pattern.to_bytes(2, "little") * (FILL_CHUNK_BYTES // 2 + 1))
        return self.equals(device, start, memoryview(self._pattern[1])[skip : skip + end - start])

    def same(self, device: Device, start: int, other: int, length_bytes: int) -> bool:
        """Whether two ranges of at most a chunk are equal."""
        self._second = self._second or bytearray(FILL_CHUNK_BYTES)
        source = memoryview(self._second)[:length_bytes]
        device.read_into(other, source)
        return self.equals(device, start, source)


def _verify_range(
    reader: _Reader, device: Device, step: Write | Fill | Copy, start: int, end: int, later: Ranges
) -> None:
    """Compare one piece of what a step wrote; ``later`` is what changed after the step."""
    match step:
        case Write():
            wanted = memoryview(step.data)[start - step.offset_bytes : end - step.offset_bytes]
            good = reader.equals(device, start, wanted)
        case Fill(pattern=0):
            extents = device.data_extents(start, end - start)
            good = all(reader.holds_pattern(device, at, at + length, 0, 0) for at, length in extents)
        case Fill():
            good = reader.holds_pattern(device, start, end, step.pattern, (start - step.offset_bytes) % 2)
        case Copy():
            moved = step.offset_bytes - step.source_bytes
            good = all(
                reader.same(device, at + moved, at, stop - at)
                for at, stop in _unchanged(later, start - moved, end - moved)
            )
    if not good:
        raise _not_read_back(device, start)
