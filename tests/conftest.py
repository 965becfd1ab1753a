"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.programs import Program, caller

VECTORS = Path(__file__).parent / "vectors"

# The gate tries the same examples in every run; --hypothesis-profile=explore tries new ones, and more of them.
_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW, derandomize=True)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW, print_blob=True)
settings.load_profile("default")

# Output must not depend on the terminal, and a bug has to show itself as an exception.
os.environ.setdefault("ZONED_UNDO_DIR", os.path.join(tempfile.gettempdir(), f"zoned-undo-{os.getuid()}-{os.getpid()}"))
os.environ.update(NO_COLOR="1", LC_ALL="C.UTF-8", ZONED_TOOLS_DEBUG="1")


@pytest.fixture
def vectors() -> Path:
    """The images and cases made by the reference tools and real kernels."""
    return VECTORS


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """``program("zoned", "report", path)``: exit status and what was printed."""
    return caller(capfd)


@pytest.fixture
def zoned(program: Program) -> Program:
    """``zoned("report", path)``: the umbrella command."""
    return partial(program, "zoned")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted with ``record_property``: how many power cuts a run made."""
    counted: dict[str, list[int]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if isinstance(value, int):
                counted.setdefault(name, []).append(value)
    for name, values in sorted(counted.items()):
        terminalreporter.write_line(f"{name}: {sum(values)} in {len(values)} tests")
