"""The logical device's content as a sparse raw file, or as a stream.

What the mapper's lookup shows as not stored is a hole. Reading and writing overlap: while
one chunk is written by a worker thread, the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import BAD_SECTOR, BadAreas, salvage_into
from zoned_tools.device.zones import SECTOR_BYTES
from zoned_tools.engine.logical import opened_logical
from zoned_tools.engine.losses import KnownLosses, find_losses, refuse_losses
from zoned_tools.engine.output import Output, open_output
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, CopiesItself, Mapper, Piece, Target
from zoned_tools.formats.shared.losses import REASONS, SalvagesBlocks

if TYPE_CHECKING:
    from zoned_tools.device.base import Buffer

CHUNK_BYTES = 4 << 20
WINDOW_BYTES = 256 << 20
"""Range of one lookup: bounds what is in memory of a fragmented device's extents."""
_RETRY_BYTES = (64 << 10, LOGICAL_BLOCK_BYTES)
"""Where a chunk cannot be read, its parts are tried in these steps."""

Progress = Callable[[int], None]


@dataclass(slots=True)
class LostRange:
    """Bytes of the logical device that could not be read; the output has zeroes there.

    ``reason`` is that of the first block, ``status`` ddrescue's letter of what is behind it, ``place`` where it lies
    (layouts of whose devices each is exported).
    """

    offset_bytes: int
    length_bytes: int
    reason: str
    status: str = BAD_SECTOR
    place: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(slots=True)
class ExportResult:
    """What an export did.

    Attributes:
        data_bytes: how much was stored, the rest of ``size_bytes`` are holes.
        lost: unreadable ranges, ascending; adjacent ones of one status are joined.
        guessed: ranges whose content is a guess, ascending.
        output: the file.
        generation: of the metadata, where a layout's devices are exported one by one.
        devices: the same for each device then; the figures above are sums, and the ranges those of all.
    """

    size_bytes: int
    data_bytes: int = 0
    lost: list[LostRange] = field(default_factory=list)
    guessed: list[LostRange] = field(default_factory=list)
    output: str = ""
    generation: int | None = None
    devices: list[ExportResult] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """The files."""
        return [one.output for one in self.devices] or [self.output]

    def lose(self, offset_bytes: int, length_bytes: int, reason: str, status: str = BAD_SECTOR) -> None:
        last = self.lost[-1] if self.lost else None
        if last is not None and last.offset_bytes + last.length_bytes == offset_bytes and last.status == status:
            last.length_bytes += length_bytes
        else:
            self.lost.append(LostRange(offset_bytes, length_bytes, reason, status))

    def map_rows(self) -> Iterator[tuple[int, int, str]]:
        """``(start, end, status)`` over the whole logical device, as a map file has them."""
        rows = ((lost.offset_bytes, lost.offset_bytes + lost.length_bytes, lost.status) for lost in self.lost)
        return BadAreas.of(rows).over(self.size_bytes)


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
    mapper: Mapper,
    output: Output,
    *,
    skip_errors: bool = False,
    progress: Progress = lambda _: None,
    known: KnownLosses | None = None,
) -> ExportResult:
    """Copy the logical device to ``output``; ``progress`` is told the bytes done, holes included.

    Args:
        known: what is known to be lost, for ``skip_errors``; without it every unreadable block is found by trying.

    Raises:
        ZonedError: a block cannot be read (unless ``skip_errors``), or the output not written.
    """
    export = _Export(Volume(mapper), known, skip_errors=skip_errors)
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


def export_pieces(pieces: Iterator[Piece], output: Output) -> ExportResult:
    """Copy pieces to ``output``."""
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
    """Write what a target holds to ``path``: the logical device.

    Of a layout whose devices are exported one by one, several go to files in the directory ``path``.

    Args:
        force: overwrite a file that exists.
        processes: that decompress, 0 for one on each core; 1 keeps to this one.
        opened: shown the mapper before anything is copied.

    Raises:
        ZonedError: a block cannot be read (unless ``skip_errors``), or the output not written.
    """
    from zoned_tools.engine.views import export_views, has_views  # they stand on this module

    if has_views(target):
        return export_views(
            target, path, settings, force=force, skip_errors=skip_errors, opened=opened, progress=progress
        )
    result = _export_logical(
        target,
        path,
        settings,
        force=force,
        skip_errors=skip_errors,
        processes=processes,
        opened=opened,
        progress=progress,
    )
    result.output = path
    return result


