"""From the paths that a user named to targets: which layout is on which device, and which devices belong together.

A device is probed once, and its partition table is read once.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.engine.raw_copies import NO_WISHES, ready_to_read, refuse_derived, with_derived
from zoned_tools.errors import MetadataError, UsageError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import AnyLayout, Identity, Probed, Target, ZoneWishes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device

SECTOR_BYTES = 512
_FIRST_BYTES = 4096


class Failure(NamedTuple):
    """What is wrong with some of the devices; ``layout`` where one was recognised."""

    paths: tuple[str, ...]
    error: ZonedError
    layout: str = ""


@dataclass(slots=True)
class Opened:
    """What was found on the devices of one command line.

    Attributes:
        targets: in the order of their first device.
        unknown: devices on which nothing is recognised.
        probed: every device that was opened and what a probe found on it, in the order given.
        failed: devices that could not be opened or probed, and targets that their layout cannot put together.
    """

    targets: list[Target] = field(default_factory=list)
    unknown: list[Device] = field(default_factory=list)
    probed: list[Probed] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)

    def in_order(self, paths: Sequence[str]) -> list[Target | Failure]:
        """Targets, and what is wrong with the devices that are none, in the order of a command line."""
        place = {path: number for number, path in reversed(list(enumerate(paths)))}
        found: list[tuple[int, Target | Failure]]
        found = [(min(place[path] for path in failure.paths), failure) for failure in self.failed]
        found += [(place[device.path], Failure((device.path,), unrecognised(device))) for device in self.unknown]
        found += [(min(place[path] for path in target.paths), target) for target in self.targets]
        return [thing for _, thing in sorted(found, key=lambda row: row[0])]


def unrecognised(device: Device) -> MetadataError:
    """That no layout is on a device; what is there instead, where that is known."""
    from zoned_tools.device.badareas import salvage_into
    from zoned_tools.device.identity import why_not_zoned
    from zoned_tools.device.signatures import recognise

    found = recognise(device)
    if found is None:
        unread = salvage_into(device, 0, memoryview(bytearray(min(_FIRST_BYTES, device.geometry.size_bytes))))
        why = ", its first block cannot be read" if len(unread) else ""
        hint = why_not_zoned(device.path) or "--layout NAME forces one"
        return MetadataError(f"no layout is recognised{why}", device=device.path, hint=hint)
    advice = found.advice.format(path=shlex.quote(device.path))
    return MetadataError(f"{found.what}, and no layout of zoned drives", device=device.path, hint=advice)


class _Drive:
    """A device while it is probed: its partitions are looked up at most once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._partitions: dict[int, int] | None = None

    @property
    def partitions(self) -> Mapping[int, int]:
        """First byte of each partition to its end."""
        if self._partitions is None:
            from zoned_tools.device.partition import partitions  # construct

            self._partitions = dict(partitions(self.device))
        return self._partitions

    def view(self, layout: AnyLayout, start_bytes: int) -> tuple[Device, int]:
        """The device and start to hand to a layout's rooms."""
        if start_bytes == 0 or layout.whole_drive:
            return self.device, start_bytes
        from zoned_tools.device.partition import PartitionView

        return PartitionView(self.device, start_bytes, self.partitions.get(start_bytes)), 0

    def probe(self, start_sector: int | None, layouts: Iterable[AnyLayout]) -> Probed:
        """Look for the layouts at ``start_sector``, or at 0, where a partition table points, and where they hide."""
        starts = [start_sector * SECTOR_BYTES] if start_sector is not None else [0, *self.partitions]
        candidates = list(layouts)
        for start in starts:
            for layout in candidates:
                if not self._can_begin(layout, start):
                    continue
                identity = layout.probe(*self.view(layout, start))
                if identity is not None:
                    return Probed(self.device, replace(identity, start_bytes=start))
        return self._probe_hidden(candidates) if start_sector is None else Probed(self.device, None)

    def _probe_hidden(self, layouts: Iterable[AnyLayout]) -> Probed:
        """Look where layouts say that one of theirs may begin without a partition table."""
        for layout in layouts:
            for start in layout.find_starts(self.device) if layout.find_starts is not None else ():
                identity = layout.probe(*self.view(layout, start))
                if identity is not None:
                    return Probed(self.device, replace(identity, start_bytes=start))
        return Probed(self.device, None)

    def _can_begin(self, layout: AnyLayout, start_bytes: int) -> bool:
        geometry = self.device.geometry
        if start_bytes >= geometry.size_bytes:
            return False
        return not (geometry.is_zoned and start_bytes % geometry.zone_bytes) or layout.whole_drive


def _probe(drive: _Drive, start_sector: int | None, layout: str | None) -> Probed:
    if layout is not None:
        return drive.probe(start_sector, [registry.get(layout)])
    found = drive.probe(start_sector, registry.ours())
    return found if found.identity is not None else drive.probe(start_sector, registry.strangers())


