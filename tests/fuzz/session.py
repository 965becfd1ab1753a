"""A session of a logical device: random writes, discards and flushes against a model of what must read back."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.engine.checking import gather
from zoned_tools.engine.logical import open_logical
from zoned_tools.errors import ZonedError

if TYPE_CHECKING:
    from tests.fuzz.engine import Run
    from zoned_tools.formats.contract import Mapper, Target

BLOCK = 4096
MAX_STEPS = 12
_LENGTHS = (1, 1, 1, 2, 3, 8, 17)


@dataclass
class Used:
    """What a session did.

    Attributes:
        faults: what did not read back.
        touched: parts of the content that it changed.
    """

    faults: list[str] = field(default_factory=list)
    touched: set[Hashable] = field(default_factory=set)


def use(run: Run, journey: str, target: Target, *, clean: bool) -> None:
    """A session of a target; what was clean stays clean, and what was written reads back."""
    session = run.subject.session
    if session is None:
        return
    used = run.watch.call(journey, lambda: session(target, run.logical, random.Random(run.given.seed)))
    stop = run.watch.error
    checked = run.watch.call(f"check after {journey}", lambda: gather(target, run.options))
    if not clean:
        return
    if checked is None or checked[0].has_errors:
        codes = {f.id for f in checked[0].findings if f.severity == "error"} if checked is not None else set()
        error = run.watch.error or stop
        run.watch.fail(journey, "not clean afterwards", " ".join(sorted(codes)), str(error or ""))
    if used is None:
        return
    for fault in used.faults[:1]:
        run.watch.fail(journey, "reads back", fault.split(" ", 2)[2].split(":")[0], fault)
    if journey == "session":
        differing = run.differing(f"content after {journey}", target, used.touched)
        if differing:
            run.watch.fail(journey, "content", "what was not touched", f"at {differing[:4]}")


def logical_session(target: Target, settings: Mapping[str, str], choose: random.Random) -> Used:
    """Use the logical device and close it."""
    mapper = open_logical(target, writable=True, settings=settings)
    model: dict[int, bytes | None] = {}
    used = Used()
    places = _places(mapper, choose)
    if places:
        for _ in range(choose.randrange(1, MAX_STEPS)):
            _step(mapper, model, choose, places)
    used.faults += _verify(mapper, model, "in the session")
    used.touched.update(model)
    try:
        mapper.close()
    except ZonedError:
        return used
    again = open_logical(target, writable=False, settings=settings)
    used.faults += _verify(again, model, "after the session")
    again.close()
    return used


def _places(mapper: Mapper, choose: random.Random) -> list[int]:
    """Where to work: near stored extents, and anywhere."""
    if not mapper.size_blocks:
        return []
    places = [choose.randrange(mapper.size_blocks) for _ in range(3)]
    try:
        stored = [e for e in mapper.lookup(0, mapper.size_blocks) if e.physical_block is not None]
    except ZonedError:
        stored = []
    for extent in choose.sample(stored, min(len(stored), 4)):
        places += [extent.logical_block, extent.logical_block + extent.blocks - 1]
    return places


def _step(mapper: Mapper, model: dict[int, bytes | None], choose: random.Random, places: list[int]) -> None:
    block = min(max(choose.choice(places) + choose.randrange(-2, 3), 0), mapper.size_blocks - 1)
    count = min(choose.choice(_LENGTHS), mapper.size_blocks - block)
    touched = range(block, block + count)
    kind = choose.randrange(10)
    try:
        if kind < 6:
            data = b"".join(_data(choose) for _ in touched)
            mapper.write(block, data)
            model.update({b: data[(b - block) * BLOCK :][:BLOCK] for b in touched})
        elif kind < 8:
            mapper.discard(block, count)
            model.update(dict.fromkeys(touched, bytes(BLOCK)))
        elif kind == 8:
            mapper.flush()
        else:
            mapper.read(block, count)
    except ZonedError:
        if kind < 8:
            model.update(dict.fromkeys(touched))  # whatever it is now


def _data(choose: random.Random) -> bytes:
    """A block that compresses, one that does not, or zeroes."""
    match choose.randrange(4):
        case 0:
            return choose.randbytes(BLOCK)
        case 1:
            return bytes(BLOCK)
        case 2:
            return choose.randbytes(choose.randrange(1, 3000)).ljust(BLOCK, b"\0")
        case _:
            return bytes([choose.randrange(256)]) * BLOCK


def _verify(mapper: Mapper, model: dict[int, bytes | None], when: str) -> list[str]:
    faults = []
    for block, expected in sorted(model.items()):
        if expected is None:
            continue
        try:
            if mapper.read(block, 1) != expected:
                faults.append(f"block {block} reads back differently {when}")
        except ZonedError as error:
            faults.append(f"block {block} cannot be read {when}: {error.message}")
    return faults
