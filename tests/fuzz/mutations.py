"""Mutations as data: short lists that JSON can hold, applied in order to the drives of a base image.

A generator of a layout decides what to change and writes down bytes; so an input means the same when the
generator changes. Checksums that have to fit afterwards are mutations too (``seal``), the last of an input.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tests.fuzz.drives import FuzzDrive
from zoned_tools.device.zones import ACTIVE_CONDITIONS, ZoneCondition, ZoneType

Mutation: TypeAlias = "list[Any]"
"""``[operation, drive, ...]``, see :func:`apply`."""

Seal: TypeAlias = "Callable[..., None]"
"""``seal(drive, offset, ...)``: puts the checksum of the structure at an offset right, as far as there is one."""

MAX_BYTES = 1 << 20
"""Longest range of one mutation."""

_INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 65535, 65536)
_HIGH = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1)


def apply(drives: Sequence[FuzzDrive], mutations: Sequence[Mutation], seals: Mapping[str, Seal]) -> None:
    """Apply mutations; what does not fit the drives does nothing."""
    for operation, number, *rest in mutations:
        if not 0 <= number < len(drives):
            continue
        drive = drives[number]
        if operation == "seal":
            seals[rest[0]](drive, *rest[1:])
        else:
            _OPERATIONS[operation](drive, *rest)


def _put(drive: FuzzDrive, offset: int, digits: str) -> None:
    """``["put", drive, offset, hexadecimal digits]``"""
    drive.poke(offset, bytes.fromhex(digits))


def _flip(drive: FuzzDrive, offset: int, bit: int) -> None:
    """``["flip", drive, offset, bit]``"""
    byte = drive.peek(offset, 1)
    if byte:
        drive.poke(offset, bytes([byte[0] ^ (1 << bit % 8)]))


def _fill(drive: FuzzDrive, offset: int, length: int, byte: int) -> None:
    """``["fill", drive, offset, length, byte]``"""
    drive.poke(offset, bytes([byte]) * min(length, MAX_BYTES))


def _noise(drive: FuzzDrive, offset: int, length: int, seed: int) -> None:
    """``["noise", drive, offset, length, seed]``"""
    drive.poke(offset, random.Random(seed).randbytes(min(length, MAX_BYTES)))


def _copy(drive: FuzzDrive, source: int, offset: int, length: int) -> None:
    """``["copy", drive, source, offset, length]``"""
    drive.poke(offset, drive.peek(source, min(length, MAX_BYTES)))


def _swap(drive: FuzzDrive, one: int, other: int, length: int) -> None:
    """``["swap", drive, offset, other offset, length]``"""
    length = min(length, MAX_BYTES)
    first, second = drive.peek(one, length), drive.peek(other, length)
    drive.poke(one, second)
    drive.poke(other, first)


def _zone(drive: FuzzDrive, zone: int, condition: int, written_sectors: int) -> None:
    """``["zone", drive, zone, condition, sectors below the write pointer]``; becomes what a drive can report."""
    if not 0 <= zone < len(drive.table):
        return
    row = drive.table[zone]
    start, capacity = int(row["start_sector"]), int(row["capacity_sectors"])
    if row["type"] == ZoneType.CONVENTIONAL:
        if condition not in (ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE):
            condition = ZoneCondition.NOT_WP
        row["condition"] = condition
        return
    unit = max(drive.geometry.physical_block_bytes // 512, 1)
    written = min(max(written_sectors // unit * unit, 0), capacity)
    if condition == ZoneCondition.NOT_WP:
        condition = ZoneCondition.EMPTY
    if condition == ZoneCondition.EMPTY:
        written = 0
    elif condition in ACTIVE_CONDITIONS:
        written = min(max(written, unit), max(capacity - unit, 0) // unit * unit)
    elif condition == ZoneCondition.FULL:
        written = int(row["length_sectors"])
    row["condition"] = condition
    row["wp_sector"] = start + written


def _kind(drive: FuzzDrive, zone: int, kind: int) -> None:
    """``["kind", drive, zone, type]``: a zone of another type, full when it becomes sequential."""
    if not 0 <= zone < len(drive.table):
        return
    row = drive.table[zone]
    row["type"] = kind
    row["wp_sector"] = row["start_sector"] + row["length_sectors"]
    row["condition"] = ZoneCondition.NOT_WP if kind == ZoneType.CONVENTIONAL else ZoneCondition.FULL


def _capacity(drive: FuzzDrive, zone: int, sectors: int) -> None:
    """``["capacity", drive, zone, sectors]``"""
    if 0 <= zone < len(drive.table):
        row = drive.table[zone]
        unit = max(drive.geometry.physical_block_bytes // 512, 1)
        row["capacity_sectors"] = min(max(sectors // unit * unit, unit), int(row["length_sectors"]))
        if row["condition"] in ACTIVE_CONDITIONS and row["wp_sector"] >= row["start_sector"] + row["capacity_sectors"]:
            row["condition"] = ZoneCondition.FULL
            row["wp_sector"] = row["start_sector"] + row["length_sectors"]


_OPERATIONS: dict[str, Callable[..., None]] = {
    "put": _put,
    "flip": _flip,
    "fill": _fill,
    "noise": _noise,
    "copy": _copy,
    "swap": _swap,
    "zone": _zone,
    "kind": _kind,
    "capacity": _capacity,
}


# -- what generators of all layouts use


def number(choose: random.Random, size: int, value: int = 0, limit: int = 0) -> int:
    """A number for a field of ``size`` bytes: an interesting one, near ``value``, below ``limit``, or any."""
    match choose.randrange(6):
        case 0:
            made = choose.choice(_INTERESTING)
        case 1:
            made = choose.choice(_HIGH)
        case 2:
            made = value + choose.choice((-2, -1, 1, 2, 8, 256))
        case 3:
            made = value ^ (1 << choose.randrange(8 * size))
        case 4 if limit > 0:
            made = choose.randrange(limit)
        case _:
            made = choose.getrandbits(choose.randrange(1, 8 * size + 1))
    return made % (1 << 8 * size)


def put_number(number_: int, size: int, drive: int, offset: int) -> Mutation:
    """A little-endian number into a field."""
    return ["put", drive, offset, number_.to_bytes(size, "little").hex()]


def damage(choose: random.Random, drive: int, offset: int, length: int, others: Sequence[int] = ()) -> Mutation:
    """Damage that knows no structure to ``length`` bytes: bits, bytes, torn, filled, exchanged with ``others``."""
    at = offset + choose.randrange(length)
    match choose.randrange(8 if others else 6):
        case 0 | 1:
            return ["flip", drive, at, choose.randrange(8)]
        case 2:
            return ["put", drive, at, choose.randbytes(choose.choice((1, 2, 4, 8))).hex()]
        case 3:
            return ["fill", drive, offset, length, choose.choice((0, 0, 0xFF, choose.randrange(256)))]
        case 4:  # torn: the first sectors reached the drive, the others did not
            keep = choose.randrange(0, length, 512) if length > 512 else length // 2
            return ["fill", drive, offset + keep, length - keep, choose.choice((0, 0xFF))]
        case 5:
            return ["noise", drive, offset, choose.choice((length, min(length, 16))), choose.randrange(1 << 20)]
        case 6:
            return ["copy", drive, choose.choice(others), offset, length]
        case _:
            return ["swap", drive, choose.choice(others), offset, length]


def zone_change(choose: random.Random, drive: int, table: np.ndarray[Any, Any], zones: Sequence[int] = ()) -> Mutation:
    """Another condition or write pointer, sometimes another type or capacity, of one of ``zones`` (default: any)."""
    zone = choose.choice(zones) if zones and choose.random() < 0.8 else choose.randrange(len(table))
    row = table[zone]
    capacity = int(row["capacity_sectors"])
    kind = choose.randrange(10)
    if kind == 0:
        return ["kind", drive, zone, choose.choice((1, 2, 2, 3))]
    if kind == 1:
        return ["capacity", drive, zone, choose.choice((8, capacity // 2, capacity - 8))]
    condition = choose.choice([int(c) for c in ZoneCondition])
    written = min(max(int(row["wp_sector"]) - int(row["start_sector"]), 0), capacity)
    near = choose.choice((written + 8, written - 8, written // 2, capacity - 8, 8, choose.randrange(capacity + 1)))
    return ["zone", drive, zone, condition, near // 8 * 8]


def how_many(choose: random.Random) -> int:
    """Most inputs change one to three things."""
    return choose.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, choose.randrange(4, 9)))


def minimise(mutations: Sequence[Mutation], fails: Callable[[list[Mutation]], bool]) -> list[Mutation]:
    """The fewest mutations that still fail (delta debugging), then shorter ranges of those that are left."""
    kept = list(mutations)
    size = max(len(kept) // 2, 1)
    while kept:
        reduced = False
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if fails(fewer):
                kept, reduced = fewer, True
            else:
                at += size
        if size == 1 and not reduced:
            break
        size = max(size // 2, 1)
    return _shortened(kept, fails)


def _shortened(kept: list[Mutation], fails: Callable[[list[Mutation]], bool]) -> list[Mutation]:
    for index, mutation in enumerate(kept):
        for shorter in _shorter(mutation):
            trial = [*kept[:index], shorter, *kept[index + 1 :]]
            if fails(trial):
                kept = trial
                break
    return kept


def _shorter(mutation: Mutation) -> list[Mutation]:
    """Smaller forms of one mutation, the smallest first."""
    match mutation:
        case ["fill", drive, offset, length, byte]:
            return [["fill", drive, offset, n, byte] for n in (1, 8, 64, 512, 4096) if n < length]
        case ["noise", drive, offset, length, seed]:
            return [["noise", drive, offset, n, seed] for n in (1, 8, 64, 512, 4096) if n < length]
        case _:
            return []
