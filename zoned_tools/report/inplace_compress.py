"""What ``zoned inplace-compress`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.inplace_compress.estimate import EstimateRow, ResultRow
    from zoned_tools.formats.inplace_compress.import_ import ImportResult
    from zoned_tools.report.documents.inplace_compress import CompressTable

_BAR_CHARACTERS = 40


def format_line(device: str, data_blocks: int, compressor: str) -> str:
    """A new, empty volume."""
    return f"{device}: {data_blocks} blocks of 4096 bytes, {compressor}"


def import_line(device: str, result: ImportResult, *, dry_run: bool = False, verified: bool = False) -> str:
    """A volume made from raw content, or what it would be."""
    share = f", {100 * result.stored_bytes / result.content_bytes:.1f} %" if result.content_bytes else ""
    stored = f"{result.stored_bytes} {'would be stored' if dry_run else 'stored'}{share}"
    end = ", read back" if verified else ""
    return f"{device}: {result.content_bytes} bytes in {result.extents} extents, {stored}{end}"


def table_line(table: CompressTable) -> str:
    """How the driver is told of a volume."""
    return f"table: {table['table']}"


def warning_line(table: CompressTable) -> str:
    """What to know before a volume is activated."""
    return f"warning: {table['warning']}"


def estimate_lines(estimate: EstimateRow) -> Iterator[str]:
    """A line for each compressor and window, then how well the blocks of the best one compress."""
    looked = f"a sample of {format_size(estimate['sample_bytes'])}" if estimate["sampled"] else "all of it"
    size = format_size(estimate["source_bytes"])
    yield f"{estimate['source']}: {estimate['source_kind']}, {size}, {looked} compressed"
    yield f"{'compressor':<10}  {'window':>6}  {'stored':>18}  {'bytes not written':>28}  {'blocks stored raw':>17}"
    yield from map(_result_line, estimate["results"])
    best = min(estimate["results"], key=lambda row: row["stored_bytes"])
    if best["content_bytes"]:
        yield from _histogram(best)


def _result_line(row: ResultRow) -> str:
    error, written = row["error"], row["raw_blocks"] + row["compressed_blocks"]
    if row["ratio"] is None:
        share, raw = "nothing", "-"
    else:
        share = f"{100 * row['ratio']:.1f} %"
        raw = f"{100 * row['raw_blocks'] / written:.1f} %"
        if error is not None and error["ratio"] is not None:
            share += f" \u00b1 {100 * error['ratio']:.1f} %"
    saved = str(row["saved_bytes"]) if error is None else f"about {format_size(row['saved_bytes'])}"
    return f"{row['compressor']:<10}  {row['window_blocks']:>6}  {share:>18}  {saved:>28}  {raw:>17}"


def _histogram(row: ResultRow) -> Iterator[str]:
    """Blocks by their share of payload, a bar each."""
    counts = {int(key): count for key, count in row["blocks_by_payload_sectors_per_block"].items()}
    total, most = sum(counts.values()), max(counts.values())
    yield ""
    yield f"sectors of 8 that a block takes up, {row['compressor']} with windows of {row['window_blocks']} blocks:"
    for sectors in range(1, 9):
        count = counts.get(sectors, 0)
        bar = "#" * -(-_BAR_CHARACTERS * count // most)
        yield f"{sectors}  {100 * count / total:>5.1f} %  {bar}".rstrip()
