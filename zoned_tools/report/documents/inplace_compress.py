"""Documents of ``zoned inplace-compress``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from zoned_tools.formats.inplace_compress.estimate import EstimateRow
from zoned_tools.formats.inplace_compress.stat import VolumeRow

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.import_ import ImportResult


class CompressTable(TypedDict):
    """A table line, null where the driver could not use it, and what to know before it is used."""

    table: str | None
    warning: str


def compress_table(line: str | None) -> CompressTable:
    """A table line with the warning that belongs to it."""
    from zoned_tools.formats.inplace_compress.table import ACTIVATION_WARNING

    return {"table": line, "warning": ACTIVATION_WARNING}


class CompressFormatDocument(CompressTable):
    """``zoned.inplace-compress.format/1``."""

    schema: Literal["zoned.inplace-compress.format/1"]
    dry_run: bool
    device: str
    compressor: str
    meta_blocks: int
    data_blocks: int


def compress_format_document(
    device: str, compressor: str, sizes: tuple[int, int], table: CompressTable, *, dry_run: bool
) -> CompressFormatDocument:
    """A new volume; ``sizes`` are its blocks of metadata and of data."""
    return {
        "schema": "zoned.inplace-compress.format/1",
        "dry_run": dry_run,
        "device": device,
        "compressor": compressor,
        "meta_blocks": sizes[0],
        "data_blocks": sizes[1],
        **table,
    }


class CompressImportDocument(CompressTable):
    """``zoned.inplace-compress.import/1``; ``verified``: it was read back and compared."""

    schema: Literal["zoned.inplace-compress.import/1"]
    dry_run: bool
    verified: bool
    device: str
    source: str
    compressor: str
    meta_blocks: int
    data_blocks: int
    source_bytes: int
    extents: int
    raw_extents: int
    content_bytes: int
    stored_bytes: int


def compress_import_document(
    device: str,
    source: str,
    compressor: str,
    result: ImportResult,
    table: CompressTable,
    *,
    dry_run: bool = False,
    verified: bool = False,
) -> CompressImportDocument:
    """A volume made from raw content."""
    return {
        "schema": "zoned.inplace-compress.import/1",
        "dry_run": dry_run,
        "verified": verified,
        "device": device,
        "source": source,
        "compressor": compressor,
        "meta_blocks": result.meta_blocks,
        "data_blocks": result.data_blocks,
        "source_bytes": result.source_bytes,
        "extents": result.extents,
        "raw_extents": result.raw_extents,
        "content_bytes": result.content_bytes,
        "stored_bytes": result.stored_bytes,
        **table,
    }


class CompressStatDocument(VolumeRow):
    """``zoned.inplace-compress.stat/1``."""

    schema: Literal["zoned.inplace-compress.stat/1"]
    device: str


def compress_stat_document(device: str, facts: VolumeRow) -> CompressStatDocument:
    """How well a volume compresses."""
    return {"schema": "zoned.inplace-compress.stat/1", "device": device, **facts}


class CompressEstimateDocument(EstimateRow):
    """``zoned.inplace-compress.estimate/1``."""

    schema: Literal["zoned.inplace-compress.estimate/1"]


def compress_estimate_document(estimate: EstimateRow) -> CompressEstimateDocument:
    """What a volume would store."""
    return {"schema": "zoned.inplace-compress.estimate/1", **estimate}
