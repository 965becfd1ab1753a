"""The logical device of an installed layout: what it can do stays, what goes wrong names the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zoned_tools.errors import DeviceError, LayoutError
from zoned_tools.formats.contract import (
    CopiesItself,
    CountsZones,
    MapExtent,
    Mapper,
    ReadsInto,
    Reclaims,
    Warns,
)
from zoned_tools.formats.strangers.guard import Guard
from zoned_tools.formats.strangers.mapper import guarded_mapper
from zoned_tools.formats.strangers.values import WrongError

GUARD = Guard("small", "zoned-small", "disk.img")


class Plain:
    """A mapper of 16 blocks that can do what every mapper can."""

    size_blocks = 16
    writable = True

    def __init__(self) -> None:
        self.done: list[object] = []

    def read(self, block: int, count: int) -> bytes:
        return bytes([block]) * (count * 4096)

    def write(self, block: int, data: bytes, stream: int = 0) -> None:
        self.done.append(("write", block, len(data), stream))

    def discard(self, block: int, count: int) -> None:
        self.done.append(("discard", block, count))

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        yield MapExtent(block, count, 0, None, "a hole")

    def flush(self) -> None:
        self.done.append("flush")

    def close(self) -> None:
        self.done.append("close")


class Able(Plain):
    """One that can do everything."""

    reclaims_when_idle = True
    idle_seconds = 3
    warnings = ("odd",)

    def read_into(self, block: int, buffer: memoryview) -> None:
        buffer[:] = self.read(block, len(buffer) // 4096)

    def copy_to(self, path: str, **_: object) -> tuple[int, list[tuple[int, int, str]]]:
        return 4096, [(0, 4096, path)]

    def reclaim(self) -> int:
        return 2

    def free_zones(self) -> dict[str, int]:
        return {"random": 7}


def guarded(mapper: object) -> Any:
    return guarded_mapper(mapper, GUARD, 1)  # type: ignore[arg-type]  # wrong ones are what the tests are about


CAPABILITIES = (ReadsInto, CopiesItself, Reclaims, CountsZones, Warns)


def test_it_has_the_capabilities_that_it_had() -> None:
    assert not isinstance(guarded(Plain()), CAPABILITIES)
    able = guarded(Able())
    for capability in CAPABILITIES:
        assert isinstance(able, capability)
    counting = type("Counting", (Plain,), {"free_zones": lambda self: {}})
    assert isinstance(guarded(counting()), CountsZones)
    assert not isinstance(guarded(counting()), Reclaims)


def test_what_is_right_goes_through() -> None:
    inner = Able()
    mapper = guarded(inner)
    assert (mapper.size_blocks, mapper.writable, mapper.read(3, 2)) == (16, True, b"\3" * 8192)
    mapper.write(1, b"x" * 4096, 5)
    mapper.discard(2, 3)
    mapper.flush()
    mapper.close()
    assert inner.done == [("write", 1, 4096, 5), ("discard", 2, 3), "flush", "close"]
    assert list(mapper.lookup(4, 2)) == [MapExtent(4, 2, 0, None, "a hole")]
    buffer = bytearray(4096)
    mapper.read_into(9, memoryview(buffer))
    assert buffer == b"\t" * 4096
    assert (mapper.reclaim(), mapper.reclaims_when_idle, mapper.idle_seconds) == (2, True, 3)
    assert (mapper.free_zones(), list(mapper.warnings)) == ({"random": 7}, ["odd"])
    assert mapper.copy_to("f", processes=1, skip_errors=False, progress=print) == (4096, [(0, 4096, "f")])


def _raise(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


CALLS: dict[str, Callable[[Any], object]] = {
    "read": lambda m: m.read(0, 1),
    "write": lambda m: m.write(0, bytes(4096)),
    "discard": lambda m: m.discard(0, 1),
    "lookup": lambda m: list(m.lookup(0, 1)),
    "flush": lambda m: m.flush(),
    "close": lambda m: m.close(),
    "read_into": lambda m: m.read_into(0, memoryview(bytearray(4096))),
    "copy_to": lambda m: m.copy_to("f", processes=1, skip_errors=False, progress=print),
    "reclaim": lambda m: m.reclaim(),
    "free_zones": lambda m: m.free_zones(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("error", [IndexError("boom"), SystemExit(1)], ids=["exception", "exit"])
def test_what_a_method_raises_names_the_package(name: str, error: BaseException) -> None:
    mapper = guarded(type("Failing", (Able,), {name: _raise(error)})())
    with pytest.raises(LayoutError, match=f"small of the package zoned-small: {name} failed: {type(error).__name__}"):
        CALLS[name](mapper)


def test_errors_that_are_meant_stay_what_they_are() -> None:
    mapper = guarded(type("Failing", (Able,), {"read": _raise(DeviceError("bad block", errno=5))})())
    with pytest.raises(DeviceError, match="bad block"):
        mapper.read(0, 1)


def test_the_power_button_works() -> None:
    mapper = guarded(type("Failing", (Able,), {"read": _raise(KeyboardInterrupt())})())
    with pytest.raises(KeyboardInterrupt):
        mapper.read(0, 1)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("read", None),
        ("read", bytes(100)),
        ("lookup", None),
        ("lookup", [5]),
        ("lookup", [MapExtent(0, 0, 0, None, "")]),
        ("lookup", [MapExtent(0, 1, 1, 5, "")]),
        ("lookup", [MapExtent(0, 1, 0, -5, "")]),
        ("reclaim", None),
        ("free_zones", {"random": "many"}),
        ("copy_to", (1, None)),
    ],
)
def test_what_a_method_gives_is_looked_at(name: str, given: object) -> None:
    mapper = guarded(type("Odd", (Able,), {name: lambda *_, **__: given})())
    with pytest.raises(LayoutError, match=f"{name} (gave|failed)"):
        CALLS[name](mapper)


@pytest.mark.parametrize(
    "thing",
    [
        None,
        type("NoRead", (), {}),
        type("NoSize", (Plain,), {"size_blocks": None})(),
        type("Negative", (Plain,), {"size_blocks": -1})(),
        type("Perhaps", (Plain,), {"writable": "yes"})(),
    ],
)
def test_what_is_no_mapper_is_refused(thing: Mapper | None) -> None:
    with pytest.raises(WrongError):
        guarded(thing)
