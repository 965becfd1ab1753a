"""How well a volume compresses, from its bitmap alone."""

from __future__ import annotations

from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.extents import scan
from zoned_tools.formats.inplace_compress.open import known_compressor, open_volume
from zoned_tools.formats.inplace_compress.statistics import Statistics, StatisticsRow
from zoned_tools.formats.inplace_compress.table import table_line


class VolumeRow(StatisticsRow):
    """The sums beside what the super block says; the table line is null where the driver could not use one."""

    compressor: str
    data_blocks: int
    meta_blocks: int
    logical_bytes: int
    table: str | None


def statistics(target: Target, window_blocks: int = layout.WINDOWS[0]) -> VolumeRow:
    """Sizes, ratio, histograms of extents and payloads, holes, and the table line.

    Args:
        window_blocks: 2 or 32, the window of the host that will use the volume; extents
            that such a host does not make are counted as foreign.

    Raises:
        MetadataError: no usable volume.
        UsageError: no such window.
    """
    if window_blocks not in layout.WINDOWS:
        raise UsageError(
            f"a window of {window_blocks} blocks does not exist", hint="2 (4 KiB pages) or 32 (64 KiB pages)"
        )
    volume = open_volume(target.device, target.start_bytes)
    sums = Statistics(volume.data_blocks, window_blocks=window_blocks)
    for extents in scan(volume.entry_chunks()):
        sums.add(extents)
    try:
        table = table_line(target, Settings()).line
    except (UsageError, MetadataError):
        table = None
    return {
        "compressor": known_compressor(volume).label,
        "data_blocks": volume.data_blocks,
        "meta_blocks": volume.meta_blocks,
        "logical_bytes": volume.data_blocks * layout.BLOCK_BYTES,
        "table": table,
        **sums.as_json(),
    }
