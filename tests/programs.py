"""Calling the programs inside the test's process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from zoned_tools.cli.run import run


@dataclass(frozen=True)
class Result:
    """Exit status, and what was printed on standard output (also as bytes) and standard error."""

    status: int
    out: str
    err: str
    raw: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Program = Callable[..., Result]
"""``program("zoned", "report", path)``."""


def caller(capture: pytest.CaptureFixture[str]) -> Program:
    """Runs a program with its output caught by ``capture``."""

    def call(name: str, *arguments: object) -> Result:
        capture.readouterr()
        status = run(name, [str(a) for a in arguments])
        captured = capture.readouterr()
        return Result(status, captured.out, captured.err)

    return call
