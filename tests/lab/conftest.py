"""Tests marked ``lab`` run inside a lab kernel; here on the host they only stand for their results.

All lab tests that name the same guest, by default those of a module, and ask for the same machine share it: it runs
pytest over them and hands its reports back. ``@pytest.mark.lab`` takes ``guest`` and the arguments of
:class:`tests.lab.vm.Lab` and :meth:`tests.lab.vm.Lab.run` (``kernel``, ``memory``, ``timeout``, ``qemu_args``,
``files``). Under pytest-xdist use ``--dist loadfile``, or every worker boots guests of its own.

``ZONED_LAB=require`` makes a missing lab a failure (otherwise the tests are skipped),
``ZONED_LAB=skip`` leaves them out.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kernel import LabUnavailableError
from tests.lab.vm import GuestError, Lab

INSIDE_OUT = os.environ.get("ZONED_LAB_INSIDE")
"""In a guest: the directory for the reports."""

MODE = os.environ.get("ZONED_LAB", "")

_REPORTS = "reports.jsonl"
_Reports = list[dict[str, Any]]


def _unavailable(reason: str) -> None:
    if MODE == "require":
        pytest.fail(f"the kernel lab is required: {reason}", pytrace=False)
    pytest.skip(f"no kernel lab: {reason}")


@pytest.fixture(scope="session")
def lab() -> Callable[..., Lab]:
    """``lab(kernel)`` for tests that run on the host and drive a guest themselves."""

    def make(kernel: str = "6.12") -> Lab:
        try:
            return Lab(kernel)
        except LabUnavailableError as error:
            _unavailable(str(error))
            raise

    return make


class GuestTestError(Exception):
    """A test failed in its guest; the argument is the guest's account, a text or pytest's own representation."""


class Guest:
    """One boot and the lab tests that run in it."""

    def __init__(self, config: pytest.Config, machine: dict[str, Any]) -> None:
        self._config = config
        self._machine = machine
        self._reports: dict[str, _Reports] | None = None
        self._trouble = ""

    def _run(self, node_ids: list[str]) -> dict[str, _Reports]:
        machine = {"timeout": 600, **self._machine}
        lab = Lab(machine.pop("kernel", "6.12"))
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            *node_ids,
        ]
        script = f"cd {shlex.quote(str(self._config.rootpath))}\nexec {shlex.join(words)}\n"
        environment = {"ZONED_LAB_INSIDE": "/out", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        reports: dict[str, _Reports] = {}
        with tempfile.TemporaryDirectory(prefix="zoned-lab-") as directory:
            try:
                result = lab.run(script, out=Path(directory), environment=environment, **machine)
                self._trouble = f"pytest in the guest (exit status {result.rc}):\n{result.log}"
            except GuestError as error:
                self._trouble = str(error)
            path = Path(directory) / _REPORTS
            for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
                report = json.loads(line)
                reports.setdefault(report["nodeid"], []).append(report)
        return reports

    def reports_of(self, test: LabItem) -> list[pytest.TestReport]:
        """The guest's reports of one test: setup, call, teardown. The first one asked for boots the guest.

        Raises:
            GuestTestError: the guest died before or in this test.
            LabUnavailableError: this machine has no lab.
        """
        if self._reports is None:
            tests = [item for item in test.session.items if isinstance(item, LabItem) and item.guest is self]
            self._reports = self._run([item.guest_node_id for item in tests])
        found = self._reports.get(test.guest_node_id, [])
        if not found or found[-1]["when"] != "teardown":
            raise GuestTestError(self._trouble)
        hook = self._config.hook.pytest_report_from_serializable
        return [hook(config=self._config, data=data) for data in found]


class LabItem(pytest.Item):
    """Stands on the host for a test that runs in a guest."""

    def __init__(self, *, test: pytest.Item, guest: Guest, **kwargs: Any) -> None:
        super().__init__(name=test.name, **kwargs)
        self.guest = guest
        self.guest_node_id = test.nodeid
        self._location = test.location
        self.own_markers = list(test.own_markers)
        self.keywords.update({mark.name: mark for mark in test.own_markers})

    def runtest(self) -> None:
        try:
            reports = self.guest.reports_of(self)
        except LabUnavailableError as error:
            _unavailable(str(error))
            raise
        for report in reports:
            if report.when == "call":
                for title, text in report.sections:
                    self.add_report_section("call", title.split()[1], text)
        for report in reports:
            if report.skipped:
                pytest.skip(str(report.longrepr[2]))  # type: ignore[index]  # (path, line, reason)
            if report.failed:
                raise GuestTestError(report.longrepr)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, GuestTestError):
            return excinfo.value.args[0]
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self._location[1], self._location[2]


_GUESTS = pytest.StashKey[dict[tuple[str, str], Guest]]()


def _in_lab(item: pytest.Item) -> bool:
    return item.get_closest_marker("lab") is not None or "lab" in getattr(item, "fixturenames", ())


def _machine_of(item: pytest.Item) -> dict[str, Any]:
    """What the marks of a test ask for, the innermost first."""
    machine: dict[str, Any] = {}
    for mark in item.iter_markers("lab"):
        machine = {**mark.kwargs, **machine}
    return machine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put stand-ins in the place of the lab tests, and what needs the lab, which takes longest, first."""
    if INSIDE_OUT:
        return
    needing = [item for item in items if _in_lab(item)]
    others = [item for item in items if not _in_lab(item)]
    if MODE == "skip":
        config.hook.pytest_deselected(items=needing)
        needing = []
    items[:] = [_stand_in(config, item) for item in needing] + others


def _stand_in(config: pytest.Config, item: pytest.Item) -> pytest.Item:
    if item.get_closest_marker("lab") is None:  # drives a guest itself
        item.add_marker("lab")
        return item
    machine = _machine_of(item)
    name = machine.pop("guest", item.path.name)
    guests = config.stash.setdefault(_GUESTS, {})
    guest = guests.setdefault((name, repr(machine)), Guest(config, machine))
    assert item.parent is not None
    # Workers of pytest-xdist take tests by the first part of their names: those of a guest belong together.
    stand_in: LabItem = LabItem.from_parent(item.parent, test=item, guest=guest, nodeid=f"lab-{name}::{item.nodeid}")
    return stand_in


class _ReportWriter:
    """In a guest: hands every report out at once, so that a crash loses none but its own."""

    def __init__(self, config: pytest.Config, directory: str) -> None:
        self._config = config
        self._path = Path(directory) / _REPORTS

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(data, default=str) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if INSIDE_OUT:
        config.pluginmanager.register(_ReportWriter(config, INSIDE_OUT))
