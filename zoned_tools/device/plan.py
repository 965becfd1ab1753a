"""Changes to devices as data: print them, journal them, apply them, verify them.

Format and repair decide everything first and hand a :class:`Plan` over. Its steps are
applied strictly in order; only :class:`Flush` makes earlier steps durable, so a plan
that has to survive a power cut says where its flushes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.errors import DeviceError

FILL_CHUNK_BYTES = 4 << 20
"""How much of a fill is in memory at a time."""


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

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """``(offset, data)`` of the writes to issue."""
        yield self.offset_bytes, self.data


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


Step: TypeAlias = Write | Fill | ManageZones | Flush


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

    def manage(self, device: int, operation: ZoneOperation, first_zone: int, count: int = 1, note: str = "") -> None:
        self.steps.append(ManageZones(device, operation, first_zone, count, note))

    def flush(self, device: int, note: str = "") -> None:
        self.steps.append(Flush(device, note))

    def describe(self, paths: Sequence[str]) -> Iterator[str]:
        """One line a step, for ``--dry-run``."""
        for step in self.steps:
            note = f"  # {step.note}" if step.note else ""
            yield f"{paths[step.device]}: {step.describe()}{note}"


def _apply_write(device: Device, step: Write | Fill) -> None:
    if isinstance(step, Fill) and step.pattern == 0 and not _touches_sequential(device, step):
        device.discard(step.offset_bytes, step.length_bytes)
        return
    for offset, data in step.chunks():
        device.write(offset, data)


def _touches_sequential(device: Device, step: Write | Fill) -> bool:
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
        case Write() | Fill():
            _apply_write(device, step)
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


def verify_plan(devices: Sequence[Device], plan: Plan) -> None:
    """Read every write of an applied plan back.

    Raises:
        DeviceError: the device does not return what the last write to a place stored there.
    """
    seen: list[tuple[int, int, int]] = []
    for step in reversed(plan.steps):
        if not isinstance(step, Write):
            if isinstance(step, ManageZones | Fill):
                return
            continue
        start, end = step.offset_bytes, step.offset_bytes + step.length_bytes
        overwritten = any(d == step.device and s < end and start < e for d, s, e in seen)
        seen.append((step.device, start, end))
        if not overwritten and devices[step.device].read(start, step.length_bytes) != step.data:
            raise DeviceError(f"what was written at byte {start} does not read back", device=devices[step.device].path)
