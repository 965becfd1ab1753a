"""A device on which nothing happens: what is done to it becomes the steps of a plan.

For work that is done by programs which only know how to do it (a mapper's commits, its reclaim): they run on such
devices, see what they did, and leave a plan that does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.base import Buffer, ClosesOnExit, Device, Geometry, ZoneOperation
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import Fill, Flush, ManageZones, Plan, Produce, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import ZoneTable


class PlannedDevice(ClosesOnExit):
    """A copy-on-write view of a device whose changes are noted in ``plan``, too.

    Args:
        device: only read.
        number: of the device in the plan.

    Attributes:
        note: what the next steps are for.
    """

    emulated = True
    writable = True

    def __init__(self, device: Device, plan: Plan, number: int) -> None:
        self._view = Overlay(device)
        self._plan = plan
        self._number = number
        self.note = ""

    @property
    def path(self) -> str:
        return self._view.path

    @property
    def geometry(self) -> Geometry:
        return self._view.geometry

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return self._view.read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._view.read_into(offset_bytes, buffer)

    def write(self, offset_bytes: int, data: Buffer) -> None:
        self._view.write(offset_bytes, data)
        self._plan.steps.append(Write(self._number, offset_bytes, bytes(data), self.note))

    def write_later(self, step: Produce) -> None:
        """Write what is made when the step runs; it must not read this view."""
        self._view.write_later(step)
        self._plan.steps.append(step)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._view.discard(offset_bytes, length_bytes)
        self._plan.steps.append(Fill(self._number, offset_bytes, length_bytes, 0, self.note))

    def zones(self, first_zone: int = 0, count: int | None = None) -> ZoneTable:
        return self._view.zones(first_zone, count)

    def manage(self, operation: ZoneOperation, first_zone: int, count: int = 1) -> None:
        """A zone behind those of the step before makes that one longer."""
        self._view.manage(operation, first_zone, count)
        steps = self._plan.steps
        last = steps[-1] if steps else None
        if (
            isinstance(last, ManageZones)
            and (last.device, last.operation, last.note) == (self._number, operation, self.note)
            and last.first_zone + last.count == first_zone
        ):
            steps.pop()
            first_zone, count = last.first_zone, last.count + count
        steps.append(ManageZones(self._number, operation, first_zone, count, self.note))

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]:
        return self._view.data_extents(offset_bytes, length_bytes)

    def flush(self) -> None:
        self._view.flush()
        self._plan.steps.append(Flush(self._number))

    def close(self) -> None:
        self._view.close()
