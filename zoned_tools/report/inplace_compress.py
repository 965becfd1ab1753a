"""What ``zoned inplace-compress`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.import_ import ImportResult
    from zoned_tools.report.documents.inplace_compress import CompressTable


def format_line(device: str, data_blocks: int, compressor: str) -> str:
    """A new, empty volume."""
    return f"{device}: {data_blocks} blocks of 4096 bytes, {compressor}"


def import_line(device: str, result: ImportResult) -> str:
    """A volume made from raw content."""
    share = f", {100 * result.stored_bytes / result.content_bytes:.1f} %" if result.content_bytes else ""
    return f"{device}: {result.content_bytes} bytes in {result.extents} extents, {result.stored_bytes} stored{share}"


def table_line(table: CompressTable) -> str:
    """How the driver is told of a volume."""
    return f"table: {table['table']}"


def warning_line(table: CompressTable) -> str:
    """What to know before a volume is activated."""
    return f"warning: {table['warning']}"
