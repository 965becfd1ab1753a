"""What a layout is to the floors above: one declared object, and the protocols of its rooms.

Rooms are typed functions. A layout's package declares them once, in its ``__init__``, as small functions
that import the room when they are called; so mypy checks every room against its protocol, a command loads
only the rooms that it needs, and "go to definition" leads from a command into the layout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.shared.derived import DerivedZones, ZoneWishes
from zoned_tools.formats.shared.findings import Findings, Severity, Verdict
from zoned_tools.formats.shared.logical import (
    LOGICAL_BLOCK_BYTES,
    CopiesItself,
    CountsZones,
    Imported,
    Importer,
    ImportOptions,
    MapExtent,
    Mapper,
    ReadsInto,
    Reclaims,
    Warns,
)
from zoned_tools.formats.shared.rules import ActionGroup, Consent, Rule, Rules
from zoned_tools.formats.shared.settings import Journey, Setting, Settings, parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Buffer, Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.shared.copies import CopyDifference
    from zoned_tools.formats.shared.orphans import Orphan
    from zoned_tools.formats.shared.scanning import Scanner
    from zoned_tools.formats.shared.views import CopyExtent, DeviceView

__all__ = [
    "LOGICAL_BLOCK_BYTES",
    "CheckOptions",
    "Consent",
    "Consents",
    "CopiesItself",
    "CountsZones",
    "DerivedZones",
    "Evidence",
    "Figure",
    "Identity",
    "ImportOptions",
    "Imported",
    "Importer",
    "Journey",
    "Layout",
    "MapExtent",
    "Mapper",
    "NothingToCheckError",
    "Piece",
    "Probed",
    "ReadsInto",
    "Reclaims",
    "RepairPlan",
    "Rule",
    "Rules",
    "Setting",
    "Settings",
    "Severity",
    "TableLine",
    "Target",
    "Verdict",
    "Warns",
    "ZoneRole",
    "ZoneWishes",
]

# -- what is where


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
class Probed:
    """A device and what a probe found on it (None: nothing known)."""

    device: Device
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class Target:
    """The devices, in order, that carry one instance of a layout.

    ``start_bytes`` is where the layout begins on every device (a partition of a
    whole-drive image); 0 for most. ``settings`` are a user's choices about which metadata are shown, those of
    :attr:`Journey.READ`, for the rooms ``inspect`` and ``dump``.

    ``derived`` is not empty for raw copies of zoned drives: the zone table that was derived for each of the devices,
    None for one that has its own or needs none.
    """

    layout: str
    devices: tuple[Device, ...]
    start_bytes: int = 0
    settings: Settings = field(default_factory=Settings, compare=False)
    derived: tuple[DerivedZones | None, ...] = ()

    @property
    def device(self) -> Device:
        """The first (mostly only) device."""
        return self.devices[0]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(d.path for d in self.devices)


# -- check and repair


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How to check. ``deep`` also reads payload data where the layout has any to verify;
    ``settings`` are a layout's own choices."""

    deep: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(slots=True)
class Evidence:
    """Everything that a check of one target found; a layout's own class carries its survey too.

    Attributes:
        facts: figures worth printing beside the findings (chosen set, mapped chunks...); nothing
            that the program goes by.
    """

    target: Target
    findings: Findings = field(default_factory=Findings)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def has_errors(self) -> bool:
        return self.findings.has_errors

    @property
    def verdict(self) -> Verdict:
        return Verdict.ERRORS if self.has_errors else Verdict.CLEAN


class NothingToCheckError(MetadataError):
    """No metadata is sound enough for a check to go on; ``evidence`` has what was found until then."""

    def __init__(self, message: str, evidence: Evidence, *, hint: str = "") -> None:
        super().__init__(message, device=evidence.target.device.path, hint=hint)
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Consents:
    """What a user agreed to.

    Attributes:
        allow: codes (without the layout's name) whose guessing or losing actions are agreed to.
        settings: a layout's own choices.
    """

    allow: frozenset[str] = frozenset()
    settings: Settings = field(default_factory=Settings)


