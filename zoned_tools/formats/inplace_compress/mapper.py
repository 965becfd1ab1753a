"""Offline model of the target: reads, writes in windows, metadata policies, counters.

Writes follow the driver (dm-inplace-compress.c, ``dm_icomp_handle_write``): requests are
cut at windows; an extent that is only partly covered is decoded, patched and stored again
whole; a completely covered one is replaced without being read. One of its defects is not
reproduced unless asked for: data behind a partly covered extent taken from the start of
the request.

Policies, as in the table line: ``writethrough`` writes the touched pages of the bitmap
after each piece's data; ``writeback=N`` keeps them in memory until a flush, the close, or
until N seconds have passed since the last commit. Unlike the driver, a commit flushes
the data first, so that after a flush nothing older can be lost. What a crash between
flushes leaves is in any policy what the driver leaves: new payloads behind old entries.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from zoned_tools.device.base import Buffer
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.inplace_compress import layout, table
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.compressors import WRITABLE, Compressor
from zoned_tools.formats.inplace_compress.extents import Extents
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.metadata import extent_entries
from zoned_tools.formats.inplace_compress.payload import encode_extents
from zoned_tools.formats.inplace_compress.reading import BadExtent, Unreadable, contents, fail
from zoned_tools.formats.inplace_compress.table import arguments_from_options
from zoned_tools.formats.inplace_compress.volume import Volume, known_compressor, open_volume
from zoned_tools.formats.registry import MapExtent, Target, require_known

OPTIONS = (*table.OPTIONS, "window", "encoder", "bitmap", "unreadable", "discard", "emulate")
"""Options that :func:`open_mapper` understands; see there."""

_HOLE = "hole, never written"


@dataclass(slots=True)
class Counters:
    """What ``dmsetup status`` shows: bytes written, stored and spent on the bitmap."""

    uncompressed_bytes: int = 0
    compressed_bytes: int = 0
    metadata_bytes: int = 0

    def status(self) -> str:
        return f"{self.uncompressed_bytes} {self.compressed_bytes} {self.metadata_bytes}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a mapper behaves.

    Attributes:
        writeback_seconds: None for writethrough.
        window_blocks: 2 or 32, the driver's on hosts with 4 KiB and 64 KiB pages.
        exact_encoder: make the kernel's own LZO streams instead of the fastest library's.
        misplaced_data: reproduce the driver's defect behind partly covered extents.
        discards: False to refuse them as the driver does.
    """

    writeback_seconds: int | None = None
    window_blocks: int = 2
    exact_encoder: bool = True
    misplaced_data: bool = False
    discards: bool = True
    critical: bool = False


