"""One input through every journey, on copy-on-write views, and the properties that have to hold.

* Nothing but the project's own errors is raised; a journey takes at most 2 s and 300 MiB.
* A repair leaves a second one nothing to do; what it changes was said by its rehearsal; what waits still waits.
* What a check calls clean stays clean through any session of the mapper, and reads back.
* A dump restores to the same content.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.fuzz.content import Content
from tests.fuzz.inputs import Input
from tests.fuzz.mutations import apply
from tests.fuzz.subjects import subject
from tests.fuzz.watch import Failure, Watch
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import apply_plan, verify_plan
from zoned_tools.engine.checking import CheckRequest, Outcome, gather
from zoned_tools.engine.export import Output, export_pieces, export_volume, layout_pieces
from zoned_tools.engine.logical import opened_logical
from zoned_tools.engine.opening import find_targets
from zoned_tools.engine.repairing import RepairRequest, repair_target
from zoned_tools.errors import RefusedError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Consents, Evidence, Journey, NothingToCheckError, RepairPlan, Target

if TYPE_CHECKING:
    from tests.fuzz.drives import FuzzDrive
    from zoned_tools.device.base import Buffer, Device
    from zoned_tools.engine.rehearsing import Difference


@dataclass
class Result:
    """What came of one input.

    Attributes:
        codes: what the check found.
        checked: False when nothing could be checked.
    """

    codes: frozenset[str] = frozenset()
    checked: bool = False
    clean: bool = False
    failures: list[Failure] = field(default_factory=list)


def run(given: Input) -> Result:
    """Make the journeys of an input."""
    return _Run(given).make()


class _Run:
    def __init__(self, given: Input) -> None:
        self.given = given
        self.subject = subject(given.layout)
        self.layout = registry.get(given.layout)
        self.request = CheckRequest(given.deep)
        self.options = self.request.options(self.layout)
        self.watch = Watch()
        self.base = self.subject.base(given.base)
        damaged = self.base.damaged()
        apply(damaged, given.mutations, self.subject.seals)
        self.drives = [drive.settled() for drive in damaged]
        self._places: list[tuple[int, int, int]] = []
        self._start_bytes = 0
        self.plan: RepairPlan | None = None
        self.content = Content()

    # -- the target

    def _find(self) -> None:
        """Where the target is: what a probe finds, else where it was before the damage."""
        if "probe" in self.given.journeys and self._probe():
            return
        start = (self.base.start_sector or 0) * 512
        self._start_bytes = start if self.layout.whole_drive else 0
        begin = 0 if self.layout.whole_drive else start
        self._places = [(n, begin, drive.geometry.size_bytes) for n, drive in enumerate(self.drives)]

    def _probe(self) -> bool:
        views: list[Device] = [Overlay(drive) for drive in self.drives]
        found = self.watch.call("probe", lambda: find_targets(views))
        targets = [t for t in found.targets if t.layout == self.given.layout] if found is not None else []
        if len(targets) != 1 or len(targets[0].devices) != len(views):
            return False
        self._start_bytes = targets[0].start_bytes
        self._places = [_place_of(device, views) for device in targets[0].devices]
        return True

    def view(self) -> Target:
        """The target on views of its own; what is written there ends with them."""
        devices = tuple(_view(self.drives[number], start, end) for number, start, end in self._places)
        return Target(self.given.layout, devices, self._start_bytes)

    # -- journeys

    def make(self) -> Result:
        self._find()
        checked = self.watch.call("check", self._check)
        result = Result(failures=self.watch.failures)
        wanted = [journey for journey in self.given.journeys if journey in _JOURNEYS]
        if checked is not None:
            evidence, stop = checked
            result.codes = frozenset(evidence.findings.codes)
            result.checked = stop is None
            result.clean = stop is None and not evidence.has_errors
            self.plan = self.watch.call("plan", lambda: self._plan(evidence))
        if set(wanted) - {"rooms", "export"}:
            content = self.watch.call("content", lambda: self.subject.content(self.view(), None))
            self.content = content or Content(opened=False)
        for journey in wanted:
            _JOURNEYS[journey](self, result)
        return result

    def _check(self) -> tuple[Evidence, NothingToCheckError | None]:
        """Evidence, and what text and JSON show of it."""
        evidence, stop = gather(self.view(), self.options)
        for group in evidence.findings.groups:
            assert all(finding.message for finding in group.first(3))
        if "rooms" in self.given.journeys:
            json.loads(f"[{','.join(evidence.findings.json_blocks())}]")
        return evidence, stop

    def _consents(self, allow: frozenset[str]) -> Consents:
        return Consents(allow, self.options.settings)

    def _plan(self, evidence: Evidence) -> RepairPlan:
        plan = self.layout.plan_repair(evidence, self._consents(frozenset()))
        for action in plan.actions:
            assert all(action.sentences(3))
        return plan

    def rooms(self, result: Result) -> None:
        """What only looks: inspect, the table line, the roles of zones."""
        layout, call = self.layout, self.watch.call
        tree = call("inspect", lambda: layout.inspect(self.view()))
        if tree is not None:
            call("inspect", lambda: json.dumps(tree))
        if layout.table_line is not None:
            line = layout.table_line
            call("table", lambda: line(self.view(), layout.parse_settings({}, Journey.TABLE)))
        if layout.zone_roles is not None:
            roles = layout.zone_roles
            call("roles", lambda: roles(self.view()))

    def repair(self, result: Result) -> None:
        """What is certain."""
        self._repair("repair", frozenset(), result)

    def consent(self, result: Result) -> None:
        """With every code allowed."""
        allowed = frozenset(code for code, rule in self.layout.rules().items() if rule.can_wait)
        self._repair("consent", allowed, result)

    def one(self, result: Result) -> None:
        """With one of the codes that wait allowed."""
        codes = sorted({action.id.split(".", 1)[1] for action in self.plan.waiting}) if self.plan is not None else []
        if codes:
            self._repair("one", frozenset({random.Random(self.given.seed).choice(codes)}), result)

    def _repair(self, journey: str, allow: frozenset[str], result: Result) -> None:
        if self.plan is None or not (self.plan.plan or (allow and self.plan.waiting)):
            return
        target = self.view()
        outcome = self.watch.call(journey, lambda: repair_target(target, self.request, RepairRequest(allow=allow)))
        if outcome is None:
            if self.watch.error is not None:
                self._stopped(journey, self.watch.error, result)
            return
        if not outcome.changed:
            return
        self._repaired(journey, allow, target, outcome)

    def _stopped(self, journey: str, error: ZonedError, result: Result) -> None:
        """A repair that ends with an error; refusing before the first write is right where a zone is dead."""
        if not isinstance(error, RefusedError):
            self.watch.fail(journey, "repair fails", _codes_of(result.codes), error.message)
        elif "rehearsed" in error.message:
            self.watch.fail(journey, "worse", _codes_of(result.codes), error.message)

    def _repaired(self, journey: str, allow: frozenset[str], target: Target, outcome: Outcome) -> None:
        fail, rehearsal = self.watch.fail, outcome.rehearsal
        assert rehearsal is not None
        second = self.watch.call(f"second {journey}", lambda: self._second(target, allow))
        if second is None:
            fail(journey, "unchecked afterwards", _actions_of(rehearsal.plan), str(self.watch.error or ""))
            return
        evidence, plan = second
        if plan.plan:
            fail(journey, "second repair", _actions_of(plan))
        if evidence.findings.codes != rehearsal.evidence.findings.codes:
            fail(journey, "rehearsal differs", _codes_of(evidence.findings.codes ^ rehearsal.evidence.findings.codes))
        assert self.plan is not None
        waited = {action.id for action in self.plan.waiting if action.id.split(".", 1)[1] not in allow}
        gone = waited - {action.id for action in plan.waiting}
        if gone and not allow:  # what is allowed can take the object of another action away
            fail(journey, "waits no more", _codes_of(gone))
        left = {action.id for action in plan.waiting if action.id.split(".", 1)[1] in allow and not action.needs}
        if left:
            fail(journey, "waits although allowed", _codes_of(left))
        self._compare(journey, target, rehearsal.difference, rehearsal.plan, certain=not allow)
        if allow and not evidence.has_errors and self.given.seed % 4 == 0:
            self._use(f"session after {journey}", target, clean=True)

    def _second(self, target: Target, allow: frozenset[str]) -> tuple[Evidence, RepairPlan]:
        evidence, _ = gather(target, self.options)
        return evidence, self.layout.plan_repair(evidence, self._consents(allow))

    def _compare(
        self, journey: str, target: Target, difference: Difference | None, plan: RepairPlan, *, certain: bool
    ) -> None:
        """Content differs only where the rehearsal said so."""
        if not certain and difference is None:
            return
        differing = self._differing(f"content after {journey}", target)
        said = difference.ranges if difference is not None else []
        named = [(start, count) for start, count, _ in said] + _named(plan)
        unsaid = [p for p in differing if not any(isinstance(p, int) and s <= p < s + n for s, n in named)]
        if unsaid:
            self.watch.fail(journey, "content", _actions_of(plan), f"at {unsaid[:4]} of {len(unsaid)}")

    def _differing(self, journey: str, target: Target, skip: Iterable[Hashable] = ()) -> list[Hashable]:
        later = self.watch.call(journey, lambda: self.subject.content(target, list(self.content.parts)))
        if later is None or not self.content.opened:
            return []
        skipped = set(skip)
        return [place for place in self.content.differing(later) if place not in skipped]

    def dump(self, result: Result) -> None:
        """The metadata as a document, and back."""
        layout = self.layout
        if layout.dump is None or layout.restore is None:
            return
        make, restore = layout.dump, layout.restore
        document = self.watch.call("dump", lambda: json.loads(json.dumps(make(self.view()), default=str)))
        if document is None:
            return
        target = self.view()
        plan = self.watch.call("restore", lambda: restore(target, document))
        if plan is None:
            if result.clean and self.watch.error is not None:
                self.watch.fail("restore", "refused", self.watch.error.message[:60])
            return
        done = self.watch.call("restore", lambda: _carried_out(target, plan))
        if done is None:
            if self.watch.error is not None:
                self.watch.fail("restore", "fails", _codes_of(result.codes), self.watch.error.message)
            return
        differing = self._differing("content after restore", target)
        if differing:
            self.watch.fail("restore", "content", _codes_of(result.codes), f"at {differing[:4]}")
        again = self.watch.call("dump", lambda: json.loads(json.dumps(make(target), default=str)))
        if result.clean and again != document:
            self.watch.fail("restore", "another dump", _codes_of(result.codes))

    def session(self, result: Result) -> None:
        """The mapper at work."""
        self._use("session", self.view(), clean=result.clean)

    def _use(self, journey: str, target: Target, *, clean: bool) -> None:
        use = self.subject.session
        if use is None:
            return
        used = self.watch.call(journey, lambda: use(target, random.Random(self.given.seed)))
        opened_error = self.watch.error
        checked = self.watch.call(f"check after {journey}", lambda: gather(target, self.options))
        if not clean:
            return
        if checked is None or checked[0].has_errors:
            codes = {f.id for f in checked[0].findings if f.severity == "error"} if checked is not None else set()
            self.watch.fail(
                journey, "not clean afterwards", _codes_of(codes), str(self.watch.error or opened_error or "")
            )
        if used is None:
            return
        for fault in used.faults[:1]:
            self.watch.fail(journey, "reads back", fault.split(" ", 2)[2].split(":")[0], fault)
        if journey == "session":
            differing = self._differing(f"content after {journey}", target, used.touched)
            if differing:
                self.watch.fail(journey, "content", "what was not touched", f"at {differing[:4]}")

    def export(self, result: Result) -> None:
        """The content as a stream, with and without giving unreadable blocks up."""
        for skip_errors in (False, True):
            self.watch.call("export", partial(self._export, skip_errors=skip_errors))

    def _export(self, *, skip_errors: bool) -> None:
        target, sink = self.view(), _Sink()
        pieces = layout_pieces(target)
        if pieces is not None:
            export_pieces(pieces, sink)
        elif self.layout.open_mapper is not None:
            with opened_logical(target, writable=False, settings={}) as mapper:
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


_JOURNEYS: dict[str, Callable[[_Run, Result], None]] = {
    "rooms": _Run.rooms,
    "repair": _Run.repair,
    "consent": _Run.consent,
    "one": _Run.one,
    "dump": _Run.dump,
    "session": _Run.session,
    "export": _Run.export,
}


def _place_of(device: Device, views: list[Device]) -> tuple[int, int, int]:
    """Number of the drive, first and end byte of the view that a target has of it."""
    for number, view in enumerate(views):
        if device is view:
            return number, 0, view.geometry.size_bytes
        if isinstance(device, PartitionView) and device._device is view:
            return number, device.start_bytes, device.start_bytes + device.geometry.size_bytes
    raise AssertionError("a target on devices that were not named")


def _view(drive: FuzzDrive, start_bytes: int, end_bytes: int) -> Device:
    overlay = Overlay(drive)
    if start_bytes == 0 and end_bytes == drive.geometry.size_bytes:
        return overlay
    return PartitionView(overlay, start_bytes, end_bytes)


def _carried_out(target: Target, plan: object) -> bool:
    from zoned_tools.device.plan import Plan

    assert isinstance(plan, Plan)
    apply_plan(target.devices, plan.steps)
    verify_plan(target.devices, plan)
    return True


def _named(plan: RepairPlan) -> list[tuple[int, int]]:
    """``(first block, blocks)`` of what the actions name; some layouts change what a block means at its place."""
    found = []
    for action in plan.actions:
        places = action.rows.places
        if not action.waits and "block" in places and "blocks" in places:
            found += [(int(b), int(n)) for b, n in zip(_ints(places["block"]), _ints(places["blocks"]), strict=True)]
    return found


def _ints(column: Iterable[object]) -> list[int]:
    return [int(str(value)) for value in column]


def _codes_of(codes: Iterable[str]) -> str:
    return " ".join(sorted(codes)) or "nothing"


def _actions_of(plan: RepairPlan) -> str:
    return _codes_of({action.id for action in plan.actions if not action.waits})
