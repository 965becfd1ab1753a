"""Small targets with a past, and what the tests of offline work share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence

from tests.formats.dm_zoned.crash_model import CutSeries, Log, Workload, error_findings, formatted, split_writes
from tests.formats.dm_zoned.images import drive, logical_content
from tests.formats.dm_zoned.test_crash_cuts import losing
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay, Recorder
from zoned_tools.device.plan import Plan, apply_plan, verify_plan
from zoned_tools.errors import GeometryError
from zoned_tools.formats.contract import Target

KIB = 1024


def random_single(chance: random.Random) -> list[Device]:
    """A target on one drive of any small geometry, after some requests."""
    while True:
        zone_bytes = chance.choice((64, 128, 256)) * KIB
        zones, conventional = chance.randrange(14, 40), chance.randrange(5, 12)
        runt = chance.choice((0, 0, 32 * KIB))
        try:
            base = formatted([drive(zones, conventional, zone_bytes, runt_bytes=runt)], reserved=chance.randrange(1, 4))
        except GeometryError:
            continue
        return used(base, chance, requests=chance.choice((0, 5, 25, 40)))


def used(base: Sequence[Device], chance: random.Random, requests: int) -> list[Device]:
    """The devices after some requests and a clean stop, often with buffers and emptied chunks left."""
    devices: list[Device] = [Overlay(device) for device in base]
    workload = Workload(devices, chance, [])
    for number in range(requests):
        workload.request(1000 + number)
    if requests:
        workload.mapper.discard(0, workload.mapper.size_blocks // 5)
    workload.mapper.close()
    return devices


def content(*devices: Device) -> str:
    """Digest of the logical device."""
    return hashlib.sha256(logical_content(Target("dm-zoned", devices))).hexdigest()


def is_sound(devices: Sequence[Device]) -> bool:
    return not error_findings(list(devices))


def carried_out(devices: Sequence[Device], plan: Callable[[list[Device]], Plan]) -> tuple[list[Device], Log]:
    """Copies of the devices after a plan was carried out and read back, and all that happened to them."""
    log: Log = []
    views: list[Device] = [Recorder(Overlay(device), log, number) for number, device in enumerate(devices)]
    made = plan(views)
    apply_plan(views, made.steps)
    verify_plan(views, made)
    return views, log


def cuts(devices: Sequence[Device], log: Log, chance: random.Random, most: int) -> Iterator[tuple[int, list[Device]]]:
    """The devices after power cuts at every write, and inside of writes as far as these are not too many.

    Those of one cut are good until the next one is asked for.
    """
    pieces, starts = split_writes(log)
    inside = sorted(set(range(len(pieces) + 1)) - set(starts))
    torn = inside if len(starts) + len(inside) <= most else chance.sample(inside, max(most - len(starts), 0))
    series = CutSeries(list(devices), pieces)
    for point in sorted({*starts, *torn}):
        yield point, series.cut(point, losing(chance))
