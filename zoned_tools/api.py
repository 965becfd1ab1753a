"""The public Python API; :mod:`zoned_tools` re-exports it lazily.

A drive is an image file, a ``/dev`` node or a zloop directory. A target is what a layout makes of one or more
drives. Whatever drives, files and their content can do raises :class:`zoned_tools.errors.ZonedError`, from file objects
:class:`OSError`; arguments that cannot be meant raise :class:`TypeError` or :class:`ValueError` as everywhere.

    with zoned_tools.open_target("disk.img") as target:
        evidence = target.check()
        print(evidence.verdict, len(evidence.findings))
"""

from __future__ import annotations

import errno
import io
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Never, Self, SupportsIndex
from weakref import WeakSet

from zoned_tools.device.opening import open_device, open_devices
from zoned_tools.engine import checking, export, logical, opening, rehearsing, repairing
from zoned_tools.engine.changing import Carried, carry_out
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import BusyError, ContentError, DeviceError, RefusedError, UsageError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import (
    CheckOptions,
    Consents,
    Evidence,
    Journey,
    MapExtent,
    RepairPlan,
    need,
)
from zoned_tools.formats.contract import Target as _Target

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer, WriteableBuffer

    from zoned_tools.device.base import Device
    from zoned_tools.engine.export import ExportResult
    from zoned_tools.engine.rehearsing import Rehearsal
    from zoned_tools.formats.contract import Identity, Mapper

PathLike = str | os.PathLike[str]

Values = Mapping[str, str | int | bool]
"""A layout's settings; ``zoned check --help`` and zoned-settings(7) list them."""


def _words(layout: str, settings: Values) -> dict[str, str]:
    """Settings as a command line has them; Python names write ``-`` as ``_``."""
    known = {setting.name for setting in registry.get(layout).settings}
    return {name if name in known else name.replace("_", "-"): _word(value) for name, value in settings.items()}


def _word(value: str | int | bool) -> str:  # noqa: FBT001 - a value, not a switch
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def open_drive(path: PathLike, *, writable: bool = False) -> Device:
    """A drive: ``geometry``, ``zones()`` as a numpy array of :data:`zoned_tools.device.zones.ZONE_DTYPE`, ``read``.

    Use it as a context manager.

    Raises:
        ZonedError: missing, not a drive, damaged, or (``writable``) used by somebody else.
    """
    return open_device(os.fspath(path), writable=writable)


def probe(path: PathLike, *, start_sector: int | None = None) -> Identity | None:
    """Which layout is on a drive, None when nothing is recognised."""
    with open_drive(path) as device:
        return opening.probe_device(device, start_sector).identity


def find_targets(paths: Iterable[PathLike]) -> list[list[str]]:
    """Which of the named drives belong together: the paths of each target, members in order.

    Drives on which nothing is recognised are left out.
    """
    with opening.opened_targets([os.fspath(path) for path in paths]) as found:
        errors = [failure.error for failure in found.failed]
        if errors:
            raise errors[0]
        return [list(target.paths) for target in found.targets]


def open_target(
    *paths: PathLike, layout: str | None = None, start_sector: int | None = None, writable: bool = False
) -> Target:
    """The one target that the named drives are.

    Args:
        layout: take it for granted instead of probing.
        start_sector: where it begins, in sectors of 512 bytes.
        writable: :meth:`Target.apply` and writing to the logical device are possible.

    Raises:
        ZonedError: nothing is recognised, or the drives are several targets.
    """
    stack = ExitStack()
    names = [os.fspath(path) for path in paths]
    try:
        inner = stack.enter_context(opening.opened_target(names, start_sector, layout, writable=writable))
    except BaseException:
        stack.close()
        raise
    return Target(inner, stack)


