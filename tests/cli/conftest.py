"""Run the programs in this process (fast) and look at what they print and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from zoned_tools.cli.run import run


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``program("zoned", "report", path)`` -> exit status, standard output, standard error."""

    def call(name: str, *arguments: object) -> Result:
        capsys.readouterr()
        status = run(name, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call
