"""Metadata as a document: every block that is not what a fresh format has, and back."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.device.runs import mask_runs, runs
from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.shared.documents import DocumentPart
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.inspect import inspect
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, Dialect, Geometry
from zoned_tools.formats.zdm.open import State, load
from zoned_tools.formats.zdm.volume import Volume, metadata_zone_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.formats.contract import Target

VERSION = 1
_OLD_VERSION_KEY = "zdm_dump_version"
_UNREAD_KEY = "unread"
"""``[first block, blocks]`` that could not be read; there only where some could not."""

_CHUNK_BLOCKS = 1024
_LABEL = slice(92, 156)
_DEFAULTS = {"zero": bytes(BLOCK_BYTES), "empty table": layout.EMPTY_PAGE, "empty CRC page": layout.EMPTY_CRC_PAGE}


def dump(target: Target) -> dict[str, object]:
    """Everything in front of the data: decoded, and as base64 runs of blocks.

    ``blocks`` rows are ``[first block, base64]``; what no row covers is as a fresh format
    leaves it (zeroes, 0xFF in the tables, 0xBFFE in the CRC pages). ``label`` holds the bytes
    that are blanked in block 0, so that hiding names hides it.

    Raises:
        MetadataError: there is no ZDM.
    """
    state = load(target)
    blocks = [[first, base64.b64encode(data).decode()] for first, data in _runs(state)]
    unread = [[first, end - first] for first, end in runs(np.array(sorted(state.volume.unread), np.int64))]
    return {
        "dump_version": VERSION,
        "dialect": str(state.dialect),
        "label": base64.b64encode(state.volume.read_rows(0, 1)[0, _LABEL].tobytes()).decode(),
        "start_sector": state.geometry.start_sector,
        "partition_blocks": state.geometry.size_blocks,
        "data_start_zone": state.geometry.zdstart,
        "metadata": inspect(target),
        "blocks": blocks,
        **({_UNREAD_KEY: unread} if unread else {}),
    }


def _regions(geometry: Geometry) -> Iterator[tuple[int, int, str]]:
    """``(first block, end, default content)`` of everything that can hold metadata."""
    journal_end = min(layout.JOURNAL_BLOCK + layout.MAX_JOURNAL_SLOTS, geometry.md_start)
    old_pointers = 8264 + 2 * geometry.groups  # releases up to 108
    yield 0, max(journal_end, min(old_pointers, geometry.md_start)), "zero"
    for start in (geometry.forward_start, geometry.reverse_start):
        yield start, start + geometry.map_count, "empty table"
    for start in (geometry.crc_start, geometry.crc_reverse_start):
        yield start, start + geometry.crc_count, "empty CRC page"


def _runs(state: State) -> Iterator[tuple[int, bytes]]:
    for start, end, kind in _regions(state.geometry):
        default = np.frombuffer(_DEFAULTS[kind], np.uint8)
        for first in range(start, end, _CHUNK_BLOCKS):
            rows = state.volume.read_rows(first, min(_CHUNK_BLOCKS, end - first))
            if first == 0:
                rows[0, _LABEL] = 0
            stored = (rows != default).any(axis=1)
            stored[[b - first for b in state.volume.unread if first <= b < first + len(rows)]] = False
            for low, high in mask_runs(stored).tolist():
                yield first + low, rows[low:high].tobytes()


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Write a dump back over the metadata of the partition at ``target.start_bytes``.

    Raises:
        MetadataError: the document is damaged, or from a partition of another size or place.
        RefusedError: a metadata zone cannot be written.
    """
    volume = Volume.rest_of(target.device, target.start_bytes)
    part = DocumentPart.of(document, target.device.path)
    # Documents of older versions of this suite have their version under the first of these names.
    part.require_version(_OLD_VERSION_KEY if part.has(_OLD_VERSION_KEY) else "dump_version", VERSION)
    if part.has(_UNREAD_KEY):
        raise MetadataError(
            "the dump was made while metadata could not be read: it is not whole", device=target.device.path
        )
    geometry = _geometry_of(volume, part)
    unwritable = metadata_zone_refusal(volume, geometry)
    if unwritable:
        raise RefusedError(unwritable, device=target.device.path)
    rows = sorted(_rows_of(part, geometry), key=lambda row: row[0])
    plan = Plan("restore ZDM metadata")
    offset = volume.offset_bytes
    plan.fill(0, offset, layout.ZEROED_BLOCKS * BLOCK_BYTES, 0, "keys and identity")
    plan.flush(0)
    for region in _regions(geometry):
        _restore_region(plan, offset, region, rows)
    plan.flush(0)
    for first, data in rows:  # what makes the rest count is written last
        if first < layout.ZEROED_BLOCKS:
            skip = BLOCK_BYTES if first == 0 else 0
            plan.write(0, offset + first * BLOCK_BYTES + skip, data[skip:])
    plan.flush(0)
    if rows and rows[0][0] == 0:
        plan.write(0, offset, rows[0][1][:BLOCK_BYTES])
        plan.flush(0)
    return plan