class Target:
    """A layout's instance on one or more open drives; made by :func:`open_target`, closed by ``with``."""

    def __init__(self, inner: _Target, stack: ExitStack) -> None:
        self._opened = inner
        self._stack = stack
        self._files: WeakSet[LogicalFile] = WeakSet()
        self._current: list[Evidence | RepairPlan] = []  # made since the last change
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the drives, and before them the logical devices that are still open."""
        if self._is_closed:
            return
        self._is_closed = True
        with self._stack:
            for file in list(self._files):
                self._stack.callback(file.close)

    def __reduce__(self) -> Never:
        raise TypeError("a Target cannot be copied or pickled: it holds open drives")

    @property
    def _inner(self) -> _Target:
        """What the engine knows it as.

        Raises:
            DeviceError: it was closed.
        """
        if self._is_closed:
            raise DeviceError("closed", device=self._opened.device.path, errno=errno.EBADF)
        return self._opened

    @property
    def _has_writer(self) -> bool:
        return any(file.writable() for file in self._files if not file.closed)

    def _refuse_writer(self, what: str) -> None:
        """Two writers of one target know nothing of each other's changes.

        Raises:
            BusyError: a logical device is open for writing.
        """
        if self._has_writer:
            raise BusyError(
                f"its logical device is open for writing, close it to {what}", device=self._inner.device.path
            )

    @property
    def layout(self) -> str:
        """Name of the layout (``dm-zoned``)."""
        return self._opened.layout

    @property
    def paths(self) -> tuple[str, ...]:
        """The drives, in the target's order."""
        return self._opened.paths

    @property
    def drives(self) -> tuple[Device, ...]:
        return self._inner.devices

    def inspect(self) -> dict[str, object]:
        """The decoded metadata as a tree of small values."""
        return registry.of(self._inner).inspect(self._inner)

    # -- check and repair

    def check(self, *, deep: bool = False, **settings: str | int | bool) -> Evidence:
        """Everything that can be found without writing: ``findings``, ``facts``, ``verdict``.

        Args:
            deep: verify payload data too, where the layout has any to verify.
            settings: the layout's own choices.
        """
        evidence, _ = checking.gather(self._inner, self._options(settings, deep=deep))
        if not self._has_writer:
            self._current.append(evidence)
        return evidence

    def plan_repair(self, evidence: Evidence, *, allow: Iterable[str] = (), **settings: str | int | bool) -> RepairPlan:
        """What mends the findings: ``actions`` (why, and what waits for consent) and ``plan`` (the steps).

        Args:
            allow: codes whose guessing or losing repairs are agreed to, as ``zoned check --allow``.
        """
        plan = repairing.plan_repair(evidence, self._consents(allow, settings))
        if self._is_current(evidence):
            self._current.append(plan)
        return plan

    def rehearse(
        self, evidence: Evidence, plan: RepairPlan, *, allow: Iterable[str] = (), **settings: str | int | bool
    ) -> Rehearsal:
        """Carry a repair out on a copy-on-write view, and check that; nothing is written."""
        options = self._options(settings)
        rehearsal = rehearsing.rehearse(evidence, plan, self._consents(allow, settings), options)
        if self._is_current(evidence):
            self._current.append(rehearsal.plan)
        return rehearsal

    def apply(self, plan: RepairPlan, *, undo: PathLike | None = None, no_undo: bool = False) -> Carried:
        """Carry a plan out and read it back; the result is true when there was anything to write.

        The plan has to be of this target as it is now: a plan of another one, or from before an earlier
        :meth:`apply` or writing to the logical device, would overwrite what it knows nothing of.

        Args:
            undo: file for what is overwritten, written and synced first, by default one in the state directory;
                ``zoned undo`` plays it back.
            no_undo: save nothing.

        Raises:
            RefusedError: it is not a plan of this target as it is now.
            BusyError: the logical device is open for writing.
            ZonedError: a write failed; the undo file is there.
        """
        self._refuse_writer("carry a plan out")
        if not self._is_current(plan):
            raise RefusedError("not a plan of this target as it is now", device=self.paths[0], hint="check it again")
        self._current.clear()
        path = None if undo is None else os.fspath(undo)
        return carry_out(plan.plan, self._inner.devices, undo=path, no_undo=no_undo)

    def _is_current(self, made: Evidence | RepairPlan) -> bool:
        return any(made is one for one in self._current) and not self._has_writer

    def _options(self, settings: Values, *, deep: bool = False) -> CheckOptions:
        layout = registry.of(self._inner)
        return CheckOptions(deep, layout.parse_settings(_words(self.layout, settings), Journey.CHECK, Journey.REPAIR))

    def _consents(self, allow: Iterable[str], settings: Values) -> Consents:
        codes = frozenset([allow] if isinstance(allow, str) else allow)
        return repairing.consents_of(registry.of(self._inner), codes, self._options(settings))

    # -- the logical device

    def open(self, *, writable: bool = False, **settings: str | int | bool) -> LogicalFile:
        """The logical device as a seekable binary file; one at a time for writing.

        Raises:
            BusyError: it is open for writing already.
            ZonedError: the layout has none, it cannot be opened, or the target was opened read-only.
        """
        inner = self._inner
        if writable and not all(device.writable for device in inner.devices):
            raise UsageError("the target was opened read-only, open it with writable=True", device=inner.device.path)
        if writable:
            self._refuse_writer("open it again")
            self._current.clear()
        file = LogicalFile(logical.open_logical(inner, writable=writable, settings=_words(self.layout, settings)))
        self._files.add(file)
        return file

    def map(self, first_block: int = 0, count: int | None = None, **settings: str | int | bool) -> Iterator[MapExtent]:
        """Where logical blocks of 4096 bytes live: ascending, without gaps, holes included; of btrfs every copy."""
        if logical.has_copies(self._inner):
            last = _LOGICAL_BLOCKS - first_block if count is None else count
            wanted = None if (first_block, count) == (0, None) else [(first_block, last)]
            copies = logical.map_copies(self._inner, _words(self.layout, settings), wanted)
            yield from (run.extent for run in copies)
            return
        with logical.opened_logical(self._inner, writable=False, settings=_words(self.layout, settings)) as mapper:
            blocks = mapper.size_blocks - first_block if count is None else count
            yield from (run.extent for run in logical.map_blocks(self._inner, mapper, first_block, blocks))

    def export(
        self,
        path: PathLike,
        *,
        force: bool = False,
        skip_errors: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        **settings: str | int | bool,
    ) -> ExportResult:
        """Write the logical device's content to a sparse raw file.

        Args:
            force: overwrite a file that exists.
            skip_errors: zeroes where blocks cannot be read; the result lists them.
            progress: told the bytes done.
        """
        name = os.fspath(path)
        return export.export_target(
            self._inner, name, _words(self.layout, settings), force=force, skip_errors=skip_errors, progress=progress
        )


