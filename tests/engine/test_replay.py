"""Replays: what reaches the devices, power cuts, checks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.volumes import BLOCK, StraightMapper
from zoned_tools.device.base import Buffer, Device, Geometry
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.zones import Model
from zoned_tools.engine.replay import ReplayOptions, replay
from zoned_tools.engine.trace import Action, Pattern, Request
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.contract import Evidence, Rule, Rules, Severity, Target

BLOCKS = 64


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    path = str(tmp_path / "disk.img")
    create_image(path, Geometry(Model.REGULAR, BLOCKS * BLOCK), no_zones())
    with ExitStack() as stack:
        yield Target("straight", (stack.enter_context(open_image(path, writable=True)),))


def open_straight(target: Target) -> StraightMapper:
    return StraightMapper(target.device)


def write(block: int, count: int = 1) -> Request:
    return Request(f"write {block}", Action.WRITE, block * BLOCK, count * BLOCK)


FLUSH = Request("flush", Action.FLUSH)


def stamp(block: int, sequence: int) -> bytes:
    return struct.pack("<QQ", block, sequence) * 256


def block_of(device: Device, block: int) -> bytes:
    return device.read(block * BLOCK, BLOCK)


def test_writes_carry_their_number(target: Target) -> None:
    requests = [write(3), write(4, 2), write(3), Request("t", Action.TRIM, 5 * BLOCK, BLOCK), FLUSH]
    result = replay(target, [*requests, Request("r", Action.READ, 7, 5000)], open_straight)
    assert block_of(target.device, 3) == stamp(3, 3)
    assert block_of(target.device, 4) == stamp(4, 2)
    assert block_of(target.device, 5) == bytes(BLOCK)
    assert result.requests == {"read": 1, "write": 3, "trim": 1, "flush": 1, "wait": 0}
    assert result.bytes == {"read": 5000, "write": 4 * BLOCK, "trim": BLOCK}
    assert (result.device.writes, result.device.write_bytes) == (3, 4 * BLOCK)
    assert (result.device.discards, result.device.flushes) == (1, 2)
    assert not result.crashed


def test_seed_and_pattern(target: Target) -> None:
    replay(target, [write(1)], open_straight, ReplayOptions(seed=100))
    assert block_of(target.device, 1) == stamp(1, 101)
    replay(target, [write(1)], open_straight, ReplayOptions(pattern=Pattern.ZERO))
    assert block_of(target.device, 1) == bytes(BLOCK)


def test_unaligned_writes_keep_what_is_around_them(target: Target) -> None:
    replay(target, [write(1, 2), Request("w", Action.WRITE, BLOCK + 512, BLOCK)], open_straight)
    expected = stamp(1, 1)[:512] + stamp(1, 2)[512:] + stamp(2, 2)[:512] + stamp(2, 1)[512:]
    assert target.device.read(BLOCK, 2 * BLOCK) == expected


def test_data_of_the_trace_are_used(target: Target) -> None:
    replay(target, [Request("e", Action.WRITE, 0, 512, b"x" * 512)], open_straight)
    assert target.device.read(0, 1024) == b"x" * 512 + bytes(512)


def test_long_writes_go_in_parts(tmp_path: Path) -> None:
    path = str(tmp_path / "big.img")
    create_image(path, Geometry(Model.REGULAR, 16 << 20), no_zones())
    with open_image(path, writable=True) as device:
        result = replay(Target("x", (device,)), [write(1, 3000)], open_straight)
        assert result.device.writes == 3
        assert block_of(device, 1) == stamp(1, 1)
        assert block_of(device, 3000) == stamp(3000, 1)


@pytest.mark.parametrize("crash_at", range(6))
def test_a_power_cut_lets_exactly_so_many_changes_through(target: Target, crash_at: int) -> None:
    requests = [write(0), write(1), FLUSH, Request("t", Action.TRIM, 0, BLOCK), write(2)]
    result = replay(target, requests, open_straight, ReplayOptions(crash_at=crash_at))
    device = target.device
    assert result.crashed == (crash_at < 4)
    assert result.device.changes == min(crash_at, 4)
    assert block_of(device, 0) == (stamp(0, 1) if 1 <= crash_at < 3 else bytes(BLOCK))
    assert block_of(device, 1) == (stamp(1, 2) if crash_at >= 2 else bytes(BLOCK))
    assert block_of(device, 2) == (stamp(2, 3) if crash_at >= 4 else bytes(BLOCK))


def test_a_mapper_that_swallows_errors_does_not_outlive_the_power(target: Target) -> None:
    class Stubborn(StraightMapper):
        def write(self, block: int, data: Buffer, stream: int = 0) -> None:
            for _ in range(3):
                try:
                    super().write(block, data)
                    return
                except Exception:  # noqa: BLE001 - that is its fault
                    continue

    result = replay(target, [write(n) for n in range(5)], lambda t: Stubborn(t.device), ReplayOptions(crash_at=2))
    assert result.crashed
    assert result.last_place == "write 2"
    assert [block_of(target.device, n) != bytes(BLOCK) for n in range(5)] == [True, True, False, False, False]


def test_dry_run_changes_nothing(target: Target) -> None:
    result = replay(target, [write(0), FLUSH], open_straight, ReplayOptions(dry_run=True))
    assert result.device.writes == 1
    assert block_of(target.device, 0) == bytes(BLOCK)


def test_requests_outside_the_logical_device_are_refused(target: Target) -> None:
    with pytest.raises(UsageError, match=r"disk\.img: line 9: 8192 bytes at byte 258048 are not on"):
        replay(target, [write(0), Request("line 9", Action.WRITE, 63 * BLOCK, 2 * BLOCK)], open_straight)
    assert block_of(target.device, 0) == stamp(0, 1)


def test_failures_of_the_mapper_are_not_power_cuts(target: Target) -> None:
    class Full(StraightMapper):
        def write(self, block: int, data: Buffer, stream: int = 0) -> None:
            raise DeviceError("no zone is free")

    with pytest.raises(DeviceError, match="no zone"):
        replay(target, [write(0)], lambda t: Full(t.device), ReplayOptions(crash_at=100))


RULES = Rules("straight", {"bad": Rule(Severity.ERROR, "A block is written.")})


def test_check_runs_after_each_flush_and_at_the_end(target: Target) -> None:
    seen: list[bool] = []

    def check(checked: Target) -> Evidence:
        seen.append(block_of(checked.device, 0) == stamp(0, 1))
        report = Evidence(checked)
        if block_of(checked.device, 1) == stamp(1, 2):
            report.findings.add(RULES.finding("bad", "block 1 is written"))
        return report

    result = replay(target, [FLUSH, write(0), FLUSH], open_straight, check_each=check)
    assert seen == [False, True, True]
    assert result.checks == 3
    assert not result.has_errors
    again = [write(0), write(1), FLUSH, write(2)]
    result = replay(target, again, open_straight, ReplayOptions(dry_run=True), check)
    assert result.has_errors
    assert result.checks == 1
    assert result.requests["write"] == 2, "the replay goes on after an error"
    assert block_of(target.device, 1) == bytes(BLOCK)


def test_long_waits_let_an_idle_mapper_reclaim(target: Target) -> None:
    class Idle(StraightMapper):
        reclaims_when_idle = True
        idle_seconds = 10

        def reclaim(self) -> int:
            return 3

        def free_zones(self) -> dict[str, int]:
            return {"random": 7}

    class Patient(Idle):
        idle_seconds = 60

    waits = [Request("w", Action.WAIT, microseconds=us) for us in (9_999_999, 10_000_000, 60_000_000)]
    result = replay(target, waits, lambda t: Idle(t.device))
    assert result.reclaim_steps == 6
    assert result.free_zones == {"random": 7}
    assert replay(target, waits, lambda t: Patient(t.device)).reclaim_steps == 3
    assert replay(target, waits, open_straight).reclaim_steps == 0
