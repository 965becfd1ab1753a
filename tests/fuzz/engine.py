"""One input through every journey, on copy-on-write views, and the properties that have to hold.

* Nothing but the project's own errors is raised; a journey takes at most 2 s and 300 MiB.
* A repair leaves a second one nothing to do; what it changes was said by its rehearsal; what waits still waits.
* A repair that a power cut ends anywhere can be finished.
* What a check calls clean stays clean through any session of the mapper, and reads back.
* A dump restores to the same content.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz.content import Content
from tests.fuzz.mutations import apply
from tests.fuzz.subjects import subject
from tests.fuzz.watch import Failure, Watch
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.partition import PartitionView
from zoned_tools.engine.checking import CheckRequest, gather
from zoned_tools.engine.opening import find_targets
from zoned_tools.errors import ZonedWarning
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Consents, Evidence, Journey, NothingToCheckError, RepairPlan, Target

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from tests.fuzz.drives import FuzzDrive
    from tests.fuzz.inputs import Input
    from zoned_tools.device.base import Device


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
    watch = Watch()
    result = _run(given, watch)
    if watch.suspect:
        result = _run(given, Watch(precise=True))
    return result


def _run(given: Input, watch: Watch) -> Result:
    from tests.fuzz.journeys import JOURNEYS

    subject(given.layout).base(given.base)  # made once; not the input's memory
    with warnings.catch_warnings(), watch.bounds():
        warnings.simplefilter("ignore", ZonedWarning)  # what was assumed is said, and nobody listens
        prepared = Run(given, watch)
        result = prepared.look()
        for journey in given.journeys:
            if journey in JOURNEYS:
                JOURNEYS[journey](prepared, result)
    return result


class Run:
    """An input that is prepared: its damaged drives, where the target is, and what a check says.

    Attributes:
        watch: collects the failures.
        plan: the repair of what is certain; None when nothing can be planned.
        content: what reads before anything is done.
    """

    def __init__(self, given: Input, watch: Watch | None = None) -> None:
        self.given = given
        self.subject = subject(given.layout)
        self.layout = registry.get(given.layout)
        self.request = CheckRequest(given.deep, self._settings(Journey.CHECK, Journey.REPAIR))
        self.options = self.request.options(self.layout)
        self.logical = self._settings(Journey.LOGICAL)
        self.watch = watch or Watch()
        self.base = self.subject.base(given.base)
        damaged = self.base.damaged()
        apply(damaged, given.mutations, self.subject.seals)
        self.drives = [drive.settled() for drive in damaged]
        self.plan: RepairPlan | None = None
        self.content = Content()
        self._start_bytes = 0
        self._places: list[tuple[int, int, int]] = []

    def _settings(self, *journeys: Journey) -> dict[str, str]:
        names = {setting.name for setting in self.layout.settings if setting.journeys & set(journeys)}
        return {name: value for name, value in self.given.settings.items() if name in names}

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

    # -- looking

    def look(self) -> Result:
        """Find the target, check it, plan its repair, read its content."""
        self._find()
        checked = self.watch.call("check", self._check)
        result = Result(failures=self.watch.failures)
        if checked is not None:
            evidence, stop = checked
            result.codes = frozenset(evidence.findings.codes)
            result.checked = stop is None
            result.clean = stop is None and not evidence.has_errors
            self.plan = self.watch.call("plan", lambda: self._plan(evidence))
        if set(self.given.journeys) - {"probe", "rooms", "export", "document"}:
            content = self.watch.call("content", lambda: self.subject.content(self.view(), self.logical, None))
            self.content = content or Content(opened=False)
        return result

    def _check(self) -> tuple[Evidence, NothingToCheckError | None]:
        """Evidence, and some of the sentences that text and JSON show of it."""
        evidence, stop = gather(self.view(), self.options)
        for group in evidence.findings.groups:
            assert all(finding.message for finding in group.first(3))
        return evidence, stop

    def _plan(self, evidence: Evidence) -> RepairPlan:
        plan = self.layout.plan_repair(evidence, self.consents(frozenset()))
        for action in plan.actions:
            assert all(action.sentences(3))
        return plan

    def consents(self, allow: frozenset[str]) -> Consents:
        """Consent to codes, with the input's settings."""
        return Consents(allow, self.options.settings)

    def differing(self, journey: str, target: Target, skip: Iterable[Hashable] = ()) -> list[Hashable]:
        """What does not read any more as it did before anything was done."""
        places = list(self.content.parts)
        later = self.watch.call(journey, lambda: self.subject.content(target, self.logical, places))
        if later is None or not self.content.opened:
            return []
        skipped = set(skip)
        return [place for place in self.content.differing(later) if place not in skipped]


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
