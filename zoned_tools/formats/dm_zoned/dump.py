"""Metadata as a readable document, and back.

Super blocks field by field, the mapping table as runs of chunks, the bitmaps as runs of
blocks. A set whose tables equal the other's says so instead of repeating them.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.plan import Plan, Step
from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.differences import as_blocks, difference_steps
from zoned_tools.formats.dm_zoned.dump_document import (
    LOST,
    VERSION,
    VERSION_KEY,
    DocumentReader,
    SetTables,
    SuperBlockRecord,
)
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, SuperBlockState, TargetState, read_state
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    UNMAPPED,
    MapArray,
    MetadataLayout,
    SuperBlock,
    superblock_crc,
)
from zoned_tools.formats.dm_zoned.media import read_media
from zoned_tools.formats.dm_zoned.open import (
    SetView,
    TargetBlocks,
    Words,
    bitmap_words,
    read_map,
    stream_zones,
)
from zoned_tools.formats.dm_zoned.repair_writes import plan_tertiary
from zoned_tools.formats.dm_zoned.settings import USE_SET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.zones import BoolArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry


def dump(target: Target) -> dict[str, object]:
    """All metadata of a target.

    ``map`` rows are ``[first chunk, chunks, data zone, buffer zone]``, null for none; in a row of
    several chunks the data zones count up. ``bitmaps`` rows are ``[first zone, zones, [[first
    block, blocks], ...]]``: zones with the same valid blocks. What no row covers is unmapped
    or has no valid block. What cannot be read of a set is as the other one has it; ``unreadable`` rows are ``[first
    block, blocks]`` of its metadata, counted from the super block, that neither has.

    Raises:
        NoValidSuperBlockError: no set can be used.
    """
    trusted = target.settings.number(USE_SET)
    return around_unreadable(target, lambda state: _document(target, state), trusted)


def _document(target: Target, state: TargetState) -> dict[str, object]:
    if state.chosen is None:
        trusted = target.settings.number(USE_SET)
        raise NoValidSuperBlockError(DmZonedEvidence(target=target, state=state, trusted=trusted))
    tables: list[dict[str, object]] = []
    for number in (state.chosen, 1 - state.chosen):
        if number == state.chosen or state.sets[number].usable:
            view = content_of(state, number)
            found: dict[str, object] = {"map": list(_map_rows(view.read_map())), "bitmaps": list(_bitmap_rows(view))}
            if view.lost is not None:
                found[LOST] = _row_runs(view.lost)
            same = bool(tables) and {k: v for k, v in tables[0].items() if k != "set"} == found
            tables.append({"set": number, **({"same_as": state.chosen} if same else found)})
    return {
        VERSION_KEY: VERSION,
        "geometry": _geometry(state.geometry),
        "super_blocks": [_superblock(s) for s in (*state.sets, *state.tertiary) if s.superblock is not None],
        "sets": tables,
    }


def _geometry(geometry: TargetGeometry) -> dict[str, object]:
    return {
        "zone_bytes": geometry.zone_bytes,
        "members": [{"model": str(m.model), "zones": m.nr_zones} for m in geometry.members],
    }


def _superblock(found: SuperBlockState) -> dict[str, object]:
    sb = found.superblock
    assert sb is not None
    right = sb.crc == superblock_crc(found.raw, sb.gen)
    row: dict[str, object] = {**found.place.where, "block": found.block, "magic": f"{sb.magic:#010x}"}
    for name in ("version", "gen", "sb_block", "nr_meta_blocks", "nr_reserved_seq", "nr_chunks", "nr_map_blocks"):
        row[name] = getattr(sb, name)
    row["nr_bitmap_blocks"] = sb.nr_bitmap_blocks
    row["crc"] = "right" if right else f"{sb.crc:#010x}"
    row["label"] = sb.label
    tail = sb.label_raw.partition(b"\0")[2].rstrip(b"\0")
    if tail:
        row["label_tail"] = tail.hex()
    row["dmz_uuid"] = str(sb.dmz_uuid) if sb.dmz_uuid != NIL_UUID else None
    row["dev_uuid"] = str(sb.dev_uuid) if sb.dev_uuid != NIL_UUID else None
    row["reserved"] = sb.reserved.rstrip(b"\0").hex()
    return row


def _map_rows(table: MapArray) -> Iterator[list[object]]:
    """Entries after the last chunk are kept too."""
    data, buffer = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    used = np.flatnonzero((data != UNMAPPED) | (buffer != UNMAPPED))
    if not len(used):
        return
    plain = (buffer[used] == UNMAPPED) & (data[used] != UNMAPPED)
    joined = (np.diff(used) == 1) & (np.diff(data[used]) == 1) & plain[1:] & plain[:-1]
    starts = np.concatenate(([0], np.flatnonzero(~joined) + 1))
    ends = np.concatenate((starts[1:], [len(used)]))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        chunk = int(used[start])
        zones = [None if z == UNMAPPED else int(z) for z in (data[chunk], buffer[chunk])]
        yield [chunk, end - start, *zones]


def _row_runs(lost: BoolArray) -> list[list[int]]:
    """``[first block, blocks]`` of map and bitmap blocks, counted from the super block."""
    return [[1 + start, end - start] for start, end in mask_runs(lost).tolist()]


def _bitmap_rows(view: SetView) -> Iterator[list[object]]:
    for zone, words in view.stream():
        same = (words[1:] == words[:-1]).all(axis=1)
        starts = np.concatenate(([0], np.flatnonzero(~same) + 1))
        ends = np.append(starts[1:], len(words))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            runs = _runs(words[start])
            if runs:
                yield [zone + start, end - start, runs]


def _runs(words: Words) -> list[list[int]]:
    """``[first block, blocks]`` of the bits that are set."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)
    edges = mask_runs(bits)
    edges[:, 1] -= edges[:, 0]
    runs: list[list[int]] = edges.tolist()
    return runs


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Write a document back; data in the zones and write pointers stay as they are.

    Each set is made invalid before its tables change and valid again after they are durable. A
    checksum that the document calls right is computed anew, so fields may be edited.

    Raises:
        MetadataError: the document is damaged, or made for other devices.
    """
    blocks = open_target(target)
    state = read_state(blocks)
    reader = DocumentReader(document, blocks.geometry)
    reader.check_version()
    reader.check_geometry()
    tables = {found.number: found for found in reader.sets()}
    records = list(reader.superblocks())
    plan = Plan("restore dm-zoned metadata")
    plan.messages.append("write pointers and data are not part of a dump: check the target afterwards")
    for number in (1, 0):
        record = next((r for r in records if r.number == number), None)
        if record is not None:
            _plan_set(plan, state, record, tables.get(number))
    for record in records:
        if record.device is not None:
            member = blocks.geometry.members[record.device]
            if not _holds(blocks, member.block_offset, record.raw):
                plan_tertiary(plan, blocks.geometry, member, record.superblock)
    return plan


def _plan_set(plan: Plan, state: TargetState, record: SuperBlockRecord, tables: SetTables | None) -> None:
    blocks, number = state.blocks, record.number
    assert number is not None
    steps: list[Step] = []
    if tables is not None:
        layout = _layout_of(blocks.geometry, record)
        steps += _table_steps(blocks, layout, number, tables)
    device, offset_bytes = blocks.geometry.locate(record.block)
    changed = not _holds(blocks, record.block, record.raw)
    if steps:
        plan.write(device, offset_bytes, bytes(BLOCK_BYTES), f"invalidate the {SET_NAMES[number]} super block")
        plan.flush(device)
        plan.steps += steps
        plan.flush(device)
    if steps or changed:
        plan.write(device, offset_bytes, record.raw, f"{SET_NAMES[number]} super block")
        plan.flush(device)


def _holds(blocks: TargetBlocks, block: int, raw: bytes) -> bool:
    """Whether a block has this content; one that cannot be read has not."""
    try:
        return blocks.read(block, 1) == raw
    except DeviceError as error:
        if error.errno != errno.EIO:
            raise
        return False


def _layout_of(geometry: TargetGeometry, record: SuperBlockRecord) -> MetadataLayout:
    """Layout of a set that starts at the record's block.

    Raises:
        MetadataError: the set would not fit the metadata zones of these devices.
    """
    sb: SuperBlock = record.superblock
    number = record.number or 0
    if not 0 < sb.nr_chunks <= geometry.nr_zones:
        raise MetadataError(f"the document's {sb.nr_chunks} chunks do not fit these devices")
    bare = MetadataLayout.of(geometry, 0, sb.nr_chunks, sb.nr_reserved_seq)
    first = record.block // geometry.zone_blocks - number * bare.set_zones
    layout = MetadataLayout.of(geometry, first, sb.nr_chunks, sb.nr_reserved_seq)
    zones = layout.metadata_zones
    fits = zones.start >= 0 and zones.stop <= geometry.members[0].nr_zones and layout.set_block(number) == record.block
    if not fits or bool(geometry.sequential[zones.start : zones.stop].any()):
        raise MetadataError("the document's metadata do not fit these devices", device=geometry.members[0].path)
    return layout


def _table_steps(blocks: TargetBlocks, layout: MetadataLayout, number: int, tables: SetTables) -> Iterator[Step]:
    """What changes of a set; blocks that cannot be read are written whatever they are to hold."""
    place = layout.map_block(number)
    media = read_media(blocks.devices, blocks.geometry, [(place, layout.nr_meta_blocks - 1)])
    blocks = replace(blocks, media=media)
    bad = blocks.unreadable(layout, number)
    wanted = tables.map_table(layout)
    actual = read_map(blocks, layout, number)
    note = f"{SET_NAMES[number]} mapping table"
    forced = bad[: layout.nr_map_blocks]
    yield from difference_steps(blocks, place, as_blocks(wanted), as_blocks(actual), note, forced=forced)
    buffer = bitmap_words(layout, min(stream_zones(layout), layout.nr_zones))
    for zone, words in SetView(blocks, layout, number).stream():
        rows = buffer[: len(words)]
        tables.fill_bitmaps(zone, rows)
        block = layout.bitmap_block(number, zone)
        note = f"{SET_NAMES[number]} bitmap blocks"
        forced = bad[block - place :][: len(as_blocks(rows))]
        yield from difference_steps(blocks, block, as_blocks(rows), as_blocks(words), note, forced=forced)