_LOGICAL_BLOCKS = 1 << 52
"""More than 64-bit addresses reach."""


def format(  # noqa: A001 - the field's own word
    *paths: PathLike,
    layout: str,
    start_sector: int | None = None,
    force: bool = False,
    undo: PathLike | None = None,
    no_undo: bool = False,
    **settings: str | int | bool,
) -> None:
    """Make a new, empty instance of ``layout`` on drives.

    Args:
        start_sector: where it begins, in sectors of 512 bytes, for layouts that need a partition.
        force: overwrite what is there.
        undo: file for what is overwritten, by default one in the state directory.
        no_undo: save nothing.
        settings: label, uuid and the layout's own (zoned-settings(7)).

    Raises:
        ContentError: there is something already.
        ZonedError: the drives cannot carry the layout.
    """
    from zoned_tools.engine.content import refuse_content

    kind = registry.get(layout)
    with open_devices([os.fspath(path) for path in paths], writable=True) as devices:
        if not devices:
            raise UsageError("no drive is named")
        if not force:
            for device in devices:
                refuse_content(device, start_sector, hint="force=True overwrites it")
        target = opening.target_at(kind, devices, start_sector)
        plan_format = need(kind.plan_format, target, "format")
        plan = plan_format(target, kind.parse_settings(_words(layout, settings), Journey.FORMAT))
        path = None if undo is None else os.fspath(undo)
        carry_out(plan, target.devices, undo=path, no_undo=no_undo)


class LogicalFile(io.RawIOBase):
    """A logical device as a raw binary file; wrap it in :class:`io.BufferedReader` for small reads.

    Failures of the drive are :class:`OSError` with the drive's errno, as file objects raise them.
    """

    def __init__(self, mapper: Mapper) -> None:
        super().__init__()
        self._mapper = mapper
        self._volume = Volume(mapper)
        self._at = 0
        self._is_done = False

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Never:
        raise TypeError("a LogicalFile cannot be copied or pickled: it holds open drives")

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def readable(self) -> bool:
        self._require_open()
        return True

    def writable(self) -> bool:
        self._require_open()
        return self._mapper.writable

    def seekable(self) -> bool:
        self._require_open()
        return True

    @property
    def size_bytes(self) -> int:
        return self._volume.size_bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._require_open()
        offset = operator.index(offset)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size_bytes}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence ({whence})")
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        self._require_open()
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._require_open()
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self.size_bytes - self._at), 0)
        if count:
            try:
                view[:count] = self._volume.read(self._at, count)
            except ZonedError as error:
                raise _os_error(error) from error
            self._at += count
        return count

    def write(self, data: ReadableBuffer, /) -> int:
        if not self.writable():
            raise io.UnsupportedOperation("opened read-only")
        view = memoryview(data).cast("B")
        count = max(min(len(view), self.size_bytes - self._at), 0)
        if len(view) and not count:
            raise OSError(errno.ENOSPC, "no space left on the logical device")
        try:
            self._volume.write(self._at, view[:count])
        except ZonedError as error:
            raise _os_error(error) from error
        self._at += count
        return count

    def flush(self) -> None:
        """Make everything written durable."""
        self._require_open()
        if not self._is_done and self.writable():
            try:
                self._mapper.flush()
            except ZonedError as error:
                raise _os_error(error) from error

    def close(self) -> None:
        """Clean close, as a stop of the driver."""
        if self._is_done:
            return
        self._is_done = True
        try:
            self._mapper.close()
        except ZonedError as error:
            raise _os_error(error) from error
        finally:
            super().close()


def _os_error(error: ZonedError) -> OSError:
    return OSError(getattr(error, "errno", 0) or errno.EIO, str(error))


__all__ = [
    "ContentError",
    "Evidence",
    "LogicalFile",
    "MapExtent",
    "RepairPlan",
    "Target",
    "UsageError",
    "ZonedError",
    "find_targets",
    "format",
    "open_drive",
    "open_target",
    "probe",
]