def _export_logical(
    target: Target,
    path: str,
    settings: Mapping[str, str],
    *,
    force: bool,
    skip_errors: bool,
    processes: int,
    opened: Callable[[Mapper], None],
    progress: Progress,
) -> ExportResult:
    """The logical device."""
    with opened_logical(target, writable=False, settings=settings) as mapper:
        opened(mapper)
        losses = find_losses(target, mapper)
        known = KnownLosses(target, losses)
        if known.rows and not skip_errors:
            refuse_losses(target, known.rows)
        with open_output(path, target.paths, force=force) as out:
            copied = None
            if not known.rows:
                copied = export_with_processes(
                    mapper, out, path, processes=processes, skip_errors=skip_errors, progress=progress
                )
            result = copied or export_volume(mapper, out, skip_errors=skip_errors, progress=progress, known=known)
        result.guessed = [LostRange(g.offset_bytes, g.length_bytes, g.reason, g.status) for g in losses.guessed]
        return result


class _Export:
    def __init__(self, volume: Volume, known: KnownLosses | None, *, skip_errors: bool) -> None:
        self._volume = volume
        self._known = known if skip_errors else None
        self._skip_errors = skip_errors
        self._buffers = [memoryview(bytearray(CHUNK_BYTES)) for _ in range(2)]
        self.result = ExportResult(volume.size_bytes)

    def parts(self) -> Iterator[tuple[int, int, bool]]:
        """``(offset, length, stored)`` of the pieces to copy, in order; data in chunks."""
        for window in range(0, self._volume.size_bytes, WINDOW_BYTES):
            length = min(WINDOW_BYTES, self._volume.size_bytes - window)
            at = window
            for lost in self._known.inside(window, length) if self._known is not None else ():
                yield from self._stored_parts(at, lost.offset_bytes - at)
                self.result.lose(lost.offset_bytes, lost.length_bytes, lost.reason, lost.status)
                yield lost.offset_bytes, lost.length_bytes, False
                at = lost.offset_bytes + lost.length_bytes
            yield from self._stored_parts(at, window + length - at)

    def _stored_parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, bool]]:
        for offset, count, stored in self._extents(offset_bytes, length_bytes):
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
                return self._salvage_block(offset_bytes, length_bytes, error)
        parts = (
            self._salvage(offset_bytes + done, min(steps[0], length_bytes - done), steps[1:])
            for done in range(0, length_bytes, steps[0])
        )
        return b"".join(parts)

    def _salvage_block(self, offset_bytes: int, length_bytes: int, error: ZonedError) -> Buffer:
        """The sectors of a block that can be read, where it is stored as it is."""
        known = None if self._known is None else self._known.at(offset_bytes)
        stored = None if self._known is None else self._stored_sectors(self._known.target, offset_bytes)
        if stored is None or not len(stored[1]):
            lost = ("", BAD_SECTOR) if known is None else (known.reason, known.status)
            self.result.lose(offset_bytes, length_bytes, lost[0] or error.message, lost[1])
            return bytes(length_bytes)
        for start, end, status in stored[1]:
            self.result.lose(offset_bytes + start, end - start, REASONS[status], status)
        return stored[0]

    def _stored_sectors(self, target: Target, offset_bytes: int) -> tuple[Buffer, BadAreas] | None:
        """What is stored for a block, and what of it cannot be read; None where that is not the block as it is."""
        mapper = self._volume.mapper
        if isinstance(mapper, SalvagesBlocks):
            return mapper.salvage_block(offset_bytes // LOGICAL_BLOCK_BYTES)
        try:
            extent = next(iter(mapper.lookup(offset_bytes // LOGICAL_BLOCK_BYTES, 1)))
        except (ZonedError, StopIteration):
            return None
        if extent.physical_block is None:
            return None
        content, at = bytearray(LOGICAL_BLOCK_BYTES), extent.physical_block * LOGICAL_BLOCK_BYTES
        device = target.devices[extent.device_index]
        if at + LOGICAL_BLOCK_BYTES > device.geometry.size_bytes:  # a damaged map, or one of which a part is lost
            return None
        return content, salvage_into(device, at, memoryview(content), unit_bytes=SECTOR_BYTES).shifted(-at)