class InplaceMapper:
    """The logical device of a volume (:class:`~zoned_tools.formats.registry.Mapper`)."""

    def __init__(
        self,
        volume: Volume,
        settings: Settings,
        *,
        writable: bool,
        on_bad: BadExtent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.volume = volume
        self.settings = settings
        self.counters = Counters()
        self._writable = writable
        self._on_bad = on_bad or fail(volume.device.path)
        self._bitmap = Bitmap(volume, settings.window_blocks // 2 * BLOCK_BYTES)
        self._clock = clock
        self._committed_at = clock()
        self._compressor = known_compressor(volume)

    @property
    def size_blocks(self) -> int:
        return self.volume.data_blocks

    @property
    def writable(self) -> bool:
        return self._writable

    def _check_range(self, block: int, count: int) -> None:
        if block < 0 or count < 0 or block + count > self.size_blocks:
            raise DeviceError(
                f"blocks {block} to {block + count - 1} lie outside of {self.size_blocks} blocks",
                device=self.volume.device.path,
                errno=errno.EINVAL,
            )

    def _check_writable(self, block: int, count: int) -> None:
        if not self._writable:
            raise DeviceError("opened for reading only", device=self.volume.device.path, errno=errno.EROFS)
        self._check_range(block, count)

    def read(self, block: int, count: int) -> bytes:
        """Content of ``count`` blocks; thousands at a time cost little more per block than the codec.

        Raises:
            DeviceError: EIO, an extent in the range cannot be read (unless the policy allows zeroes).
        """
        out = bytearray(count * BLOCK_BYTES)
        self.read_into(block, memoryview(out))
        return bytes(out)

    def read_into(self, block: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (whole blocks); errors as for :meth:`read`.

        Faster than :meth:`read` when the buffer is used again: fresh memory costs more
        than the copy.
        """
        count = len(buffer) // BLOCK_BYTES
        self._check_range(block, count)
        missing = np.ones(count + 2, bool)
        missing[0] = missing[-1] = False
        for at, piece in self._pieces(block, count):
            start, size = at - block, len(piece)
            buffer[start * BLOCK_BYTES : start * BLOCK_BYTES + size] = piece
            missing[start + 1 : start + 1 + size // BLOCK_BYTES] = False
        edges = np.flatnonzero(missing[1:] != missing[:-1]).tolist()
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            buffer[first * BLOCK_BYTES : end * BLOCK_BYTES] = bytes((end - first) * BLOCK_BYTES)

    def _pieces(self, block: int, count: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """``(block, content)`` of what is stored in a range, cut to it; not always ascending."""
        if not count:
            return
        end = block + count
        for head, blocks, content in contents(self.volume, self._bitmap.extents(block, count), self._on_bad):
            first, last = max(head, block), min(head + blocks, end)
            if first < last:
                yield first, content[(first - head) * BLOCK_BYTES : (last - head) * BLOCK_BYTES]

    def read_stored(self, block: int, count: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """``(block, content)`` of the extents in a range that hold anything; holes are left out.

        For export to sparse files. Not always ascending; contents may be views that are
        only valid until the next one is asked for.
        """
        self._check_range(block, count)
        return self._pieces(block, count)

    def copy_to(
        self, path: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
    ) -> tuple[int, list[tuple[int, int, str]]] | None:
        """Copy everything to a file with several processes (:class:`~zoned_tools.formats.registry.CopiesItself`)."""
        from zoned_tools.formats.inplace_compress.parallel import copy_if_worthwhile  # which needs this mapper

        copied = copy_if_worthwhile(self.volume, path, processes=processes, skip_errors=skip_errors, progress=progress)
        if copied is None:
            return None
        lost = [(bad.block * BLOCK_BYTES, bad.blocks * BLOCK_BYTES, bad.reason) for bad in copied.lost]
        return copied.data_bytes, lost

    def write(self, block: int, data: Buffer, stream: int = 0) -> None:
        """Write whole blocks, cut at windows.

        Raises:
            DeviceError: EIO, an extent that is only partly covered cannot be read; nothing
                of that window is written then.
        """
        view = memoryview(data).cast("B")
        if len(view) % BLOCK_BYTES:
            raise DeviceError(
                f"{len(view)} bytes are not whole blocks", device=self.volume.device.path, errno=errno.EINVAL
            )
        count = len(view) // BLOCK_BYTES
        self._check_writable(block, count)
        window = self.settings.window_blocks
        at = block
        while at < block + count:
            end = min((at // window + 1) * window, block + count)
            self._write_piece(at, view[(at - block) * BLOCK_BYTES : (end - block) * BLOCK_BYTES])
            at = end

    def _write_piece(self, block: int, data: memoryview) -> None:
        """One request inside one window: decode what is partly covered, then store everything."""
        end = block + len(data) // BLOCK_BYTES
        kept = self._partly_covered(block, end)
        places: list[int] = []
        parts: list[bytes] = []
        at = block
        for head, blocks, content in kept:
            if at < head:
                places.append(at)
                parts.append(self._gap(data, block, at, head))
            first, last = max(head, block), min(head + blocks, end)
            patched = bytearray(content)
            patched[(first - head) * BLOCK_BYTES : (last - head) * BLOCK_BYTES] = data[
                (first - block) * BLOCK_BYTES : (last - block) * BLOCK_BYTES
            ]
            places.append(head)
            parts.append(bytes(patched))
            at = head + blocks
        if at < end:
            places.append(at)
            parts.append(self._gap(data, block, at, end))
        self._store(places, parts)

    def _gap(self, data: memoryview, block: int, start: int, end: int) -> bytes:
        skip = 0 if self.settings.misplaced_data else start - block
        return bytes(data[skip * BLOCK_BYTES : (skip + end - start) * BLOCK_BYTES])

    def _partly_covered(self, block: int, end: int) -> list[tuple[int, int, bytes]]:
        """``(head, blocks, content)`` of the stored extents that a request covers in part, ascending."""
        extents = self._bitmap.extents(block, end - block)
        self._drop_orphans(extents)
        inside = (extents.head >= block) & (extents.head + extents.blocks <= end)
        wanted = extents.select(~inside & (extents.payload > 0))
        if not len(wanted):
            return []
        found = {
            head: bytearray(blocks * BLOCK_BYTES)
            for head, blocks in zip(wanted.head.tolist(), wanted.blocks.tolist(), strict=True)
        }
        starts = sorted(found)
        for head, blocks, content in contents(self.volume, wanted, fail(self.volume.device.path)):
            owner = starts[int(np.searchsorted(starts, head, "right")) - 1]
            found[owner][(head - owner) * BLOCK_BYTES : (head - owner + blocks) * BLOCK_BYTES] = content
        return [(head, len(found[head]) // BLOCK_BYTES, bytes(found[head])) for head in starts]

    def _drop_orphans(self, extents: Extents) -> None:
        """Turn tails without a payload into holes, or the extent stored before them would swallow them."""
        orphans = extents.select((extents.payload == 0) & ~extents.bad_nibble)
        for head, blocks in zip(orphans.head.tolist(), orphans.blocks.tolist(), strict=True):
            self._bitmap.put(head, np.zeros(blocks, np.uint8))

    def _store(self, places: list[int], parts: list[bytes]) -> None:
        """Store each part as one extent: payload first, then entries, then the policy's bitmap write."""
        if not places:
            return
        volume, counters = self.volume, self.counters
        for place, encoded in zip(
            places, encode_extents(self._compressor, parts, exact=self.settings.exact_encoder), strict=True
        ):
            volume.device.write(volume.block_offset_bytes(place), encoded.data)
            self._bitmap.put(place, extent_entries(encoded.blocks, encoded.payload_sectors))
            counters.uncompressed_bytes += encoded.blocks * BLOCK_BYTES
            raw = encoded.payload_sectors == encoded.blocks * BLOCK_SECTORS
            counters.compressed_bytes += len(encoded.data) * (2 if raw else 1)  # the driver counts raw extents twice
        self._after_change(places[0], places[-1] + len(parts[-1]) // BLOCK_BYTES)

    def _after_change(self, first: int, end: int) -> None:
        seconds = self.settings.writeback_seconds
        if seconds is None:
            pages = self._bitmap.pages_of(first, end - first)
            self._write_pages(pages.start, pages.stop - 1)
            self._bitmap.written(set(pages))
        elif self._clock() - self._committed_at >= seconds:
            self.commit()

    def _write_pages(self, first: int, last: int) -> None:
        offset, content = self._bitmap.page_write(first, last)
        self.volume.device.write(offset, content)
        self.counters.metadata_bytes += len(content) // SECTOR_BYTES * SECTOR_BYTES

    def commit(self) -> None:
        """Write the dirty pages of the bitmap behind the data that they speak of."""
        self._committed_at = self._clock()
        runs = self._bitmap.dirty_writes()
        if not runs:
            return
        self.volume.device.flush()
        for first, last in runs:
            self._write_pages(first, last)
        self._bitmap.written(set(self._bitmap.dirty_pages))

    def discard(self, block: int, count: int) -> None:
        """Make blocks read as zeroes: covered extents become holes, others are patched and stored again.

        The driver has no discard (it fails with EOPNOTSUPP), which the option
        ``discard=refuse`` reproduces.
        """
        self._check_writable(block, count)
        if not self.settings.discards:
            raise DeviceError(
                "discard is not supported by the target", device=self.volume.device.path, errno=errno.EOPNOTSUPP
            )
        if not count:
            return
        end = block + count
        kept = self._partly_covered(block, end)
        first, last = block, end
        places, parts = [], []
        for head, blocks, content in kept:
            low, high = max(head, block), min(head + blocks, end)
            patched = bytearray(content)
            patched[(low - head) * BLOCK_BYTES : (high - head) * BLOCK_BYTES] = bytes((high - low) * BLOCK_BYTES)
            places.append(head)
            parts.append(bytes(patched))
            first, last = (head + blocks, last) if head < block else (first, head)
        self._clear(first, last)
        self._store(places, parts)

    def _clear(self, first: int, end: int) -> None:
        step = 1 << 16
        for start in range(first, end, step):
            stop = min(start + step, end)
            self._bitmap.put(start, np.zeros(stop - start, np.uint8))
            self._after_change(start, stop)

    def lookup(self, block: int, count: int) -> Iterator[MapExtent]:
        """Where blocks live: one run for each extent, neighbouring holes together."""
        self._check_range(block, count)
        if not count:
            return
        at, end, base = block, block + count, self.volume.data_offset_bytes // BLOCK_BYTES
        extents = self._bitmap.extents(block, count)
        stored = extents.select((extents.payload > 0) | extents.bad_nibble)
        columns = stored.head.tolist(), stored.blocks.tolist(), stored.payload.tolist(), stored.bad_nibble.tolist()
        for head, blocks, payload, invalid in zip(*columns, strict=True):
            first, last = max(head, block), min(head + blocks, end)
            if at < first:
                yield MapExtent(at, first - at, 0, None, _HOLE)
            place = base + (first if payload == BLOCK_SECTORS * blocks else head)
            why = _describe(blocks, payload, invalid, self._compressor)
            yield MapExtent(first, last - first, 0, place, why if first == head else f"{why}, from block {head} on")
            at = last
        if at < end:
            yield MapExtent(at, end - at, 0, None, _HOLE)

    def status(self) -> str:
        """The numbers of ``dmsetup status`` since this mapper was opened."""
        return self.counters.status()

    def flush(self) -> None:
        """Make everything written so far durable."""
        if self._writable:
            self.commit()
            self.volume.device.flush()

    def close(self) -> None:
        """Commit the bitmap, as removing the target does."""
        self.flush()


@functools.lru_cache(maxsize=1024)
def _describe(blocks: int, payload: int, invalid: bool, compressor: Compressor) -> str:
    extent = f"extent of {blocks} block{'s' if blocks > 1 else ''}"
    if invalid:
        return f"{extent}, invalid bitmap entries"
    if payload == BLOCK_SECTORS * blocks:
        return f"{extent}, stored raw"
    return f"{extent}, {compressor.label} payload of {payload} sector{'s' if payload > 1 else ''} at its start"


def zeroes(_: Unreadable) -> None:
    """The policy that puts zeroes in the place of unreadable extents (export, never a write)."""


def settings_from_options(options: Mapping[str, str]) -> Settings:
    """Settings from textual options; see :func:`open_mapper`.

    Raises:
        UsageError: an option cannot be meant.
    """
    arguments = arguments_from_options(options)
    window = options.get("window", "2")
    if window not in ("2", "32"):
        raise UsageError(f"a window of {window} blocks does not exist", hint="2 (4 KiB pages) or 32 (64 KiB pages)")
    choices = {"encoder": ("kernel", "fast"), "discard": ("holes", "refuse"), "emulate": ("", "misplaced-data"),
               "unreadable": ("fail", "zeroes"), "bitmap": ("little", "big")}  # fmt: skip
    for key, allowed in choices.items():
        if options.get(key, allowed[0]) not in allowed:
            raise UsageError(f"{key}={options[key]!r} is not known", hint=" or ".join(filter(None, allowed)))
    return Settings(
        writeback_seconds=arguments.writeback_seconds,
        window_blocks=int(window),
        exact_encoder=options.get("encoder", "kernel") == "kernel",
        misplaced_data=options.get("emulate") == "misplaced-data",
        discards=options.get("discard", "holes") == "holes",
        critical=arguments.critical,
    )


def open_mapper(target: Target, *, writable: bool, options: Mapping[str, str]) -> InplaceMapper:
    """Open the volume of ``target``.

    Options:
        ``table``: a table line; its single words ``writethrough``, ``writeback`` (seconds),
        ``critical``, ``compressor`` (as for the driver, the super block's wins), or ``mode``.
        ``window``: 2 or 32 blocks.
        ``encoder``: ``kernel`` (the very streams of the driver) or ``fast``.
        ``unreadable``: ``fail``, or ``zeroes`` for reading damaged volumes.
        ``bitmap``: ``little`` or ``big``, byte order of the host that wrote it.
        ``discard``: ``holes`` or ``refuse``. ``emulate``: ``misplaced-data``.

    ``critical`` tells the driver to allocate memory without sleeping, because swap lies
    on the device; it changes nothing on the disk.

    Raises:
        MetadataError: no usable volume.
        UsageError: an option cannot be meant, or contradicts the volume.
    """
    require_known(options, OPTIONS)
    volume = open_volume(target.device, target.start_bytes)
    settings = settings_from_options(options)
    arguments = arguments_from_options(options)
    sectors = volume.data_blocks * BLOCK_SECTORS
    if arguments.length_sectors not in (None, sectors):
        raise UsageError(
            f"the line is for {arguments.length_sectors} sectors, the volume has {sectors}", device=target.device.path
        )
    if options.get("bitmap") == "big":
        volume = replace(volume, reversed_words=True)
    if writable and volume.compressor not in WRITABLE:
        raise UsageError("LZ4 volumes can only be read", device=target.device.path)
    if writable and options.get("unreadable") == "zeroes":
        raise UsageError("unreadable=zeroes is for reading only", device=target.device.path)
    on_bad = zeroes if options.get("unreadable") == "zeroes" else None
    return InplaceMapper(volume, settings, writable=writable, on_bad=on_bad)


WINDOW_OF_PAGE_BYTES = {page: 2 * page // BLOCK_BYTES for page in (4096, 65536)}
assert set(WINDOW_OF_PAGE_BYTES.values()) == set(layout.WINDOWS)
