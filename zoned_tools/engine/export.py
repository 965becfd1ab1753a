"""The logical device's content as a sparse raw file, or as a stream.

What the mapper's lookup shows as not stored is a hole. Reading and writing overlap: while
one chunk is written by a worker thread, the next one is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.outputs import refuse_sources
from zoned_tools.engine.logical import opened_logical
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import DeviceError, ZonedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, CopiesItself, Journey, Mapper, Piece, Target

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer

CHUNK_BYTES = 4 << 20
WINDOW_BYTES = 256 << 20
"""Range of one lookup: bounds what is in memory of a fragmented device's extents."""
_WRITEBACK_BYTES = 32 << 20
_RETRY_BYTES = (64 << 10, LOGICAL_BLOCK_BYTES)
"""Where a chunk cannot be read, its parts are tried in these steps."""

Progress = Callable[[int], None]


@dataclass(slots=True)
class LostRange:
    """Bytes of the logical device that could not be read; the output has zeroes there.

    ``reason`` is that of the first block.
    """

    offset_bytes: int
    length_bytes: int
    reason: str


@dataclass(slots=True)
class ExportResult:
    """What an export did.

    Attributes:
        data_bytes: how much was stored, the rest of ``size_bytes`` are holes.
        lost: unreadable ranges, ascending, adjacent ones joined.
    """

    size_bytes: int
    data_bytes: int = 0
    lost: list[LostRange] = field(default_factory=list)

    def lose(self, offset_bytes: int, length_bytes: int, reason: str) -> None:
        last = self.lost[-1] if self.lost else None
        if last is not None and last.offset_bytes + last.length_bytes == offset_bytes:
            last.length_bytes += length_bytes
        else:
            self.lost.append(LostRange(offset_bytes, length_bytes, reason))


class Output:
    """Where an export goes: a file with holes, or anything that takes bytes in order."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode) and name != "-"
        self._at = 0
        self._advised = 0
        self._zeroes = b""

    def clear(self) -> None:
        """Take away what a file held."""
        if self.is_file:
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                raise DeviceError.from_os_error(error, self._name, "cannot overwrite") from None

    def data(self, buffer: Buffer) -> None:
        view = memoryview(buffer)
        try:
            while view:
                done = os.pwrite(self._fd, view, self._at) if self.is_file else os.write(self._fd, view)
                self._at += done
                view = view[done:]
            self._start_writeback()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DeviceError.from_os_error(error, self._name, "cannot write") from None

    def _start_writeback(self) -> None:
        """Have the kernel write what is old enough while the export goes on, so that the sync at the end is short."""
        length_bytes = self._at - self._advised
        if self.is_file and length_bytes >= _WRITEBACK_BYTES:
            # Dirty pages are not dropped by this advice, only queued for writing.
            os.posix_fadvise(self._fd, self._advised, length_bytes, os.POSIX_FADV_DONTNEED)
            self._advised = self._at

    def hole(self, length_bytes: int) -> None:
        if self.is_file:
            self._at += length_bytes
            return
        self._zeroes = self._zeroes or bytes(CHUNK_BYTES)
        for done in range(0, length_bytes, CHUNK_BYTES):
            self.data(memoryview(self._zeroes)[: length_bytes - done])

    def finish(self) -> None:
        """Give a file its length, and make everything durable."""
        try:
            if self.is_file:
                os.ftruncate(self._fd, self._at)
            if self._name != "-":
                os.fsync(self._fd)
        except OSError as error:
            if not self.is_file and error.errno == errno.EINVAL:  # pipes and the like cannot be synced
                return
            raise DeviceError.from_os_error(error, self._name, "cannot write") from None


@contextmanager
def open_output(path: str, sources: Sequence[str], *, force: bool = False) -> Iterator[Output]:
    """Open ``path`` for an export, ``-`` is standard output; a file that was made is removed when the export fails.

    Raises:
        DeviceError: it exists and ``force`` is not set, or it cannot be written.
        RefusedError: it is one of ``sources``.
    """
    if path == "-":
        yield Output(1, path)
        return
    refuse_sources(path, sources, "is what is exported")
    existed = os.path.lexists(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if force else os.O_EXCL), 0o666)
    except FileExistsError:
        raise DeviceError("already exists", device=path, hint="--force overwrites it") from None
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, OSError) else OSError(0, str(error))
        raise DeviceError.from_os_error(reason, path, "cannot create") from None
    try:
        output = Output(fd, path)
        output.clear()
        yield output
        output.finish()
    except BaseException:
        if not existed:
            with suppress(OSError):  # what failed is more interesting
                os.unlink(path)
        raise
    finally:
        os.close(fd)


def export_with_processes(
    mapper: Mapper,
    output: Output,
    path: str,
    *,
    processes: int,
    skip_errors: bool = False,
    progress: Progress = lambda _: None,
) -> ExportResult | None:
    """Let the mapper copy itself with several processes; None when it cannot, or it would not pay.

    Args:
        path: the file behind ``output``, which the processes open again.
        processes: 0 for one on each core.
    """
    if processes == 1 or not output.is_file or not isinstance(mapper, CopiesItself):
        return None
    copied = mapper.copy_to(path, processes=processes, skip_errors=skip_errors, progress=progress)
    if copied is None:
        return None
    result = ExportResult(mapper.size_blocks * LOGICAL_BLOCK_BYTES, copied[0])
    for offset, length, reason in copied[1]:
        result.lose(offset, length, reason)
    output.hole(result.size_bytes)
    return result


def export_volume(
    mapper: Mapper, output: Output, *, skip_errors: bool = False, progress: Progress = lambda _: None
) -> ExportResult:
    """Copy the logical device to ``output``; ``progress`` is told the bytes done, holes included.

    Raises:
        ZonedError: a block cannot be read (unless ``skip_errors``), or the output not written.
    """
    export = _Export(Volume(mapper), skip_errors=skip_errors)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="export") as worker:
        written: Future[None] | None = None
        for offset, length, stored in export.parts():
            data = export.read(offset, length) if stored else None
            if written is not None:
                written.result()
            written = worker.submit(output.data, data) if data is not None else worker.submit(output.hole, length)
            progress(offset + length)
        if written is not None:
            written.result()
    return export.result


def layout_pieces(target: Target) -> Iterator[Piece] | None:
    """What the layout's own ``export`` room gives, None when it has none."""
    export = registry.of(target).export
    return None if export is None else export(target)