def probe_device(device: Device, start_sector: int | None = None, layout: str | None = None) -> Probed:
    """Look for a layout at ``start_sector``, or at 0 and where a partition table points."""
    return _probe(_Drive(device), start_sector, layout)


def target_of(probed: Probed, wishes: ZoneWishes = NO_WISHES) -> Target | None:
    """The one device as a target of what was found on it.

    Raises:
        ZonedError: it is a raw copy of a zoned drive, and its zones cannot be told.
    """
    if probed.identity is None:
        return None
    layout = registry.get(probed.identity.layout)
    return ready_to_read(_target(layout, [_Drive(probed.device)], probed.identity.start_bytes), wishes)


def target_at(layout: AnyLayout, devices: Sequence[Device], start_sector: int | None = None) -> Target:
    """Devices as a target that is still to be made, at ``start_sector``."""
    return _target(layout, [_Drive(device) for device in devices], (start_sector or 0) * SECTOR_BYTES)


def _target(layout: AnyLayout, drives: Sequence[_Drive], start_bytes: int) -> Target:
    views = [drive.view(layout, start_bytes) for drive in drives]
    return Target(layout.name, tuple(view for view, _ in views), views[0][1])


def refuse_other(probed: Iterable[Probed], layout: str, start_sector: int | None = None) -> None:
    """Refuse devices on which another layout than the wanted one is recognised.

    Raises:
        MetadataError: there is one; the message says what it is.
    """
    for one in probed:
        if one.identity is None:
            refuse_held(one.device, layout, start_sector)


def refuse_held(device: Device, layout: str, start_sector: int | None = None) -> None:
    """Refuse a device on which another layout than the wanted one is recognised.

    Raises:
        MetadataError: there is one; the message says what it is.
    """
    other = probe_device(device, start_sector).identity
    if other is not None and other.layout != layout:
        raise MetadataError(
            f"holds {other.layout}{f' {other.label!r}' if other.label else ''}, not {layout}",
            device=device.path,
            hint="a remnant has to be erased first, in a copy",
        )


def find_targets(
    devices: Sequence[Device],
    *,
    start_sector: int | None = None,
    layout: str | None = None,
    only_own: bool = False,
    wishes: ZoneWishes = NO_WISHES,
) -> Opened:
    """Targets in the order of their first device, and the devices without a known layout.

    Members of one target are put in the order that their layout knows, whatever order they
    were named in. A layout may claim all the named devices as one target although some of them
    are not recognised: their super blocks may be damaged.
    With ``layout`` given nothing has to be recognised: the devices are one target.

    Args:
        only_own: refuse devices on which another layout than ``layout`` is recognised, as everything that writes
            must, and the commands of one layout.
        wishes: about the zones of raw copies.

    Raises:
        MetadataError: there is one.
    """
    drives = [_Drive(device) for device in devices]
    probed = [_probe(drive, start_sector, layout) for drive in drives]
    if layout is not None and only_own:
        refuse_other(probed, layout, start_sector)
    return _derived(_targets_of(drives, probed, start_sector, layout), wishes)


def _derived(opened: Opened, wishes: ZoneWishes, *, to_read: bool = True) -> Opened:
    """The same with raw copies on derived zones; targets whose zones cannot be told have failed."""
    targets, opened.targets = opened.targets, []
    make = ready_to_read if to_read else with_derived
    for target in targets:
        try:
            opened.targets.append(make(target, wishes))
        except ZonedError as error:
            opened.failed.append(Failure(target.paths, error, target.layout))
    return opened


def _targets_of(drives: Sequence[_Drive], probed: list[Probed], start_sector: int | None, layout: str | None) -> Opened:
    """What the drives are together, from what was found on each."""
    unknown = [p.device for p in probed if p.identity is None]
    if layout is not None and unknown:
        return Opened([_target(registry.get(layout), drives, (start_sector or 0) * SECTOR_BYTES)], probed=probed)
    claimed = _claimed(probed, drives)
    if claimed is not None:
        return Opened([claimed], probed=probed)
    by_device = {id(drive.device): drive for drive in drives}
    opened = Opened([], unknown, probed)
    for identity, members in _groups(probed):
        kind = registry.get(identity.layout)
        try:
            ordered = members if kind.order_members is None or not identity.group else kind.order_members(members)
        except ZonedError as error:
            opened.failed.append(Failure(tuple(m.device.path for m in members), error, kind.name))
            continue
        opened.targets.append(_target(kind, [by_device[id(m.device)] for m in ordered], identity.start_bytes))
    return opened


