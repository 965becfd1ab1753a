"""What the programs write and print is what they wrote and printed when write_logs.json was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context

import pytest

from tests.project import write_logs

GROUPS = {
    group: list(names)
    for group, names in groupby(sorted(write_logs.chosen(slow=False)), key=lambda name: "/".join(name.split("/")[:2]))
}


@pytest.fixture(scope="module")
def apart() -> Iterator[Executor]:
    """A process of its own: in this one other tests have filled caches, that of libc's functions for one."""
    with (
        write_logs.keeping_vectors() as directory,
        ProcessPoolExecutor(1, get_context("spawn"), write_logs.use_vectors, (directory,)) as pool,
    ):
        yield pool


@pytest.mark.parametrize("group", GROUPS)
def test_writes_and_prints_the_same(group: str, apart: Executor) -> None:
    """``python -m tests.project.write_logs --case NAME --show`` prints what is recorded of a case.

    A new wording of ``zoned`` is taken over with ``--accept-wording``, every other difference with ``--record``.
    """
    golden = write_logs.read_golden()
    found = {
        name: write_logs.differences(golden, name, digests)
        for name, digests in apart.map(write_logs.digests_of, GROUPS[group])
    }
    assert {name: fields for name, fields in found.items() if fields} == {}


def test_every_recorded_case_exists() -> None:
    assert write_logs.read_golden().keys() == write_logs.cases().keys()