@dataclass(slots=True)
class RepairPlan:
    """What a repair does, in words and in steps.

    Attributes:
        plan: the changes of the devices, in order; empty when nothing is to be done, or everything waits.
        actions: why, and what waits for consent; from the layout's rules.
    """

    plan: Plan
    actions: list[ActionGroup] = field(default_factory=list)

    def add(self, action: ActionGroup) -> ActionGroup:
        """Note an action; an empty group is left out."""
        if len(action):
            self.actions.append(action)
        return action

    @property
    def waiting(self) -> list[ActionGroup]:
        return [action for action in self.actions if action.waits]


# -- the rooms


Piece: TypeAlias = "tuple[int, Buffer | None]"
"""``(length in bytes, data)``; None is a hole. Pieces follow each other without gaps."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """A ``dmsetup`` table line, and what to tell with it (empty when activation is harmless)."""

    line: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a target for monitoring (``zoned metrics``).

    Attributes:
        name: behind the layout's (``free_zones`` is ``zoned_dm_zoned_free_zones``).
        help: what it counts, one sentence.
        labels: never a zone's or a chunk's number, which would be too many series; the device is added.
    """

    name: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class ZoneRole:
    """What a layout uses a zone for, and how that is drawn.

    Attributes:
        letter: one character of a terminal's map.
        colour: ``#rrggbb``.
    """

    name: str
    letter: str
    colour: str


E = TypeVar("E", bound=Evidence)


class ProbeRoom(Protocol):
    def __call__(self, device: Device, start_bytes: int) -> Identity | None: ...


class InspectRoom(Protocol):
    def __call__(self, target: Target) -> dict[str, object]: ...


class MapperRoom(Protocol):
    def __call__(self, target: Target, *, writable: bool, settings: Settings) -> Mapper: ...


class ImporterRoom(Protocol):
    def __call__(self, target: Target, options: ImportOptions) -> Importer: ...


class TableRoom(Protocol):
    def __call__(self, target: Target, settings: Settings) -> TableLine: ...


class DumpRoom(Protocol):
    def __call__(self, target: Target) -> dict[str, object]: ...


class RestoreRoom(Protocol):
    def __call__(self, target: Target, document: Mapping[str, object]) -> Plan: ...


class RolesRoom(Protocol):
    def __call__(self, target: Target) -> Mapping[str, IntArray]:
        """Zone numbers of each declared role."""
        ...


class MetadataRoom(Protocol):
    def __call__(self, target: Target) -> Iterator[tuple[int, int, int]]:
        """``(device, first byte, bytes)`` of everything that is no payload; may be more than is written."""
        ...


class FiguresRoom(Protocol):
    def __call__(self, target: Target) -> Iterator[Figure]: ...


class ViewsRoom(Protocol):
    def __call__(self, target: Target, settings: Settings) -> Sequence[DeviceView]: ...


class CopiesRoom(Protocol):
    def __call__(
        self, target: Target, settings: Settings, ranges: Sequence[tuple[int, int]] | None
    ) -> Iterator[CopyExtent]:
        """Every copy of ``(first block, blocks)`` ranges of the logical space; None for all that is there."""
        ...


class OwnersRoom(Protocol):
    def __call__(self, target: Target, settings: Settings, zone: int) -> Sequence[Mapping[str, object]]:
        """Who owns a zone, one row for each device that has it."""
        ...


class OrphansRoom(Protocol):
    def __call__(self, target: Target, settings: Settings) -> Iterator[Orphan]: ...


class FormatRoom(Protocol):
    def __call__(self, target: Target, settings: Settings) -> Plan: ...


class OrderRoom(Protocol):
    def __call__(self, members: Sequence[Probed]) -> Sequence[Probed]: ...


class ClaimRoom(Protocol):
    def __call__(self, probed: Sequence[Probed]) -> bool: ...


