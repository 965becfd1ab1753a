"""Run the requests of a trace through a mapper, up to a power cut if wanted.

The devices are seen through recorders, which count what reaches them and cut the power
after a given number of changes. With ``check_each`` the layout's check runs on the devices
after every flush, while the mapper is still open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from zoned_tools.device.overlay import (
    LogEntry,
    LoggedDiscard,
    LoggedFlush,
    LoggedManage,
    LoggedWrite,
    Overlay,
    Recorder,
)
from zoned_tools.engine.trace import CHUNK_BYTES, Action, Pattern, Request, pattern_data
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import UsageError, ZonedError
from zoned_tools.formats.contract import CountsZones, Evidence, Mapper, Reclaims, Target

OpenMapper = Callable[[Target], Mapper]
Check = Callable[[Target], Evidence]


class PowerCutError(ZonedError):
    """The power went at the change that was asked for."""

    error_id = "power-cut"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        crash_at: cut the power after so many changes (writes, discards and zone commands) of
            the devices; None lets the replay end and closes the mapper cleanly.
        pattern, seed: what writes of a trace without data carry; write number n of the
            trace, counted from 1, is stamped with ``seed + n``.
        dry_run: change copies in memory instead of the devices.
    """

    crash_at: int | None = None
    pattern: Pattern = Pattern.STAMP
    seed: int = 0
    dry_run: bool = False


@dataclass(slots=True)
class DeviceStatistics:
    """What reached the devices."""

    writes: int = 0
    write_bytes: int = 0
    discards: int = 0
    zone_commands: int = 0
    flushes: int = 0

    @property
    def changes(self) -> int:
        return self.writes + self.discards + self.zone_commands


@dataclass(slots=True)
class ReplayResult:
    """What a replay did.

    Attributes:
        requests: number of requests of each kind, ``bytes``: their lengths.
        crashed: the power was cut.
        last_place: the last request that was begun (``line 17``).
        checks: how many times the layout was checked.
        evidence: of the last check; the one with errors, if one had any.
        reclaim_steps: what the mapper did in waits that were long enough for an idle driver to reclaim.
        free_zones: by kind, where the mapper knows.
    """

    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Action), 0))
    bytes: dict[str, int] = field(default_factory=lambda: {"read": 0, "write": 0, "trim": 0})
    device: DeviceStatistics = field(default_factory=DeviceStatistics)
    crashed: bool = False
    last_place: str = ""
    checks: int = 0
    evidence: Evidence | None = None
    reclaim_steps: int = 0
    free_zones: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def has_errors(self) -> bool:
        return self.evidence is not None and self.evidence.has_errors


class _Forgetful(list[tuple[int, LogEntry]]):
    """A log that keeps nothing: a replay may write more than fits into memory."""

    def append(self, entry: tuple[int, LogEntry], /) -> None:
        """Drop ``entry``."""


class _Meter:
    """Counts changes ahead of the devices, and cuts the power."""

    def __init__(self, statistics: DeviceStatistics, crash_at: int | None) -> None:
        self._statistics = statistics
        self._crash_at = crash_at
        self.is_off = False

    def before(self, entry: LogEntry) -> None:
        """Called ahead of each change.

        Raises:
            PowerCutError: the change does not happen any more, nor any later one.
        """
        statistics = self._statistics
        due = self._crash_at is not None and statistics.changes >= self._crash_at
        if self.is_off or (due and not isinstance(entry, LoggedFlush)):
            self.is_off = True
            raise PowerCutError(f"power cut after {statistics.changes} changes of the devices")
        match entry:
            case LoggedWrite():
                statistics.writes += 1
                statistics.write_bytes += len(entry.data)
            case LoggedDiscard():
                statistics.discards += 1
            case LoggedManage():
                statistics.zone_commands += 1
            case LoggedFlush():
                statistics.flushes += 1