def export_pieces(pieces: Iterator[Piece], output: Output) -> ExportResult:
    """Copy what a layout's own room gives to ``output``."""
    result = ExportResult(0)
    for length, data in pieces:
        if data is None:
            output.hole(length)
        else:
            output.data(data)
            result.data_bytes += length
        result.size_bytes += length
    return result


def export_target(
    target: Target,
    path: str,
    settings: Mapping[str, str],
    *,
    force: bool = False,
    skip_errors: bool = False,
    processes: int = 1,
    opened: Callable[[Mapper], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> ExportResult:
    """Write what a target holds to ``path``: what its layout's own room gives, or the logical device.

    Args:
        force: overwrite a file that exists.
        processes: that decompress, 0 for one on each core; 1 keeps to this one.
        opened: shown the mapper before anything is copied.

    Raises:
        ZonedError: a block cannot be read (unless ``skip_errors``), or the output not written.
    """
    pieces = layout_pieces(target)
    if pieces is not None:
        registry.of(target).parse_settings(settings, Journey.LOGICAL)
        with open_output(path, target.paths, force=force) as out:
            return export_pieces(pieces, out)
    with opened_logical(target, writable=False, settings=settings) as mapper:
        opened(mapper)
        with open_output(path, target.paths, force=force) as out:
            copied = export_with_processes(
                mapper, out, path, processes=processes, skip_errors=skip_errors, progress=progress
            )
            return copied or export_volume(mapper, out, skip_errors=skip_errors, progress=progress)


class _Export:
    def __init__(self, volume: Volume, *, skip_errors: bool) -> None:
        self._volume = volume
        self._skip_errors = skip_errors
        self._buffers = [memoryview(bytearray(CHUNK_BYTES)) for _ in range(2)]
        self.result = ExportResult(volume.size_bytes)

    def parts(self) -> Iterator[tuple[int, int, bool]]:
        """``(offset, length, stored)`` of the pieces to copy, in order; data in chunks."""
        for window in range(0, self._volume.size_bytes, WINDOW_BYTES):
            length = min(WINDOW_BYTES, self._volume.size_bytes - window)
            for offset, count, stored in self._extents(window, length):
                if not stored:
                    yield offset, count, False
                    continue
                for done in range(0, count, CHUNK_BYTES):
                    yield offset + done, min(CHUNK_BYTES, count - done), True

    def _extents(self, offset_bytes: int, length_bytes: int) -> list[tuple[int, int, bool]]:
        try:
            return list(self._volume.extents(offset_bytes, length_bytes))
        except ZonedError:
            if not self._skip_errors:
                raise
            return [(offset_bytes, length_bytes, True)]  # reading block by block tells what is lost

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """A chunk of stored data; unreadable blocks as zeroes if they are to be skipped.

        It stays as it is until the chunk after the next one is read.
        """
        self.result.data_bytes += length_bytes
        if not self._skip_errors:
            self._buffers.reverse()
            return self._volume.read_reusing(offset_bytes, length_bytes, self._buffers[0])
        return self._salvage(offset_bytes, length_bytes, _RETRY_BYTES)

    def _salvage(self, offset_bytes: int, length_bytes: int, steps: tuple[int, ...]) -> Buffer:
        try:
            return self._volume.read(offset_bytes, length_bytes)
        except ZonedError as error:
            if not steps or length_bytes <= LOGICAL_BLOCK_BYTES:
                self.result.lose(offset_bytes, length_bytes, error.message)
                return bytes(length_bytes)
        parts = (
            self._salvage(offset_bytes + done, min(steps[0], length_bytes - done), steps[1:])
            for done in range(0, length_bytes, steps[0])
        )
        return b"".join(parts)
