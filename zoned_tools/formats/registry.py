"""Which layouts exist, and the contract of the rooms in their packages.

A layout is a package of modules with fixed names; a command loads only the room it
needs. Modules are checked against the protocols below by mypy (a module can implement
a protocol) and by a test.

| room      | provides                                                        |
|-----------|-----------------------------------------------------------------|
| `layout`  | construct structs, constants, geometry arithmetic; no I/O       |
| `probe`   | `probe(device, start_bytes)`                                    |
| `inspect` | `inspect(target)`                                               |
| `format`  | mkfs (its own signature)                                        |
| `check`   | `CODES`, `check(target, options)`                               |
| `repair`  | `plan_repair(target, report, options)`                          |
| `mapper`  | `open_mapper(target, writable=..., options=...)`                |
| `table`   | `ACTIVATION_WARNING`, `table_line(target, options)`             |
| `dump`    | `dump(target)`, `restore(target, document)`                     |
| `roles`   | `zone_roles(target)`: class of the diagram to zone numbers      |
| `export`  | `export(target)`, where the logical device is not what to export |
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, runtime_checkable

from zoned_tools.device.base import Buffer, Device
from zoned_tools.device.plan import Plan
from zoned_tools.errors import UsageError
from zoned_tools.findings import CheckReport, Severity

LAYOUTS: dict[str, str] = {
    "dm-zoned": "zoned_tools.formats.dm_zoned",
    "zdm": "zoned_tools.formats.zdm",
    "zonefs": "zoned_tools.formats.zonefs",
    "btrfs": "zoned_tools.formats.btrfs",
    "inplace-compress": "zoned_tools.formats.inplace_compress",
}
"""Layout name to package; also the order in which devices are probed."""

TABLE_SWITCHES = frozenset({"writethrough", "writethough", "critical"})
"""Words of table lines that stand without a value (dm-inplace-compress, with its own misspelling)."""

LOGICAL_BLOCK_BYTES = 4096
"""Block of every mapper: reads, writes and lookups are in these units."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a probe learnt about one device.

    Attributes:
        layout: layout name.
        version: version of the layout as text.
        uuid: canonical text, empty if the layout has none.
        label: volume label, empty if none.
        start_bytes: where the layout begins on the device.
        group: non-empty for a member of a multi-device target: members with the same
            group are one target.
        position: first 4096-byte block of the device in its group's address space, which
            puts members in order whatever order they were named in.
        members: how many devices the group needs, 0 when the device does not know.
    """

    layout: str
    version: str = ""
    uuid: str = ""
    label: str = ""
    start_bytes: int = 0
    group: str = ""
    position: int = 0
    members: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """The devices, in order, that carry one instance of a layout.

    ``start_bytes`` is where the layout begins on every device (a partition of a
    whole-drive image); 0 for most.
    """

    layout: str
    devices: tuple[Device, ...]
    start_bytes: int = 0

    @property
    def device(self) -> Device:
        """The first (mostly only) device."""
        return self.devices[0]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(d.path for d in self.devices)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How to check. ``deep`` also reads payload data where the layout has any to verify;
    ``settings`` are a layout's own ``key -> value`` choices."""

    deep: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """User's choices for a repair.

    Attributes:
        use_set: metadata set that the user trusts (``--use-set``), None to decide by the rules.
        allow: finding codes whose repair loses or guesses data and that the user agreed to.
        settings: a layout's own ``key -> value`` choices.
    """

    use_set: int | None = None
    allow: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapExtent:
    """A run of logical blocks that live together (``zoned.map/1``).

    ``physical_block`` is in 4096-byte blocks of device number ``device_index``; None when
    nothing is stored. ``blocks`` is the length of both runs for mappers that move whole
    blocks. ``why`` says how the place was found (``chunk 3, zone 17 (buffer zone 5)``).
    """

    logical_block: int
    blocks: int
    device_index: int
    physical_block: int | None
    why: str