class DeriveRoom(Protocol):
    def __call__(self, target: Target, wishes: ZoneWishes) -> Sequence[DerivedZones | None]:
        """The zone table of each regular device that is a raw copy of a zoned drive, None for the others.

        Raises:
            ZonedError: there is one, and its zones cannot be told, or are not what the user wishes.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Generic[E]):
    """One layout, declared. Rooms that a layout does not have are None.

    Attributes:
        name: as users write it; finding ids and schema names begin with it.
        summary: what it is, one phrase.
        rules: the table of its findings; importing it must load neither numpy nor construct.
        settings: its own choices.
        probe: what is on a device.
        check, plan_repair: evidence, and what to do about it.
        inspect: decoded metadata as a tree.
        open_mapper: the logical device of 4096-byte blocks.
        open_importer: fills the logical device with raw content, sequentially.
        open_views: the devices as they are exported and served, where the logical space is no device.
        map_copies, map_zone: where addresses of such a logical space live, and whose a zone is.
        table_line: the ``dmsetup`` line.
        dump, restore: the metadata as a document, and back.
        zone_roles: which zones serve which of ``roles``.
        metadata: where they are.
        scanner: finds metadata of a device that nothing points to.
        figures: values for monitoring.
        orphans: zones with valid data that no readable metadata name.
        diff_copies: where two copies of the metadata give different data.
        plan_format: a new, empty instance; its settings are those of :attr:`Journey.FORMAT`.
        order_members: members of one target in their order.
        claims: whether all the named devices are one target although probing does not say so
            (members with damaged super blocks).
        find_starts: first bytes of what looks like one although no partition table points there; asked of drives on
            which nothing else is recognised.
        derive_zones: the zone tables of raw copies, in a target of which a device is regular.
        measured: codes of findings that compare with write pointers and conditions; they say nothing about derived
            ones.
        reads_raw: its rooms find the zones of a raw copy by themselves, and get it as it is.
        roles: what zones are used for, in the order of a legend.
        private_keys: keys of the dump that name people or machines.
        whole_drive: the layout counts in zones of the whole drive even when it begins at a
            partition; it is handed the drive and the start, others a view of the partition.
    """

    name: str
    summary: str
    probe: ProbeRoom
    rules: Callable[[], Rules]
    check: Callable[[Target, CheckOptions], E]
    plan_repair: Callable[[E, Consents], RepairPlan]
    inspect: InspectRoom
    settings: tuple[Setting, ...] = ()
    open_mapper: MapperRoom | None = None
    open_importer: ImporterRoom | None = None
    open_views: ViewsRoom | None = None
    map_copies: CopiesRoom | None = None
    map_zone: OwnersRoom | None = None
    table_line: TableRoom | None = None
    dump: DumpRoom | None = None
    restore: RestoreRoom | None = None
    zone_roles: RolesRoom | None = None
    metadata: MetadataRoom | None = None
    scanner: Callable[[Device], Scanner] | None = None
    figures: FiguresRoom | None = None
    orphans: OrphansRoom | None = None
    diff_copies: Callable[[Target], list[CopyDifference]] | None = None
    plan_format: FormatRoom | None = None
    order_members: OrderRoom | None = None
    claims: ClaimRoom | None = None
    find_starts: Callable[[Device], Sequence[int]] | None = None
    derive_zones: DeriveRoom | None = None
    measured: frozenset[str] = frozenset()
    reads_raw: bool = False
    roles: tuple[ZoneRole, ...] = ()
    private_keys: frozenset[str] = frozenset()
    whole_drive: bool = False

    def parse_settings(self, given: Mapping[str, str], *journeys: Journey) -> Settings:
        """What a user gave, checked against the declarations.

        Raises:
            UsageError: an unknown setting, or an impossible value.
        """
        return parse_settings(self.name, self.settings, given, *journeys)

    def settings_of(self, given: Settings, journey: Journey) -> Settings:
        """Those of parsed settings that a journey takes."""
        names = {setting.name for setting in self.settings if journey in setting.journeys}
        return Settings({name: value for name, value in given.items() if name in names}, self.settings)


AnyLayout: TypeAlias = "Layout[Any]"

R = TypeVar("R")


def need(room: R | None, target: Target, doing: str) -> R:
    """A room that a layout may lack.

    Raises:
        UsageError: it does; ``doing`` says what for (``inspect``, ``start with device-mapper``).
    """
    if room is None:
        raise UsageError(f"{target.layout} has nothing to {doing}", device=target.device.path)
    return room
