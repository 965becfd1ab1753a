"""What the mapper's tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.formats.dm_zoned.crash_model import Log, content, logical
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LogEntry, Recorder
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

ZONE = 16
"""Blocks of a zone of the single-device target."""


def opened(devices: list[Device], *, writable: bool = True, **options: Any) -> DmZonedMapper:
    return open_mapper(Target("dm-zoned", tuple(devices)), writable=writable, settings=logical(**options))


def recorded(devices: list[Device], before: Callable[[LogEntry], None] | None = None) -> tuple[list[Device], Log]:
    log: Log = []
    return [Recorder(device, log, number, before) for number, device in enumerate(devices)], log


def zones_named(mapper: DmZonedMapper) -> set[int]:
    """Ids of all zones that the mapping table names."""
    table = mapper._store.table[: mapper._store.layout.nr_chunks]
    return set(table[table != 0xFFFFFFFF].tolist())


def fill(mapper: DmZonedMapper, seed: int, step: int = 7) -> None:
    for block in range(0, mapper.size_blocks, step):
        count = min(step, mapper.size_blocks - block)
        mapper.write(block, content(block, count, seed))
