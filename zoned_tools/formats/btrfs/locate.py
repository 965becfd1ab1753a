"""Where logical addresses live, in every copy, and whose a zone is (btrfs-zoned.md 11, ``zoned map``)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.btrfs.chosen import choose_supers
from zoned_tools.formats.btrfs.chunks import BLOCK_GROUP_TYPES, COPY_PROFILES, ROW_BYTES, ROW_PROFILES, Chunk, Place
from zoned_tools.formats.btrfs.nodes import NodeError
from zoned_tools.formats.btrfs.survey import survey_file_system
from zoned_tools.formats.btrfs.zone_accounts import account_zones
from zoned_tools.formats.btrfs.zone_states import DEAD
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES
from zoned_tools.formats.shared.views import CopyExtent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned_tools.formats.btrfs.survey import FileSystem
    from zoned_tools.formats.btrfs.zone_states import ZoneStates
    from zoned_tools.formats.contract import Settings, Target

OK: Final = "ok"
ABOVE_WP: Final = "above-wp"
DEAD_ZONE: Final = "dead"
MISSING: Final = "missing"

_BLOCK = LOGICAL_BLOCK_BYTES


def map_copies(target: Target, settings: Settings, ranges: Sequence[tuple[int, int]] | None) -> Iterator[CopyExtent]:
    """Every copy of ``(first block, blocks)`` ranges of the logical space, in stripe order; None for all chunks.

    Raises:
        MetadataError: no super block leads to a chunk tree that can be read.
    """
    fs = survey_file_system(target)
    block = choose_supers(fs, settings).block
    try:
        chunks = fs.reader.chunk_map(block).chunks
    except NodeError as error:
        raise MetadataError(str(error), device=target.device.path) from None
    return CopyMap(fs, chunks, fs.zone_states(block)).rows(ranges)


class CopyMap:
    """Addresses of one file system to the places of their copies."""

    def __init__(self, fs: FileSystem, chunks: list[Chunk], zones: Mapping[int, ZoneStates]) -> None:
        self._chunks = chunks
        self._starts = [chunk.logical for chunk in chunks]
        self._zones = zones
        self._start_bytes = fs.reader.start_bytes
        self._indexes = {devid: fs.target.devices.index(device) for devid, device in fs.reader.devices.items()}

    def rows(self, ranges: Sequence[tuple[int, int]] | None) -> Iterator[CopyExtent]:
        if ranges is None:
            for chunk in self._chunks:
                yield from self._chunk(chunk, 0, chunk.length_bytes)
            return
        for first, count in ranges:
            yield from self._range(first * _BLOCK, (first + count) * _BLOCK)

    def _range(self, at: int, end: int) -> Iterator[CopyExtent]:
        index = max(bisect_right(self._starts, at) - 1, 0)
        for chunk in self._chunks[index:]:
            start, stop = max(chunk.logical, at), min(chunk.logical + chunk.length_bytes, end)
            if chunk.logical >= end:
                break
            if start >= stop:
                continue
            if at < start:
                yield _nowhere(at, start)
            yield from self._chunk(chunk, start - chunk.logical, stop - chunk.logical)
            at = stop
        if at < end:
            yield _nowhere(at, end)

    def _chunk(self, chunk: Chunk, at: int, end: int) -> Iterator[CopyExtent]:
        """The copies of a part of one chunk; pieces end where one copy's state changes, and at rows of stripes."""
        kinds = "+".join(name for bit, name in BLOCK_GROUP_TYPES.items() if chunk.type >> bit & 1)
        group = f"{kinds} {chunk.profile}, block group {chunk.logical}"
        if chunk.profile not in COPY_PROFILES | ROW_PROFILES:
            yield _nowhere(chunk.logical + at, chunk.logical + end, f"{group}: its profile is not followed")
            return
        while at < end:
            stop = min((at // ROW_BYTES + 1) * ROW_BYTES, end) if chunk.profile in ROW_PROFILES else end
            places = chunk.places(at, min(stop - at, _BLOCK))
            assert places is not None
            stop = at + min([stop - at, *(self._until_change(place, stop - at) for place in places)])
            for copy, place in enumerate(places, 1):
                yield self._row(chunk.logical + at, stop - at, place, f"{group}, copy {copy} of {len(places)}", copy)
            at = stop

    def _until_change(self, place: Place, length: int) -> int:
        """Bytes from a place to its zone's write pointer, in whole blocks; ``length`` where that lies not in front."""
        states = self._zones.get(place.devid)
        zone = None if states is None else states.zone_of(place.offset_bytes)
        if states is None or zone is None or int(states.written[zone]) < 0:
            return length
        below = zone * states.zone_bytes + int(states.written[zone]) - self._start_bytes - place.offset_bytes
        return -(-below // _BLOCK) * _BLOCK if below > 0 else length

    def _row(self, logical: int, length: int, place: Place, why: str, copy: int) -> CopyExtent:
        states = self._zones.get(place.devid)
        zone = None if states is None else states.zone_of(place.offset_bytes)
        state = MISSING
        if states is not None and zone is not None:
            why += f", zone {zone}"
            written = int(states.written[zone])
            above = states.why_not(place.offset_bytes, min(length, _BLOCK)) == ABOVE_WP
            state = DEAD_ZONE if written == DEAD else ABOVE_WP if above else OK
        elif place.devid in self._indexes:  # a regular device without zones that could be told
            state = OK
        if state != OK:
            why += f", {state}"
        where: dict[str, int | str | None] = {"copy": copy, "devid": place.devid, "zone": zone, "state": state}
        at = (self._start_bytes + place.offset_bytes) // _BLOCK
        return CopyExtent(logical // _BLOCK, max(length // _BLOCK, 1), self._indexes.get(place.devid), at, why, where)


def _nowhere(start: int, end: int, why: str = "in no chunk") -> CopyExtent:
    none: dict[str, int | str | None] = {"copy": None, "devid": None, "zone": None, "state": None}
    return CopyExtent(start // _BLOCK, (end - start) // _BLOCK, None, None, why, none)


def map_zone(target: Target, settings: Settings, zone: int) -> list[Mapping[str, object]]:
    """The zone's row of ``zoned btrfs zones`` on each device that has it, with its block group's logical range.

    Raises:
        UsageError: no device has the zone.
        MetadataError: as :func:`~.zone_accounts.account_zones`.
    """
    accounts = account_zones(target, settings)
    lengths = {chunk.logical: chunk.length_bytes for chunk in accounts.chunks}
    rows: list[Mapping[str, object]] = []
    for device in accounts.devices:
        if zone >= len(device["zones"]):
            continue
        row: dict[str, Any] = {"device": device["device"], "devid": device["devid"], **device["zones"][zone]}
        logical = row.get("block_group")
        row |= {"logical_bytes": logical, "length_bytes": None if logical is None else lengths[logical]}
        rows.append(row)
    if not rows:
        count = max((len(device["zones"]) for device in accounts.devices), default=0)
        raise UsageError(f"there is no zone {zone}, the last is {count - 1}", device=target.device.path)
    return rows
