"""The rooms of an installed layout under guard, each for what the contract says that it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import NothingToCheckError
from zoned_tools.formats.strangers import values
from zoned_tools.formats.strangers.declaration import OPTIONAL_ROOMS
from zoned_tools.formats.strangers.guard import text_of
from zoned_tools.formats.strangers.mapper import guarded_mapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Device
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.contract import (
        AnyLayout,
        CheckOptions,
        Consents,
        Evidence,
        Figure,
        Identity,
        Mapper,
        Probed,
        RepairPlan,
        Rules,
        Setting,
        Settings,
        TableLine,
        Target,
    )
    from zoned_tools.formats.strangers.guard import Guard

T = TypeVar("T")


def guarded(layout: AnyLayout, guard: Guard) -> AnyLayout:
    """The layout with every room that it has behind ``guard``."""
    rooms = _Rooms(layout, guard, layout.rules())
    return replace(
        layout,
        settings=tuple(_guarded_setting(setting, guard) for setting in layout.settings),
        probe=rooms.probe,
        check=rooms.check,
        plan_repair=rooms.plan_repair,
        inspect=rooms.inspect,
        **{name: getattr(rooms, name) for name in OPTIONAL_ROOMS if getattr(layout, name) is not None},
    )


def _guarded_setting(setting: Setting, guard: Guard) -> Setting:
    verify = setting.verify
    if verify is None:
        return setting

    def guarded_verify(text: str) -> object:
        try:
            return verify(text)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{guard} {setting.name}: {text_of(error)}") from error

    return replace(setting, verify=guarded_verify)


class _Rooms:
    """The rooms of one layout; the optional ones are called only where the layout has them."""

    def __init__(self, layout: AnyLayout, guard: Guard, rules: Rules) -> None:
        self._layout = layout
        self._guard = guard
        self._rules = rules

    def _on(self, target: Target) -> Guard:
        return self._guard.on(target.device.path)

    def _has(self, room: T | None) -> T:
        assert room is not None
        return room

    # -- what is there

    def probe(self, device: Device, start_bytes: int) -> Identity | None:
        room, name = self._layout.probe, self._layout.name
        return self._guard.ask("probe", lambda: room(device, start_bytes), lambda it: values.identity(it, name), None)

    def order_members(self, members: Sequence[Probed]) -> Sequence[Probed]:
        room = self._has(self._layout.order_members)
        guard = self._guard.on(members[0].device.path)
        return guard.call("order_members", lambda: room(members), lambda it: values.order(it, members))

    def claims(self, probed: Sequence[Probed]) -> bool:
        room = self._has(self._layout.claims)
        return self._guard.ask("claims", lambda: room(probed), lambda it: values.require(it, bool), otherwise=False)

    # -- check and repair

    def check(self, target: Target, options: CheckOptions) -> Evidence:
        def run() -> object:
            try:
                return self._layout.check(target, options)
            except NothingToCheckError as error:
                values.evidence(error.evidence, self._rules)
                raise

        return self._on(target).call("check", run, lambda it: values.evidence(it, self._rules))

    def plan_repair(self, evidence: Evidence, consents: Consents) -> RepairPlan:
        guard, count = self._on(evidence.target), len(evidence.target.devices)
        return guard.call(
            "plan_repair",
            lambda: self._layout.plan_repair(evidence, consents),
            lambda it: values.repair_plan(it, self._rules, count, _producers(guard)),
        )

    def plan_format(self, target: Target, settings: Settings) -> Plan:
        room = self._has(self._layout.plan_format)
        return self._plan("plan_format", target, lambda: room(target, settings))

    def restore(self, target: Target, document: Mapping[str, object]) -> Plan:
        room = self._has(self._layout.restore)
        return self._plan("restore", target, lambda: room(target, document))

    def _plan(self, name: str, target: Target, call: Callable[[], Plan]) -> Plan:
        guard, count = self._on(target), len(target.devices)
        return guard.call(name, call, lambda it: values.plan(it, count, _producers(guard)))

    # -- documents and pictures

    def inspect(self, target: Target) -> dict[str, object]:
        return self._on(target).call("inspect", lambda: self._layout.inspect(target), values.tree)

    def dump(self, target: Target) -> dict[str, object]:
        room = self._has(self._layout.dump)
        return self._on(target).call("dump", lambda: room(target), values.tree)

    def table_line(self, target: Target, settings: Settings) -> TableLine:
        room = self._has(self._layout.table_line)
        return self._on(target).call("table_line", lambda: room(target, settings), values.table_line)

    def zone_roles(self, target: Target) -> Mapping[str, IntArray]:
        room, declared = self._has(self._layout.zone_roles), [role.name for role in self._layout.roles]
        return self._on(target).call("zone_roles", lambda: room(target), lambda it: values.roles(it, declared))

    def figures(self, target: Target) -> Iterator[Figure]:
        room = self._has(self._layout.figures)
        return self._on(target).each("figures", lambda: room(target), values.figure)

    # -- content

    def open_mapper(self, target: Target, *, writable: bool, settings: Settings) -> Mapper:
        room, guard, count = self._has(self._layout.open_mapper), self._on(target), len(target.devices)
        return guard.call(
            "open_mapper",
            lambda: room(target, writable=writable, settings=settings),
            lambda it: guarded_mapper(it, guard, count),
        )


def _producers(guard: Guard) -> values.Wrap:
    """Puts functions that make the data of a step under guard."""

    def wrap(produce: Callable[[], bytes]) -> Callable[[], bytes]:
        return lambda: guard.call("a step of its plan", produce, lambda it: values.require(it, bytes))

    return wrap