class _Replay:
    """One run; the steps of :func:`replay`."""

    def __init__(
        self,
        mapper: Mapper,
        meter: _Meter,
        result: ReplayResult,
        check: Callable[[], Evidence] | None,
        options: ReplayOptions,
        path: str,
    ) -> None:
        self._volume = Volume(mapper)
        self._meter = meter
        self._result = result
        self._check = check
        self._options = options
        self._path = path
        self._sequence = options.seed

    def run(self, requests: Iterable[Request]) -> None:
        """Carry the requests out; ends early when a check finds errors."""
        result = self._result
        for request in requests:
            result.last_place = request.place
            self._one(request)
            if self._meter.is_off:  # the mapper took the failure of its devices as an answer
                return
            result.requests[request.action] += 1
            if request.action in result.bytes:
                result.bytes[request.action] += request.length_bytes
            if request.action is Action.FLUSH and self._check is not None:
                result.checks += 1
                result.evidence = self._check()
                if result.evidence.has_errors:
                    return

    def _one(self, request: Request) -> None:
        volume = self._volume
        if not volume.contains(request.offset_bytes, request.length_bytes):
            raise UsageError(
                f"{request.place}: {request.length_bytes} bytes at byte {request.offset_bytes} are not on the logical "
                f"device of {volume.size_bytes} bytes",
                device=self._path,
            )
        match request.action:
            case Action.READ:
                for offset, length in _chunks(request):
                    volume.read(offset, length)
            case Action.WRITE:
                self._write(request)
            case Action.TRIM:
                volume.discard(request.offset_bytes, request.length_bytes)
            case Action.FLUSH:
                volume.mapper.flush()
            case Action.WAIT:
                mapper = volume.mapper
                if isinstance(mapper, Reclaims) and request.microseconds >= mapper.idle_seconds * 1_000_000:
                    self._result.reclaim_steps += mapper.reclaim()

    def _write(self, request: Request) -> None:
        if request.data is not None:
            self._volume.write(request.offset_bytes, request.data)
            return
        self._sequence += 1
        for offset, length in _chunks(request):
            self._volume.write(offset, pattern_data(self._options.pattern, self._sequence, offset, length))


def _chunks(request: Request) -> Iterable[tuple[int, int]]:
    """Parts of a long request that end on multiples of the chunk size."""
    at, end = request.offset_bytes, request.offset_bytes + request.length_bytes
    while at < end:
        stop = min((at // CHUNK_BYTES + 1) * CHUNK_BYTES, end)
        yield at, stop - at
        at = stop


def replay(
    target: Target,
    requests: Iterable[Request],
    open_mapper: OpenMapper,
    options: ReplayOptions | None = None,
    check_each: Check | None = None,
) -> ReplayResult:
    """Run ``requests`` through the mapper that ``open_mapper`` opens on the target's devices.

    Args:
        check_each: run after every flush, and once at the end, whatever the end was.

    Raises:
        UsageError: a request is not on the logical device.
        ZonedError: the mapper or the trace failed; the mapper has been closed, where it could be.
    """
    options = options or ReplayOptions()
    if options.dry_run:
        target = replace(target, devices=tuple(Overlay(device) for device in target.devices))
    result = ReplayResult()
    meter = _Meter(result.device, options.crash_at)
    log = _Forgetful()
    recorders = tuple(Recorder(d, log, number, meter.before) for number, d in enumerate(target.devices))
    began = time.monotonic()
    checking = None if check_each is None else lambda: check_each(target)
    try:
        mapper = open_mapper(replace(target, devices=recorders))
        try:
            _Replay(mapper, meter, result, checking, options, target.device.path).run(requests)
        finally:
            _close(mapper, meter)
            if isinstance(mapper, CountsZones):
                result.free_zones = dict(mapper.free_zones())
    except ZonedError:
        if not meter.is_off:  # a mapper may wrap the power cut in an error of its own
            raise
    result.crashed = meter.is_off
    if checking is not None and not result.has_errors:
        result.checks += 1
        result.evidence = checking()
    result.seconds = time.monotonic() - began
    return result


def _close(mapper: Mapper, meter: _Meter) -> None:
    """Close cleanly, unless the power is off: then nothing is written any more."""
    try:
        mapper.close()
    except ZonedError:
        if not meter.is_off:
            raise
