"""States of dm-zoned targets that our engine leaves, handed to the kernel by the dozen (:mod:`tests.lab.prepared`)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pytest

from tests.formats.dm_zoned.crash_model import (
    Change,
    CutSeries,
    History,
    aged,
    content,
    error_findings,
    formatted,
    logical,
    run_workload,
    seeds_of,
    split_writes,
)
from tests.formats.dm_zoned.images import BLOCK, MIB, check_target, drive, logical_content, regular
from tests.formats.dm_zoned.reshape_support import carried_out, used
from tests.formats.dm_zoned.test_crash_cuts import losing
from tests.lab.prepared import Proof
from tests.lab.vm import Lab
from zoned_tools.device.base import Device
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.errors import GeometryError, RefusedError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.attach import AttachOptions, plan_attach
from zoned_tools.formats.dm_zoned.detach import plan_detach
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.sync import only_needs_sync, plan_sync

GEOMETRIES = 10
CUTS = 36
KERNEL_WRITES = 12


def of(devices: Sequence[Device]) -> Target:
    return Target("dm-zoned", tuple(devices))


def random_drive(chance: random.Random) -> list[Device]:
    """A used target on a drive of any geometry that null_blk has, and an empty cache device before it."""
    while True:
        zone_bytes = chance.choice((1, 1, 1, 2)) * MIB
        zones, conventional = chance.randrange(12, 30), chance.randrange(5, 12)
        cache_zones = chance.randrange(9, 24) + chance.choice((0, 0.5))
        try:
            base = formatted([drive(zones, conventional, zone_bytes)], reserved=chance.randrange(1, 4))
        except GeometryError:
            continue
        drives = used(base, chance, requests=chance.choice((0, 15, 25)))
        return [regular(int(cache_zones * zone_bytes) // MIB * MIB), *drives]


@pytest.fixture(scope="module")
def failed(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the kernel made of all states in one guest."""
    folder = tmp_path_factory.mktemp("states")
    proof = Proof(folder)
    attach_and_detach(proof)
    cut_our_engine(proof)
    found = proof.run(lab, folder / "out")
    shutil.rmtree(folder)
    return found


def test_attached_and_detached_in_any_geometry(failed: list[str]) -> None:
    """The kernel starts each target after attaching, and after detaching, and reads every block as it was."""
    assert not [line for line in failed if line.startswith("geometry ")]


def test_cuts_of_our_engine_go_on_with_the_kernel(failed: list[str]) -> None:
    """What ``dmzadm --start`` does before it starts is all that is needed: the kernel's own writes lose nothing."""
    assert not [line for line in failed if line.startswith("cut ")]


def attach(options: AttachOptions) -> Callable[[list[Device]], Plan]:
    return lambda devices: plan_attach(devices[0], devices[1], options).plan


def attach_and_detach(proof: Proof) -> None:
    chance = random.Random("attach and detach")
    while proof.starts < 2 * GEOMETRIES:
        devices = random_drive(chance)
        name = f"geometry {proof.starts // 2}"
        before = logical_content(of(devices[1:]))
        grow = chance.random() < 0.3
        both, _ = carried_out(devices, attach(AttachOptions(grow=grow)))
        lived = used(both, chance, 6)
        now = logical_content(of(lived))
        try:
            alone, _ = carried_out(lived, lambda on: plan_detach(on[0], on[1]).plan)
        except RefusedError:
            continue  # grown, or too full to be on the drive alone
        for what, members, expected in (("attached", both, before), ("detached", alone[1:], now)):
            proof.begin(f"{name} {what}", members)
            proof.start()
            proof.compare(expected)
            proof.stop()
            proof.end()


def cut_targets(chance: random.Random) -> Iterator[tuple[list[Device], bytes]]:
    """Our engine's devices after power cuts, and what the logical device has to show: nothing flushed is lost.

    Those of one cut are good until the next one is asked for.
    """
    while True:
        base = aged(formatted([drive(14, 6, MIB)], reserved=2), chance, 12)
        initial = seeds_of(open_mapper(of(base), writable=False, settings=logical()))
        log, history = run_workload(base, chance, 14)
        pieces, starts = split_writes(log)
        history = History(
            initial,
            [Change(c.block, c.count, c.seed, starts[c.log_start]) for c in history.changes],
            [(starts[end], count) for end, count in history.flushes],
        )
        series = CutSeries(base, pieces)
        for point in sorted(chance.sample(starts, min(12, len(starts)))):
            devices = series.cut(point, losing(chance))
            assert error_findings(devices) == []
            history.verify(seeds_of(open_mapper(of(devices), writable=False, settings=logical())), point)
            yield devices, logical_content(of(devices))


def cut_our_engine(proof: Proof) -> None:
    chance = random.Random("cuts of our engine")
    synchronized = 0
    for number, (devices, found) in enumerate(islice(cut_targets(chance), CUTS)):
        evidence = check_target(of(devices))
        if only_needs_sync(evidence):
            apply_plan(devices, plan_sync(of(devices)).steps)
            synchronized += 1
        after = check_target(of(devices))
        assert "sets-gen-differ" not in after.findings.codes
        assert not after.has_errors
        expected = bytearray(found)
        requests = []
        for seed in range(KERNEL_WRITES):
            block = chance.randrange(len(found) // BLOCK - 4)
            data = content(block, chance.randrange(1, 5), 7000 + seed)
            requests.append((block, data))
            expected[block * BLOCK : block * BLOCK + len(data)] = data
        proof.begin(f"cut {number}", devices)
        proof.start()
        proof.write(requests)
        proof.stop()
        proof.start()
        proof.compare(bytes(expected))
        proof.stop()
        proof.end()
    assert synchronized >= 6
