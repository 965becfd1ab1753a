"""A bench for each command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import all_commands
from tests.faults.journey import Bench, MakeBench, every_point
from tests.programs import Program
from tests.project.write_logs import keeping_vectors


@pytest.fixture(scope="module", autouse=True)
def vectors_of_this_module() -> Iterator[None]:
    """Each vector is unpacked once."""
    with keeping_vectors():
        yield


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program) -> MakeBench:
    """``bench(name)``: a command whose files are made and whose calls are known."""

    def make(name: str, *, reads: bool = True) -> Bench:
        made = Bench(
            all_commands(heavy=every_point())[name], program, monkeypatch, tmp_path / "start", tmp_path / "run"
        )
        made.make(reads=reads)
        return made

    return make
