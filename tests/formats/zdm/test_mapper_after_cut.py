"""Sessions on images that a power cut left: no error before, none after, and a clean close tidies up."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, check_counts, errors, facts, reader, writer
from zoned_tools.device.overlay import LoggedFlush, Recorder

if TYPE_CHECKING:
    from zoned_tools.device.overlay import LogEntry
    from zoned_tools.formats.contract import Mapper

CASES = {case["name"]: case for case in facts("after-cut")["cases"]}
TIDIED = {"wp.crc", "zf.crc", "wp.behind", "gen.torn", "key.dirty", "gen.third_slot"}


class PowerCut(Exception):
    """The drive takes no more."""


class PowerSupply:
    """Fails after a number of changes; None: never."""

    def __init__(self, changes: int | None) -> None:
        self.left = changes

    def __call__(self, entry: LogEntry) -> None:
        if self.left is None or isinstance(entry, LoggedFlush):
            return
        if self.left == 0:
            raise PowerCut
        self.left -= 1


def carry_out(mapper: Mapper, line: str, number: int) -> None:
    """One line of a trace; writes carry the number of the line, never zero."""
    match line.split():
        case ["write", offset, length]:
            mapper.write(int(offset) // BLOCK, bytes([number % 255 + 1]) * int(length))
        case ["trim", offset, length]:
            mapper.discard(int(offset) // BLOCK, int(length) // BLOCK)
        case ["sync"]:
            mapper.flush()
        case _:
            raise AssertionError(line)


def untouched(mapper: Mapper, touched: list[list[int]]) -> dict[str, Any]:
    """Number and digest of the blocks that are not zero, without those that a session changed."""
    skipped = {b for first, count in touched for b in range(first, first + count)}
    digest, number = hashlib.sha256(), 0
    for extent in mapper.lookup(0, mapper.size_blocks):
        if extent.physical_block is None:
            continue
        data = mapper.read(extent.logical_block, extent.blocks)
        for at in range(extent.blocks):
            block, content = extent.logical_block + at, data[at * BLOCK : (at + 1) * BLOCK]
            if block not in skipped and any(content):
                digest.update(block.to_bytes(8, "little") + content)
                number += 1
    return {"nonzero_blocks": number, "sha256": digest.hexdigest()}


@pytest.mark.parametrize("name", CASES)
def test_session_after_a_cut(name: str) -> None:
    case = CASES[name]
    drive = zx1.open_case(FOLDER, case["base"], case)
    start = facts(case["base"])["start_sector"]
    assert errors(drive, start) == []
    for step in case["steps"]:
        mapper = writer(Recorder(drive, before=PowerSupply(step["crash_at"])), start)
        try:
            for number, line in enumerate(step["trace"]):
                carry_out(mapper, line, number)
            mapper.close()
        except PowerCut:
            assert step["crash_at"] is not None
        assert errors(drive, start) == [], step
    assert Counter(check_counts(drive, start)).keys() & TIDIED == set()
    after = reader(drive, start)
    assert untouched(after, case["touched"]) == case["untouched"]
    for first, count in case["written"]:
        data = after.read(first, count)
        assert all(any(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
    for first, count in case["trimmed"]:
        assert not any(after.read(first, count))


@pytest.mark.parametrize("base", ["cut-wp", "cut-torn-md", "gen-third-slot", "pop-small"])
def test_a_session_without_requests_tidies_up(base: str) -> None:
    drive = zx1.open_vector(FOLDER, base)
    writer(drive).close()
    assert check_counts(drive).keys() & TIDIED == set()
