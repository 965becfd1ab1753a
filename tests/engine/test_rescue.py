"""The rescue vectors by name: damaged copies of images, and what must come of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.rescue_cases import CASES, build, call_installed, play

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.programs import Program, Result


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, program: Program) -> None:
    def run(words: Sequence[str]) -> Result:
        return program(words[0], *words[1:])

    case = CASES[name]
    build(case, tmp_path)
    prints_content = any("stdout_sha256" in step for step in case["run"])
    play(case, tmp_path, call_installed if prints_content else run)