def _restore_region(plan: Plan, offset: int, region: tuple[int, int, str], rows: list[tuple[int, bytes]]) -> None:
    """Steps for one region behind the keys: its rows, and what a fresh format has between them."""
    start, end, kind = region
    pattern = int.from_bytes(_DEFAULTS[kind][:2], "little")
    at = max(start, layout.ZEROED_BLOCKS)
    for first, data in rows:
        if not start <= first < end:
            continue
        if first > at:
            plan.fill(0, offset + at * BLOCK_BYTES, (first - at) * BLOCK_BYTES, pattern)
        if first >= layout.ZEROED_BLOCKS:
            plan.write(0, offset + first * BLOCK_BYTES, data)
        at = max(at, first + len(data) // BLOCK_BYTES)
    if at < end:
        plan.fill(0, offset + at * BLOCK_BYTES, (end - at) * BLOCK_BYTES, pattern)


def _geometry_of(volume: Volume, part: DocumentPart) -> Geometry:
    path = volume.device.path
    try:
        dialect = Dialect(part.text("dialect"))
    except ValueError:
        raise part.damaged("dialect", "one that is known") from None
    start = part.number("start_sector", 1 << 63)
    blocks = part.number("partition_blocks", 1 << 60)
    zdstart = part.number("data_start_zone", 1 << 32)
    if start != volume.start_sector or not layout.ZEROED_BLOCKS <= blocks <= volume.size_blocks:
        raise MetadataError(
            f"the dump is of {blocks} blocks from sector {start}, the partition has {volume.size_blocks} "
            f"from {volume.start_sector}",
            device=path,
        )
    geometry = Geometry.compute(start, blocks, zdstart, dialect, device=path)
    displaced = geometry.first_device_zone != zdstart and dialect is not Dialect.D5
    if geometry.data_start > blocks or displaced:
        raise MetadataError("the dump's tables do not fit the partition", device=path)
    return geometry


def _rows_of(part: DocumentPart, geometry: Geometry) -> Iterator[tuple[int, bytes]]:
    """First block and content of each row, the label put back."""
    label = _decoded(part, "label", part.text("label"))
    if len(label) != _LABEL.stop - _LABEL.start:
        raise part.damaged("label", "the bytes of a label")
    regions = [(start, end) for start, end, _ in _regions(geometry)]
    for number, row in enumerate(part.items("blocks")):
        name = f"blocks[{number}]"
        match row:
            case [int(first), str(text)]:
                data = _decoded(part, name, text)
            case _:
                raise part.damaged(name, "a block and its content")
        end = first + len(data) // BLOCK_BYTES
        inside = any(start <= first and end <= stop for start, stop in regions)
        if not data or len(data) % BLOCK_BYTES or not inside:
            raise part.damaged(name, "whole blocks of metadata")
        if first == 0:
            data = data[: _LABEL.start] + label + data[_LABEL.stop :]
        yield first, data


def _decoded(part: DocumentPart, name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise part.damaged(name, "base64") from None