def _claimed(probed: Sequence[Probed], drives: Sequence[_Drive]) -> Target | None:
    """All the devices as one target, where the only layout that was recognised says so."""
    known = [p.identity for p in probed if p.identity is not None]
    if len(probed) < 2 or len({identity.layout for identity in known}) != 1:
        return None
    layout = registry.get(known[0].layout)
    if layout.claims is None or not layout.claims(probed):
        return None
    return _target(layout, drives, known[0].start_bytes)


def _groups(probed: Sequence[Probed]) -> Iterator[tuple[Identity, Sequence[Probed]]]:
    """The members of each target, as they were named, with what was found on one of them."""
    done: set[tuple[str, str]] = set()
    for one in probed:
        identity = one.identity
        if identity is None or (identity.layout, identity.group) in done:
            continue
        members: Sequence[Probed] = [one]
        if identity.group:
            key = (identity.layout, identity.group)
            done.add(key)
            members = [p for p in probed if p.identity is not None and (p.identity.layout, p.identity.group) == key]
        yield identity, members


def single_target(
    devices: Sequence[Device],
    *,
    start_sector: int | None = None,
    layout: str | None = None,
    only_own: bool = False,
    wishes: ZoneWishes = NO_WISHES,
) -> Target:
    """The one target that all the devices are; ``only_own`` and ``wishes`` as :func:`find_targets` has them.

    Raises:
        MetadataError: no layout is recognised.
        UsageError: the devices are several targets, or there are none.
        ZonedError: their layout cannot put them together.
    """
    if not devices:
        raise UsageError("no device is named")
    found = find_targets(devices, start_sector=start_sector, layout=layout, only_own=only_own, wishes=wishes)
    if found.unknown:
        raise unrecognised(found.unknown[0])
    if found.failed:
        raise found.failed[0].error
    refuse_several(found)
    return found.targets[0]


def refuse_several(found: Opened) -> None:
    """Refuse devices that are more than one target.

    Raises:
        UsageError: they are.
    """
    if len(found.targets) > 1:
        raise UsageError("these devices are not one target", hint="name the devices of one target at a time")


@contextmanager
def opened_target(
    paths: Sequence[str],
    start_sector: int | None = None,
    layout: str | None = None,
    *,
    writable: bool = False,
    only_own: bool = False,
    mapfiles: Sequence[str] = (),
    by_content: bool = False,
) -> Iterator[Target]:
    """The one target on the devices ``paths``, which are closed at the end.

    Args:
        mapfiles: ddrescue map files of the images, none or one for each device; ``"none"`` for one without.
        only_own: refuse devices on which another layout than ``layout`` is recognised; what is writable always does.
        by_content: the zones of images come from their content, a zone table beside one is set aside.

    Raises:
        RefusedError: ``writable``, and a raw copy is on derived zones.
    """
    from zoned_tools.device.opening import open_devices

    with open_devices(paths, writable=writable, mapfiles=mapfiles, sidecars=not by_content) as devices:
        own = only_own or writable
        wishes = ZoneWishes(insisted=by_content)
        target = single_target(devices, start_sector=start_sector, layout=layout, only_own=own, wishes=wishes)
        if writable:
            refuse_derived(target)
        yield target


@contextmanager
def opened_targets(
    paths: Sequence[str],
    start_sector: int | None = None,
    layout: str | None = None,
    *,
    writable: bool = False,
    only_own: bool = False,
    mapfiles: Sequence[str] = (),
    mends: bool = False,
    by_content: bool = False,
    to_read: bool = True,
) -> Iterator[Opened]:
    """Every target on the devices ``paths``, which are closed at the end; a bad device does not hide the others.

    ``only_own``, ``mapfiles`` and ``by_content`` as :func:`opened_target` has them, ``mends`` as
    :func:`~zoned_tools.device.opening.open_device`; raw copies may be ``writable``: that is for whoever asks about
    each target first.

    Args:
        to_read: False for those who only want to know what is there: raw copies stay regular devices.

    Raises:
        UsageError: a device is named twice, or the map files are not as many.
    """
    from zoned_tools.device.opening import mapfile_of_each, open_device, refuse_twice

    refuse_twice(paths)
    maps = mapfile_of_each(paths, mapfiles)
    with ExitStack() as stack:
        drives: list[_Drive] = []
        probed: list[Probed] = []
        failed: list[Failure] = []
        for path, mapfile in zip(paths, maps, strict=True):
            try:
                device = open_device(path, writable=writable, mapfile=mapfile, mends=mends, sidecar=not by_content)
                drive = _Drive(stack.enter_context(device))
                probed.append(_probe(drive, start_sector, layout))
                drives.append(drive)
            except ZonedError as error:
                failed.append(Failure((path,), error))
        if layout is not None and (only_own or writable):
            refuse_other(probed, layout, start_sector)
        found = _targets_of(drives, probed, start_sector, layout)
        opened = _derived(found, ZoneWishes(insisted=by_content), to_read=to_read)
        opened.failed = failed + opened.failed
        yield opened
