"""The journeys that only look, and those that use a volume; repairs are in :mod:`tests.fuzz.repairs`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.fuzz import repairs
from tests.fuzz.repairs import codes_of
from tests.fuzz.session import use
from zoned_tools.device.plan import Plan, apply_plan, verify_plan
from zoned_tools.device.zones import DEAD_CONDITIONS, has_condition
from zoned_tools.engine.export import export_volume
from zoned_tools.engine.logical import opened_logical
from zoned_tools.engine.output import Output
from zoned_tools.engine.views import has_views, opened_views
from zoned_tools.formats.contract import Journey

if TYPE_CHECKING:
    from tests.fuzz.engine import Result, Run
    from zoned_tools.device.base import Buffer
    from zoned_tools.formats.contract import Target


def rooms(run: Run, result: Result) -> None:
    """What only looks: inspect, the table line, the roles of zones."""
    layout, call = run.layout, run.watch.call
    tree = call("inspect", lambda: layout.inspect(run.view()))
    if tree is not None:
        call("inspect", lambda: json.dumps(tree))
    if layout.table_line is not None:
        line = layout.table_line
        call("table", lambda: line(run.view(), layout.parse_settings({}, Journey.TABLE)))
    if layout.zone_roles is not None:
        roles = layout.zone_roles
        call("roles", lambda: roles(run.view()))


def session(run: Run, result: Result) -> None:
    """The mapper at work."""
    use(run, "session", run.view(), clean=result.clean)


# -- documents


def dump(run: Run, result: Result) -> None:
    """The metadata as a document, and back: over themselves, and over metadata that are damaged otherwise."""
    if run.layout.dump is None or run.layout.restore is None:
        return
    make = run.layout.dump
    document = _dumped(run, run.view())
    if document is None:
        return
    target = run.view()
    if not _restored(run, target, document, result):
        return
    differing = run.differing("content after restore", target)
    if differing:
        run.watch.fail("restore", "content", codes_of(result.codes), f"at {differing[:4]}")
    again = run.watch.call("dump", lambda: _plain(make(target)))
    if result.clean and again != document:
        run.watch.fail("restore", "another dump", codes_of(result.codes))


def _plain(document: object) -> Any:
    return json.loads(json.dumps(document, default=str))


def _dumped(run: Run, target: Target) -> Any:
    make = run.layout.dump
    assert make is not None
    return run.watch.call("dump", lambda: _plain(make(target)))


def _restored(run: Run, target: Target, document: Any, result: Result) -> bool:
    restore = run.layout.restore
    assert restore is not None
    plan = run.watch.call("restore", lambda: restore(target, document))
    if plan is None:
        dead = any(has_condition(drive.table, *DEAD_CONDITIONS).any() for drive in run.drives)
        if result.clean and not dead and run.watch.error is not None:
            run.watch.fail("restore", "refused", run.watch.error.message[:60])
        return False
    done = run.watch.call("restore", lambda: _carried_out(target, plan))
    if done is None and run.watch.error is not None:
        run.watch.fail("restore", "fails", codes_of(result.codes), run.watch.error.message)
    return done is not None


def _carried_out(target: Target, plan: Plan) -> bool:
    apply_plan(target.devices, plan.steps)
    verify_plan(target.devices, plan)
    return True


def document(run: Run, result: Result) -> None:
    """A document in which some values are others is refused, or restored; nothing else."""
    if run.layout.dump is None or run.layout.restore is None:
        return
    restore = run.layout.restore
    original = _dumped(run, run.view())
    if original is None:
        return
    choose = random.Random(run.given.seed)
    for _ in range(3):
        changed = _plain(original)
        for _ in range(choose.randrange(1, 4)):
            _change(choose, changed)
        target = run.view()
        plan = run.watch.call("restore of nonsense", partial(restore, target, changed))
        if plan is not None:
            run.watch.call("restore of nonsense", partial(_carried_out, target, plan))
            run.watch.call("check after nonsense", partial(run.layout.check, target, run.options))


_NONSENSE: tuple[Any, ...] = (None, -1, 0, 1, 7, 1 << 31, 1 << 63, 1 << 80, 1.5, True, "", "x", "ff" * 40, [], {}, [[]])


def _change(choose: random.Random, value: Any) -> None:
    """Change something somewhere inside a document."""
    while isinstance(value, dict | list) and value:
        key: Any = choose.choice(list(value)) if isinstance(value, dict) else choose.randrange(len(value))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or choose.random() < 0.1:
            if choose.random() < 0.2:
                del value[key]
            elif isinstance(inner, int) and choose.random() < 0.6:
                value[key] = inner + choose.choice((-1, 1, 2, 4096, -inner, inner))
            else:
                value[key] = choose.choice(_NONSENSE)
            return
        value = inner


# -- export


def export(run: Run, result: Result) -> None:
    """The content as a stream, with and without giving unreadable blocks up."""
    for skip_errors in (False, True):
        run.watch.call("export", partial(_export, run, skip_errors=skip_errors))


def _export(run: Run, *, skip_errors: bool) -> None:
    target, sink = run.view(), _Sink()
    if has_views(target):
        with opened_views(target, run.logical) as views:
            for view in views:
                export_volume(view.mapper, sink, skip_errors=skip_errors)
    elif run.layout.open_mapper is not None:
        with opened_logical(target, writable=False, settings=run.logical) as mapper:
            export_volume(mapper, sink, skip_errors=skip_errors)
            assert sink.length_bytes == mapper.size_blocks * 4096


class _Sink(Output):
    """An output that only counts."""

    def __init__(self) -> None:
        self.length_bytes = 0

    def data(self, buffer: Buffer) -> None:
        self.length_bytes += len(buffer)

    def hole(self, length_bytes: int) -> None:
        self.length_bytes += length_bytes


JOURNEYS: dict[str, Callable[[Run, Result], None]] = {
    "rooms": rooms,
    "repair": repairs.repair,
    "consent": repairs.consent,
    "one": repairs.one,
    "cut": repairs.cut,
    "undo": repairs.undo,
    "dump": dump,
    "document": document,
    "session": session,
    "export": export,
}
