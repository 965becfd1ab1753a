"""What a damaged zone table still says: header fields vote, descriptors follow from the header, content and neighbours.

Start and length of a zone follow from the header. A write that was cut short leaves the
first part of a new descriptor before the rest of the old one, in which type and capacity
are the same; only write pointer and condition can then contradict each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from zoned_tools.device import dump
from zoned_tools.device.zones import ACTIVE_CONDITIONS, SECTOR_BYTES, ZoneCondition, ZoneType
from zoned_tools.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Descriptors: TypeAlias = "np.ndarray[Any, np.dtype[np.void]]"
_SEQUENTIAL = (ZoneType.SEQ_REQUIRED, ZoneType.SEQ_PREFERRED)
_ACTIVE = tuple(int(c) for c in ACTIVE_CONDITIONS)
_CONDITIONS = tuple(int(c) for c in ZoneCondition)
_READ_BYTES = 1 << 20


class Content(Protocol):
    """The bytes of the image."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None: ...

    def data_extents(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int]]: ...


@dataclass(slots=True)
class SidecarRepair:
    """What the repair of a zone table found.

    Attributes:
        sidecar: the file.
        repaired: what was rebuilt, one sentence each.
        missing: what is lost and follows from nothing; then nothing is written.
        content: the whole new file; None when there is nothing to write.
    """

    sidecar: str
    repaired: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    content: bytes | None = None


