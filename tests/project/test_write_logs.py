"""What the programs write and print is what they wrote and printed when write_logs.json was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest

from tests.project import write_logs

GROUPS = {
    group: list(names)
    for group, names in groupby(sorted(write_logs.chosen(slow=False)), key=lambda name: "/".join(name.split("/")[:2]))
}


@pytest.fixture(scope="module", autouse=True)
def _vectors() -> Iterator[None]:
    with write_logs.keeping_vectors():
        yield


@pytest.mark.parametrize("group", GROUPS)
def test_writes_and_prints_the_same(group: str) -> None:
    """``python -m tests.project.write_logs --case NAME --show`` prints what is recorded of a case.

    A new wording of ``zoned`` is taken over with ``--accept-wording``, every other difference with ``--record``.
    """
    golden = write_logs.read_golden()
    found = {name: write_logs.differences(golden, name, write_logs.digests_of(name)[1]) for name in GROUPS[group]}
    assert {name: fields for name, fields in found.items() if fields} == {}


def test_every_recorded_case_exists() -> None:
    assert write_logs.read_golden().keys() == write_logs.cases().keys()