class Mapper(Protocol):
    """Offline model of a kernel driver: a logical device of 4096-byte blocks.

    Blocks that were never written or were discarded read as zeroes. Writes are durable
    after :meth:`flush` as the driver's own contract says.
    """

    @property
    def size_blocks(self) -> int: ...

    @property
    def writable(self) -> bool: ...

    def read(self, block: int, count: int) -> bytes: ...

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        """Write whole blocks; ``stream`` is a placement hint that most layouts ignore."""
        ...

    def discard(self, block: int, count: int) -> None: ...

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where the blocks live: ascending, without gaps, holes included."""
        ...

    def flush(self) -> None: ...

    def close(self) -> None:
        """Clean close: flush and write whatever a clean stop of the driver writes."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """A mapper that can read into a caller's buffer, which saves a copy."""

    def read_into(self, block: int, buffer: memoryview) -> None: ...


@runtime_checkable
class CopiesItself(Protocol):
    """A mapper whose content costs so much to decode that several processes pay."""

    def copy_to(
        self, path: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
    ) -> tuple[int, list[tuple[int, int, str]]] | None:
        """Write the whole content to an existing, empty file, holes left out.

        Args:
            processes: 0 for one on each core.
            progress: told the bytes done, holes included.

        Returns:
            The bytes stored, and ``(offset, length, reason)`` of what could not be read; None
            when more than one process would not pay or cannot be had.
        """
        ...


@runtime_checkable
class Reclaims(Protocol):
    """A mapper whose driver frees zones while it is idle."""

    def reclaim(self) -> int:
        """Do what the idle driver does; returns how many steps that took."""
        ...


@runtime_checkable
class CountsZones(Protocol):
    """A mapper that knows how many zones of each kind are free."""

    def free_zones(self) -> Mapping[str, int]: ...


@runtime_checkable
class Warns(Protocol):
    """A mapper that has something to say about how it read the metadata."""

    @property
    def warnings(self) -> Sequence[str]: ...


class ProbeRoom(Protocol):
    def probe(self, device: Device, start_bytes: int) -> Identity | None: ...


class InspectRoom(Protocol):
    def inspect(self, target: Target) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Code:
    """A finding that a layout's check can report; ``zoned explain`` prints it.

    Attributes:
        severity: the specification's severity.
        meaning: what is wrong, one sentence.
        causes: what can have led to it.
        repair: what repair does about it; empty when nothing.
    """

    severity: Severity
    meaning: str
    causes: str = ""
    repair: str = ""


class CheckRoom(Protocol):
    CODES: Mapping[str, Code]

    def check(self, target: Target, options: CheckOptions) -> CheckReport: ...


class RepairRoom(Protocol):
    def plan_repair(self, target: Target, report: CheckReport, options: RepairOptions) -> Plan: ...


class MapperRoom(Protocol):
    def open_mapper(self, target: Target, *, writable: bool, options: Mapping[str, str]) -> Mapper: ...


class TableRoom(Protocol):
    ACTIVATION_WARNING: str
    """What to tell with every line, empty when activation is harmless."""

    def table_line(self, target: Target, options: Mapping[str, str]) -> str: ...


class DumpRoom(Protocol):
    def dump(self, target: Target) -> dict[str, object]: ...

    def restore(self, target: Target, document: Mapping[str, object]) -> Plan: ...


def require_known(options: Mapping[str, str], names: Collection[str]) -> None:
    """Refuse a layout's option that is not one of ``names``.

    Raises:
        UsageError: there is one.
    """
    for key in options:
        if key not in names:
            raise UsageError(f"there is no setting '{key}'", hint=", ".join(names))


def room(layout: str, name: str) -> ModuleType | None:
    """The module ``name`` of a layout's package, None when the layout has no such room."""
    qualified = f"{LAYOUTS[layout]}.{name}"
    if importlib.util.find_spec(LAYOUTS[layout]) is None or importlib.util.find_spec(qualified) is None:
        return None
    return importlib.import_module(qualified)
