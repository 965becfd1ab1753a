"""Opening the logical device of a volume."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.compressors import WRITABLE
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS
from zoned_tools.formats.inplace_compress.mapper.commit import Committer, Counters
from zoned_tools.formats.inplace_compress.mapper.copying import copy_if_worthwhile
from zoned_tools.formats.inplace_compress.mapper.read import BadExtent, Reader, zeroes
from zoned_tools.formats.inplace_compress.mapper.write import Behaviour, Writer
from zoned_tools.formats.inplace_compress.media import assumption, find_losses, require_whole_metadata
from zoned_tools.formats.inplace_compress.open import Volume, open_volume
from zoned_tools.formats.inplace_compress.table import arguments_from_settings, require_length
from zoned_tools.formats.shared.mapper import MapperBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.base import Buffer
    from zoned_tools.formats.contract import MapExtent, Settings, Target
    from zoned_tools.formats.shared.losses import Losses


class InplaceMapper(MapperBase):
    """The logical device of a volume.

    Args:
        on_bad: told of every extent that cannot be read; None to fail with EIO.
        clock: seconds, for the writeback policy.
    """

    def __init__(
        self,
        volume: Volume,
        behaviour: Behaviour,
        *,
        writable: bool,
        on_bad: BadExtent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(volume.device.path, volume.data_blocks, writable=writable)
        self.volume = volume
        self.counters = Counters()
        self._behaviour = behaviour
        self._losses: Losses | None = None
        bitmap = Bitmap(volume, behaviour.window_blocks // 2 * BLOCK_BYTES)
        self._reader = Reader(volume, bitmap, on_bad)
        self._committer = Committer(volume, bitmap, self.counters, seconds=behaviour.writeback_seconds, clock=clock)
        self._writer = Writer(volume, bitmap, behaviour, self._committer, self.counters)

    @property
    def warnings(self) -> Sequence[str]:
        """What was assumed (:class:`~zoned_tools.formats.contract.Warns`)."""
        return (assumption(self.volume),) if self.volume.is_assumed else ()

    def losses(self) -> Losses:
        """What cannot be read (:class:`~zoned_tools.formats.shared.losses.KnowsLosses`)."""
        if self._losses is None:
            self._losses = find_losses(self.volume)
        return self._losses

    def salvage_block(self, block: int) -> tuple[Buffer, BadAreas] | None:
        """The sectors of a raw block (:class:`~zoned_tools.formats.shared.losses.SalvagesBlocks`)."""
        self.check_range(block, 1)
        return self._reader.salvage(block)

    def read_blocks_into(self, block: int, buffer: memoryview) -> None:
        self._reader.read_into(block, buffer)

    def read_stored(self, block: int, count: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """``(block, content)`` of the extents in a range that hold anything; holes are left out.

        For export to sparse files. Not always ascending; contents may be views that are
        only valid until the next one is asked for.
        """
        self.check_range(block, count)
        return self._reader.stored(block, count)

    def copy_to(
        self, path: str, *, processes: int, skip_errors: bool, progress: Callable[[int], None]
    ) -> tuple[int, list[tuple[int, int, str]]] | None:
        """Copy everything to a file with several processes (:class:`~zoned_tools.formats.contract.CopiesItself`)."""
        copied = copy_if_worthwhile(self.volume, path, processes=processes, skip_errors=skip_errors, progress=progress)
        if copied is None:
            return None
        lost = [(bad.block * BLOCK_BYTES, bad.blocks * BLOCK_BYTES, bad.reason) for bad in copied.lost]
        return copied.data_bytes, lost

    def write_blocks(self, block: int, data: memoryview, stream: int) -> None:
        del stream  # the target has one place for every block
        self._writer.write(block, data)

    def discard_blocks(self, block: int, count: int) -> None:
        """Make holes. The driver has no discard, which the setting ``discard=refuse`` reproduces."""
        if not self._behaviour.discards:
            raise self.refusal("discard is not supported by the target", errno.EOPNOTSUPP)
        self._writer.discard(block, count)

    def lookup_blocks(self, block: int, count: int) -> Iterator[MapExtent]:
        return self._reader.lookup(block, count)

    def status(self) -> str:
        """The numbers of ``dmsetup status`` since this mapper was opened."""
        return self.counters.status()

    def flush_changes(self) -> None:
        self._committer.commit()
        self.volume.device.flush()

    def close_cleanly(self) -> None:
        """Commit the bitmap, as removing the target does."""
        self.flush_changes()


def open_mapper(target: Target, *, writable: bool, settings: Settings) -> InplaceMapper:
    """Open the volume of ``target``.

    The words of a table line count as for the driver; the super block's compressor wins. ``critical``
    tells the driver to allocate memory without sleeping, because swap lies on the device; it changes
    nothing on the disk.

    Raises:
        MetadataError: no usable volume.
        UsageError: a setting cannot be meant, or contradicts the volume.
    """
    arguments = arguments_from_settings(settings)
    length = arguments.length_sectors
    known = None if length is None else length // BLOCK_SECTORS
    volume = open_volume(target.device, target.start_bytes, data_blocks=known)
    require_length(volume, arguments)
    behaviour = Behaviour(
        writeback_seconds=arguments.writeback_seconds,
        window_blocks=settings.number("window") or 2,
        exact_encoder=settings.text("encoder") == "kernel",
        misplaced_data=settings.text("emulate") == "misplaced-data",
        discards=settings.text("discard") != "refuse",
    )
    if settings.text("bitmap") == "big":
        volume = replace(volume, reversed_words=True)
    if writable:
        require_whole_metadata(volume)
        volume = replace(volume, strict=True)
    if writable and volume.compressor not in WRITABLE:
        raise UsageError("LZ4 volumes can only be read", device=target.device.path)
    reads_zeroes = settings.text("unreadable") == "zeroes"
    if writable and reads_zeroes:
        raise UsageError("unreadable=zeroes is for reading only", device=target.device.path)
    return InplaceMapper(volume, behaviour, writable=writable, on_bad=zeroes if reads_zeroes else None)
