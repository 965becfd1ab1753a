"""The mapper of an installed layout under guard, with just the capabilities that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from zoned_tools.formats.contract import CopiesItself, CountsZones, ReadsInto, Reclaims, Warns
from zoned_tools.formats.strangers import values
from zoned_tools.formats.strangers.values import WrongError, require, require_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zoned_tools.device.base import Buffer
    from zoned_tools.formats.contract import MapExtent, Mapper
    from zoned_tools.formats.strangers.guard import Guard

_METHODS = ("read", "write", "discard", "lookup", "flush", "close")


class _Everything(ReadsInto, CopiesItself, Reclaims, CountsZones, Warns, Protocol):
    """A mapper that has every capability; which of them one has is known when it is opened."""

    def read(self, block: int, count: int) -> bytes: ...
    def write(self, block: int, data: Buffer, stream: int = 0) -> None: ...
    def discard(self, block: int, count: int) -> None: ...
    def lookup(self, block: int, count: int) -> Iterator[MapExtent]: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


def guarded_mapper(mapper: Mapper, guard: Guard, devices: int) -> Mapper:
    """The mapper behind ``guard``; ``devices`` is how many devices its target has.

    Raises:
        WrongError: it is none.
    """
    for name in _METHODS:
        if not callable(getattr(mapper, name, None)):
            raise WrongError(f"{values.kind_of(mapper)}, which has no {name}, instead of a mapper")
    size, writable = require_count(mapper.size_blocks, 1 << 52), require(mapper.writable, bool)
    bases = [part for capability, part in _PARTS if isinstance(mapper, capability)]
    kind = type("GuardedMapper", (*bases, _Guarded), {})
    return cast("Mapper", kind(mapper, guard, size, devices, writable=writable))


class _Guarded:
    """What every mapper has."""

    def __init__(self, mapper: Mapper, guard: Guard, size_blocks: int, devices: int, *, writable: bool) -> None:
        self.size_blocks = size_blocks
        self.writable = writable
        self._mapper = cast("_Everything", mapper)
        self._guard = guard
        self._devices = devices

    def _do(self, name: str, call: Callable[[], object]) -> None:
        self._guard.call(name, call, lambda _: None)

    def read(self, block: int, count: int) -> Buffer:
        return self._guard.call("read", lambda: self._mapper.read(block, count), lambda it: values.blocks(it, count))

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        self._do("write", lambda: self._mapper.write(block, data, stream))

    def discard(self, block: int, count: int) -> None:
        self._do("discard", lambda: self._mapper.discard(block, count))

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        return self._guard.each(
            "lookup", lambda: self._mapper.lookup(block, count), lambda it: values.extent(it, self._devices)
        )

    def flush(self) -> None:
        self._do("flush", self._mapper.flush)

    def close(self) -> None:
        self._do("close", self._mapper.close)


class _ReadsInto(_Guarded):
    def read_into(self, block: int, buffer: memoryview) -> None:
        self._do("read_into", lambda: self._mapper.read_into(block, buffer))


class _CopiesItself(_Guarded):
    def copy_to(
        self, path: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
    ) -> tuple[int, list[tuple[int, int, str]]] | None:
        return self._guard.call(
            "copy_to",
            lambda: self._mapper.copy_to(path, processes=processes, skip_errors=skip_errors, progress=progress),
            _copied,
        )


class _Reclaims(_Guarded):
    @property
    def reclaims_when_idle(self) -> bool:
        return self._guard.call(
            "reclaims_when_idle", lambda: self._mapper.reclaims_when_idle, lambda it: require(it, bool)
        )

    @property
    def idle_seconds(self) -> int:
        return self._guard.call("idle_seconds", lambda: self._mapper.idle_seconds, require_count)

    def reclaim(self) -> int:
        return self._guard.call("reclaim", self._mapper.reclaim, require_count)


class _CountsZones(_Guarded):
    def free_zones(self) -> Mapping[str, int]:
        return self._guard.call("free_zones", self._mapper.free_zones, _counts)


class _Warns(_Guarded):
    @property
    def warnings(self) -> Sequence[str]:
        return self._guard.call(
            "warnings", lambda: self._mapper.warnings, lambda it: [require(line, str) for line in it]
        )


def _copied(
    value: tuple[int, list[tuple[int, int, str]]] | None,
) -> tuple[int, list[tuple[int, int, str]]] | None:
    if value is None:
        return None
    stored, lost = require(value, tuple)
    ranges = [(require_count(at), require_count(length), require(why, str)) for at, length, why in lost]
    return require_count(stored), ranges


def _counts(value: Mapping[str, int]) -> dict[str, int]:
    return {require(kind, str): require_count(count) for kind, count in value.items()}


_PARTS: tuple[tuple[type, type[_Guarded]], ...] = (
    (ReadsInto, _ReadsInto),
    (CopiesItself, _CopiesItself),
    (Reclaims, _Reclaims),
    (CountsZones, _CountsZones),
    (Warns, _Warns),
)
