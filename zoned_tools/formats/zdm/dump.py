"""Metadata as a document: every block that is not what a fresh format has, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.registry import Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.inspect import inspect
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, Dialect, Geometry
from zoned_tools.formats.zdm.state import State, load
from zoned_tools.formats.zdm.volume import Volume

VERSION = 1
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
    return {
        "zdm_dump_version": VERSION,
        "dialect": str(state.dialect),
        "label": base64.b64encode(state.volume.read(0)[_LABEL]).decode(),
        "start_sector": state.geometry.start_sector,
        "partition_blocks": state.geometry.size_blocks,
        "data_start_zone": state.geometry.zdstart,
        "metadata": inspect(target),
        "blocks": [[first, base64.b64encode(data).decode()] for first, data in _runs(state)],
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
            used = np.flatnonzero((rows != default).any(axis=1))
            for run in np.split(used, np.flatnonzero(np.diff(used) != 1) + 1):
                if len(run):
                    yield first + int(run[0]), rows[run[0] : run[-1] + 1].tobytes()


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Write a dump back over the metadata of the partition at ``target.start_bytes``.

    Raises:
        MetadataError: the document is damaged, or from a partition of another size or place.
    """
    part = Volume.rest_of(target.device, target.start_bytes)
    geometry = _geometry_of(part, document)
    plan = Plan("restore ZDM metadata")
    offset = part.offset_bytes
    rows = sorted(_decoded(document, geometry, part), key=lambda row: row[0])
    plan.fill(0, offset, layout.ZEROED_BLOCKS * BLOCK_BYTES, 0, "keys and identity")
    plan.flush(0)
    for start, end, kind in _regions(geometry):
        pattern = int.from_bytes(_DEFAULTS[kind][:2], "little")
        at = max(start, layout.ZEROED_BLOCKS)
        for first, data in rows:
            blocks = len(data) // BLOCK_BYTES
            if not start <= first < end:
                continue
            if first > at:
                plan.fill(0, offset + at * BLOCK_BYTES, (first - at) * BLOCK_BYTES, pattern)
            if first >= layout.ZEROED_BLOCKS:
                plan.write(0, offset + first * BLOCK_BYTES, data)
            at = max(at, first + blocks)
        if at < end:
            plan.fill(0, offset + at * BLOCK_BYTES, (end - at) * BLOCK_BYTES, pattern)
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


def _geometry_of(part: Volume, document: Mapping[str, object]) -> Geometry:
    try:
        dialect = Dialect(str(document.get("dialect")))
    except ValueError:
        raise MetadataError("not a dump of ZDM metadata", device=part.device.path) from None
    numbers = [document.get(key) for key in ("start_sector", "partition_blocks", "data_start_zone")]
    if document.get("zdm_dump_version") != VERSION or not all(isinstance(n, int) for n in numbers):
        raise MetadataError("not a dump of ZDM metadata", device=part.device.path)
    start, blocks, zdstart = (int(n) for n in numbers if isinstance(n, int))
    if start != part.start_sector or not layout.ZEROED_BLOCKS <= blocks <= part.size_blocks:
        raise MetadataError(
            f"the dump is of {blocks} blocks from sector {start}, the partition has {part.size_blocks} "
            f"from {part.start_sector}",
            device=part.device.path,
        )
    geometry = Geometry.compute(start, blocks, zdstart, dialect, device=part.device.path)
    displaced = geometry.first_device_zone != zdstart and dialect is not Dialect.D5
    if geometry.data_start > blocks or displaced:
        raise MetadataError("the dump's tables do not fit the partition", device=part.device.path)
    return geometry


def _decoded(document: Mapping[str, object], geometry: Geometry, part: Volume) -> Iterator[tuple[int, bytes]]:
    rows = document.get("blocks")
    fault = MetadataError("the dump's blocks are damaged", device=part.device.path)
    if not isinstance(rows, list):
        raise fault
    try:
        label = base64.b64decode(str(document.get("label")), validate=True)
    except (binascii.Error, ValueError):
        raise fault from None
    if len(label) != _LABEL.stop - _LABEL.start:
        raise fault
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], int) and isinstance(row[1], str)):
            raise fault
        try:
            data = base64.b64decode(row[1], validate=True)
        except (binascii.Error, ValueError):
            raise fault from None
        if row[0] == 0 and len(data) >= BLOCK_BYTES:
            data = data[: _LABEL.start] + label + data[_LABEL.stop :]
        end = row[0] + len(data) // BLOCK_BYTES
        inside = any(start <= row[0] and end <= stop for start, stop, _ in _regions(geometry))
        if not data or len(data) % BLOCK_BYTES or not inside:
            raise fault
        yield row[0], data