def mend(raw: bytes, image: Content, sidecar: str) -> SidecarRepair:
    """Rebuild a zone table from what is left of it; writes nothing."""
    result = SidecarRepair(sidecar)
    try:
        dump.decode(raw, sidecar)
    except SidecarError:
        pass
    else:
        return result
    if len(raw) < dump.HEADER_BYTES:
        result.missing.append(f"the header: the file is {len(raw)} bytes long")
        return result
    zones = np.frombuffer(raw, dump.DESCRIPTOR_DTYPE, (len(raw) - dump.HEADER_BYTES) // 64, dump.HEADER_BYTES).copy()
    header = dump.HEADER.parse(raw[: dump.HEADER_BYTES])
    _mend_header(header, zones, result)
    if not result.missing and len(zones) < header.nr_zones:
        result.missing.append(f"zones {len(zones)} to {header.nr_zones - 1}: the file ends before their descriptors")
    if result.missing:
        return result
    zones = zones[: header.nr_zones]
    _mend_places(header, zones, result)
    _mend_kinds(header, zones, result)
    _mend_states(header, zones, image, result)
    new = dump.HEADER.build(header)
    new = new[:92] + raw[92:128] + new[128:136] + raw[136 : dump.HEADER_BYTES] + zones.tobytes()
    if not result.missing:
        try:
            dump.decode(new, sidecar)
        except SidecarError as error:
            result.missing.append(error.message)
        else:
            result.content = new
    return result


def _vote(name: str, now: int, votes: list[int], result: SidecarRepair) -> int:
    """The value that at least two places agree on."""
    value, count = Counter(v for v in votes if v > 0).most_common(1)[0] if any(v > 0 for v in votes) else (0, 0)
    if count < 2:
        result.missing.append(f"the header's {name}: {now}, and nothing else says it")
        return now
    if value != now:
        result.repaired.append(f"the header's {name} is {value}, not {now}")
    return value


def _mend_header(header: dump.Header, zones: _Descriptors, result: SidecarRepair) -> None:
    lengths = Counter(zones["length"].tolist()).most_common(1)
    common = int(lengths[0][0]) if lengths else 0
    end = int(zones["start"][-1] + zones["length"][-1]) // SECTOR_BYTES if len(zones) else 0
    size = _vote("zone size", header.zone_size, [header.zone_size, header.zone_sectors * SECTOR_BYTES, common], result)
    places = [
        header.nr_sectors,
        header.nr_lblocks * header.lblock_size // SECTOR_BYTES,
        header.nr_pblocks * header.pblock_size // SECTOR_BYTES,
        end,
    ]
    sectors = _vote("number of sectors", header.nr_sectors, places, result)
    expected = -(-sectors * SECTOR_BYTES // size) if size else 0
    count = _vote("number of zones", header.nr_zones, [header.nr_zones, expected, len(zones)], result)
    if header.zone_sectors * SECTOR_BYTES != size:
        result.repaired.append(
            f"the header's zone size in sectors is {size // SECTOR_BYTES}, not {header.zone_sectors}"
        )
    header["zone_size"], header["zone_sectors"] = size, size // SECTOR_BYTES
    header["nr_sectors"], header["nr_zones"] = sectors, count
    for blocks, block in (("nr_lblocks", "lblock_size"), ("nr_pblocks", "pblock_size")):
        _mend_block_size(header, blocks, block, result)
    kinds = set(zones["type"].tolist())
    model = 2 if ZoneType.SEQ_PREFERRED in kinds else 1
    if header.model not in (1, 2):
        if not kinds & set(_SEQUENTIAL):
            result.missing.append("the header's model: no zone is sequential")
            return
        result.repaired.append(f"the header's model is {model}, not {header.model}")
        header["model"] = model


def _mend_block_size(header: dump.Header, blocks: str, block: str, result: SidecarRepair) -> None:
    size, count, total = header[block], header[blocks], header.nr_sectors * SECTOR_BYTES
    if size >= SECTOR_BYTES and not size & (size - 1):
        header[blocks] = total // size
        return
    derived = total // count if count else 0
    if derived < SECTOR_BYTES or derived & (derived - 1):
        result.missing.append(f"the header's {block}: {size}")
        return
    result.repaired.append(f"the header's {block} is {derived}, not {size}")
    header[block] = derived


def _mend_places(header: dump.Header, zones: _Descriptors, result: SidecarRepair) -> None:
    """Start and length follow from the header."""
    total = header.nr_sectors * SECTOR_BYTES
    start = np.arange(len(zones), dtype=np.uint64) * np.uint64(header.zone_size)
    length = np.full(len(zones), header.zone_size, np.uint64)
    length[-1] = total - int(start[-1])
    for zone in np.flatnonzero((zones["start"] != start) | (zones["length"] != length)).tolist():
        result.repaired.append(f"zone {zone}: start and length")
    zones["start"], zones["length"] = start, length


def _mend_kinds(header: dump.Header, zones: _Descriptors, result: SidecarRepair) -> None:
    """Types follow from conditions, capacities from the other zones, where those leave no choice."""
    sequential = ZoneType.SEQ_PREFERRED if header.model == 2 else ZoneType.SEQ_REQUIRED
    for zone in np.flatnonzero(~np.isin(zones["type"], [int(t) for t in ZoneType])).tolist():
        condition = int(zones["condition"][zone])
        if condition == ZoneCondition.NOT_WP:
            zones["type"][zone] = ZoneType.CONVENTIONAL
        elif condition in (ZoneCondition.EMPTY, ZoneCondition.FULL, *_ACTIVE):
            zones["type"][zone] = sequential
        else:
            result.missing.append(f"zone {zone}: its type")
            continue
        result.repaired.append(f"zone {zone}: type {int(zones['type'][zone])}, by its condition")
    capacity, length = zones["capacity"], zones["length"]
    bad = (capacity == 0) | (capacity > length) | (capacity % np.uint64(SECTOR_BYTES) != 0)
    conventional = zones["type"] == ZoneType.CONVENTIONAL
    whole = ~bad & ~conventional & (length == np.uint64(header.zone_size))
    others = set(capacity[whole].tolist())
    for zone in np.flatnonzero(bad).tolist():
        runt = int(length[zone]) != header.zone_size
        if conventional[zone] or runt:
            zones["capacity"][zone] = length[zone]
        elif len(others) == 1:
            zones["capacity"][zone] = next(iter(others))
        else:
            result.missing.append(f"zone {zone}: its capacity")
            continue
        result.repaired.append(f"zone {zone}: capacity {int(zones['capacity'][zone])}")


def _mend_states(header: dump.Header, zones: _Descriptors, image: Content, result: SidecarRepair) -> None:
    """Conditions and write pointers that contradict each other."""
    kind, condition, wp = zones["type"], zones["condition"], zones["wp"]
    start, end = zones["start"], zones["start"] + zones["capacity"]
    conventional = kind == ZoneType.CONVENTIONAL
    active = np.isin(condition, _ACTIVE)
    unit = np.uint64(header.pblock_size)
    bad = ~np.isin(condition, _CONDITIONS)
    bad |= conventional & np.isin(condition, [ZoneCondition.EMPTY, ZoneCondition.FULL, *_ACTIVE])
    bad |= ~conventional & (condition == ZoneCondition.NOT_WP)
    bad |= ~conventional & (condition == ZoneCondition.EMPTY) & (wp != start)
    bad |= ~conventional & active & ((wp < start) | (wp > end) | ((wp - start) % unit != 0))
    known = np.isin(kind, [int(t) for t in ZoneType]) & (zones["capacity"] > 0) & (end <= start + zones["length"])
    for zone in np.flatnonzero(bad & known).tolist():
        if conventional[zone]:
            zones["condition"][zone] = ZoneCondition.NOT_WP
            result.repaired.append(f"zone {zone}: condition not-wp, it is conventional")
        else:
            _mend_pointer(zones[zone : zone + 1], zone, int(unit), lambda a, b: _last_byte(image, a, b), result)


def _mend_pointer(
    row: _Descriptors, zone: int, unit: int, last_byte: Callable[[int, int], int], result: SidecarRepair
) -> None:
    """A sequential zone: a possible write pointer above the start that covers the content can only be the new one."""
    start, wp, end = int(row["start"][0]), int(row["wp"][0]), int(row["start"][0] + row["capacity"][0])
    written = last_byte(start, end)
    possible = start < wp <= end and (wp - start) % unit == 0 and wp >= written
    exact = possible and wp - written < unit  # content up to the very block: no part of a number by chance
    if int(row["condition"][0]) != ZoneCondition.EMPTY or not exact:
        found = f"content up to byte {written}" if written > start else "no content"
        result.missing.append(f"zone {zone}: its condition and write pointer ({found})")
        return
    row["condition"] = ZoneCondition.FULL if wp == end else ZoneCondition.CLOSED
    word = "full" if wp == end else "closed"
    result.repaired.append(f"zone {zone}: {word}, written up to byte {wp}, as its content says too")


def _last_byte(image: Content, start: int, end: int) -> int:
    """End of the last byte of a range that is not zero; its start when all are."""
    extents = list(image.data_extents(start, end - start))
    for first, length in reversed(extents):
        for at in range(first + (length - 1) // _READ_BYTES * _READ_BYTES, first - 1, -_READ_BYTES):
            buffer = bytearray(min(_READ_BYTES, first + length - at))
            image.read_into(at, memoryview(buffer))
            used = len(buffer.rstrip(b"\0"))
            if used:
                return at + used
    return start
