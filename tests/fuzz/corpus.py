"""The corpus: inputs that reach each finding code, and every failure that was found."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.inputs import Input

FOLDER = Path(__file__).parent / "corpus"


def files(layout: str = "*") -> list[Path]:
    """The corpus files of a layout, or of all."""
    return sorted(FOLDER.glob(f"{layout}/*.json"))


def known_signatures(layout: str) -> dict[str, str]:
    """Failures that are known and not mended yet: signature and reason."""
    inputs = (Input.of_file(path) for path in files(layout))
    return {given.fails: given.known for given in inputs if given.known}
