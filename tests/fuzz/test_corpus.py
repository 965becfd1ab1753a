"""Every input of the corpus: it reaches what it is kept for, and every property holds (or is known not to)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import corpus, engine
from tests.fuzz.inputs import Input
from tests.fuzz.subjects import LAYOUTS


@pytest.mark.parametrize("path", corpus.files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_corpus_input(path: Path) -> None:
    given = Input.of_file(path)
    result = engine.run(given)
    failures = {failure.signature: str(failure) for failure in result.failures}
    if given.known:
        assert set(failures) == {given.fails}, f"known ({given.known}), yet: {failures}"
    else:
        assert not failures
    assert set(given.codes) <= result.codes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_corpus_is_small(layout: str) -> None:
    assert 1 <= len([path for path in corpus.files(layout) if not path.name.startswith("failure-")]) <= 60
