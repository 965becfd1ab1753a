"""The ring engine against a simple model: commits at any capacity, power cuts, lookups that count reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.btrfs.images import MIB, SUPER_BYTES, Drive, head_of, make_super, poke
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.formats.btrfs.copies import generation_of, read_block
from zoned_tools.formats.btrfs.latest import find_latest
from zoned_tools.formats.btrfs.layout import mirrors_on, reserved_zones
from zoned_tools.formats.btrfs.open import locate
from zoned_tools.formats.btrfs.ring import (
    Fill,
    RingPair,
    RingState,
    RingZone,
    head_position,
    ring_state,
    write_position,
)
from zoned_tools.formats.btrfs.ring_writer import RingWriter
from zoned_tools.formats.btrfs.survey import survey_device

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

GIB = 1 << 30
START = 4 * MIB
"""Start of zone 1."""


@pytest.mark.parametrize(
    ("zone_bytes", "firsts"),
    [
        (4 * MIB, [131072, 1048576]),
        (256 * MIB, [2048, 16384]),
        (GIB, [512, 4096]),
        (2 * GIB, [256, 2048]),
        (8 * GIB, [64, 512]),
    ],
)
def test_where_the_pairs_are(zone_bytes: int, firsts: list[int]) -> None:
    first, second = firsts
    assert mirrors_on(second + 2, zone_bytes) == [(0, 0), (1, first), (2, second)]
    assert mirrors_on(second + 1, zone_bytes) == [(0, 0), (1, first)]
    assert mirrors_on(first + 1, zone_bytes) == [(0, 0)]
    assert mirrors_on(1, zone_bytes) == []


def test_reserved_zones() -> None:
    """Two zones for each pair, and the zones that hold the regular places."""
    assert reserved_zones(1048578, 4 * MIB) == {0, 1, 16, 65536, 131072, 131073, 1048576, 1048577}
    assert reserved_zones(516, 8 * GIB) == {0, 1, 32, 64, 65, 512, 513}
    assert reserved_zones(32, 4 * MIB) == {0, 1, 16}


CAPACITY = 10 * SUPER_BYTES


def pair(first: tuple[Fill, int], second: tuple[Fill, int]) -> RingPair:
    zones = []
    for index, (fill, blocks) in enumerate((first, second)):
        start = index * START
        wp = None if fill is Fill.FULL else start + blocks * SUPER_BYTES
        zones.append(RingZone(index, start, CAPACITY, fill, wp))
    return zones[0], zones[1]


E, U, F = (Fill.EMPTY, 0), (Fill.IN_USE, 3), (Fill.FULL, 0)
LAST_0, LAST_1 = 9 * SUPER_BYTES, START + 9 * SUPER_BYTES


@pytest.mark.parametrize(
    ("first", "second", "generations", "state", "write", "head"),
    [
        (E, E, (0, 0), RingState.ABSENT, 0, None),
        (U, E, (0, 0), RingState.OK, 3 * SUPER_BYTES, 2 * SUPER_BYTES),
        (F, E, (0, 0), RingState.OK, START, LAST_0),
        (E, U, (0, 0), RingState.INVALID, None, None),
        (U, U, (0, 0), RingState.INVALID, None, None),
        (F, U, (0, 0), RingState.OK, START + 3 * SUPER_BYTES, START + 2 * SUPER_BYTES),
        (E, F, (0, 0), RingState.OK, 0, LAST_1),
        (U, F, (0, 0), RingState.OK, 3 * SUPER_BYTES, 2 * SUPER_BYTES),
        (F, F, (8, 7), RingState.OK, START, LAST_0),
        (F, F, (7, 8), RingState.OK, 0, LAST_1),
        (F, F, (8, 8), RingState.OK, 0, LAST_1),
        (F, F, (2**64 - 1, 8), RingState.OK, START, LAST_0),
    ],
)
def test_the_state_table(
    first: tuple[Fill, int],
    second: tuple[Fill, int],
    generations: tuple[int, int],
    state: RingState,
    write: int | None,
    head: int | None,
) -> None:
    zones = pair(first, second)
    assert ring_state(zones) is state
    position = write_position(zones, lambda index: generations[index])
    assert position == write
    assert head_position(zones, position) == head


# -- commits


@dataclass
class Model:
    """What a ring holds after commits, told independently: two lists that take turns."""

    slots: int
    zones: list[list[int]] = field(default_factory=lambda: [[], []])
    current: int = 0

    def commit(self, generation: int) -> None:
        if len(self.zones[self.current]) == self.slots:
            self.current = 1 - self.current
            self.zones[self.current] = []
        self.zones[self.current].append(generation)

    @property
    def copies(self) -> list[int]:
        return self.zones[0] + self.zones[1]

    @property
    def head_bytes(self) -> int:
        return self.current * START + (len(self.zones[self.current]) - 1) * SUPER_BYTES


def commit(device: Device, block: bytes) -> None:
    plan = Plan("commit")
    mirror = locate(device).mirror(0)
    assert mirror is not None
    lasts = [zone.last_slot_bytes for zone in mirror.pair or ()]
    generations = [generation_of(read_block(device, at)) for at in lasts]
    RingWriter(plan, 0, mirror).append(block, generations.__getitem__, "commit")
    apply_plan([device], plan.steps)


@settings(max_examples=40)  # each makes up to 30 commits
@given(
    capacity=st.integers(2 * SUPER_BYTES // 512, 6 * SUPER_BYTES // 512),
    commits=st.integers(1, 30),
    data=st.data(),
)
def test_commits_at_any_capacity(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, commits: int, data: st.DataObject
) -> None:
    """Generations grow or stay (fsync); after every commit both answers are the block just written."""
    path = tmp_path_factory.mktemp("ring") / "disk.img"
    Drive(path, capacity_bytes=capacity * 512, block_bytes=512).make()
    model = Model(capacity * 512 // SUPER_BYTES)
    generation = 5
    with open_image(str(path)) as image:
        device = Overlay(image)
        for number in range(commits):
            # equal generations across the ends of both zones are what the kernel itself gets wrong
            step = 1 if len(model.copies) % model.slots == 0 else data.draw(st.sampled_from([0, 1, 1]))
            generation += step
            commit(device, make_super(generation, log_root=number * 4096))
            model.commit(generation)
            survey = survey_device(device).mirrors[0]
            assert survey.state is RingState.OK
            assert survey.copies["generation"].tolist() == model.copies
            assert survey.copies["valid"].all()
            assert int(head_of(survey)["offset_bytes"]) == model.head_bytes
            assert survey.head_row == survey.newest
            latest = find_latest(device)
            assert latest is not None
            assert int(latest["offset_bytes"]) == model.head_bytes
            assert int(latest["log_root"]) == number * 4096


@pytest.mark.parametrize("slots", [2, 3])
def test_a_power_cut_leaves_the_old_or_the_new_block(tmp_path: Path, slots: int) -> None:
    """Cut after every single change of three laps: the kernel finds the last durable block or the one being written."""
    # one sector more than whole super blocks: every zone has to be finished
    path = Drive(tmp_path / "disk.img", capacity_bytes=slots * SUPER_BYTES + 512, block_bytes=512).make()
    with open_image(str(path)) as image:
        recorder = Recorder(Overlay(image))
        ends = []
        for generation in range(10, 10 + 6 * slots):
            commit(recorder, make_super(generation))
            ends.append(len(recorder.log))
        for cut in range(ends[0], len(recorder.log) + 1):
            done = sum(1 for end in ends if end <= cut)
            for keep in (lambda index: True, lambda index: False):
                device = Overlay(image)
                replay_cut([device], recorder.log, cut, keep)
                survey = survey_device(device).mirrors[0]
                assert survey.state is RingState.OK
                assert survey.head_is_valid
                assert int(head_of(survey)["generation"]) - (9 + done) in (0, 1)


# -- finding only the latest


class CountingDevice:
    """Passes everything on and counts the blocks that are read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.blocks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.blocks += -(-length_bytes // SUPER_BYTES)
        return self._device.read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.blocks += -(-len(buffer) // SUPER_BYTES)
        self._device.read_into(offset_bytes, buffer)


SLOTS = 4 * MIB // SUPER_BYTES


@pytest.mark.parametrize(
    ("first", "second", "newer"),
    [
        (1, 0, 0),
        (700, 0, 0),
        (SLOTS, 0, 0),
        (SLOTS, 1, 1),
        (SLOTS, 511, 1),
        (SLOTS, SLOTS, 0),
        (SLOTS, SLOTS, 1),
        (1, SLOTS, 0),
        (1023, SLOTS, 0),
        (0, SLOTS, 1),
        (256, 256, 1),
        (3, 256, 0),
    ],
)
@pytest.mark.parametrize("has_table", [True, False])
def test_the_latest_needs_few_reads(tmp_path: Path, first: int, second: int, newer: int, *, has_table: bool) -> None:
    counts = (first, second)
    generations = [range(1000, 1000 + first), range(1000, 1000 + second)]
    generations[newer] = range(5000, 5000 + counts[newer])
    path = tmp_path / "disk.img"
    contents = {zone: [make_super(g) for g in generations[zone]] for zone in (0, 1)}
    slots = max(counts) if has_table and max(counts) == 256 else SLOTS
    Drive(path, capacity_bytes=slots * SUPER_BYTES, contents=contents).make()
    if not has_table:
        Path(f"{path}.zones").unlink()
    with open_image(str(path)) as image:
        counting = CountingDevice(image)
        latest = find_latest(counting)  # type: ignore[arg-type]
        assert latest is not None
        assert int(latest["generation"]) == generations[newer][-1]
        assert int(latest["offset_bytes"]) == newer * START + (counts[newer] - 1) * SUPER_BYTES
        assert counting.blocks <= (3 if has_table else 2 * math.log2(SLOTS) + 4)


@settings(max_examples=60)
@given(first=st.integers(0, 40), second=st.integers(0, 40), newer=st.integers(0, 1), gap=st.integers(0, 2))
def test_derived_states_agree_with_the_zone_table(
    tmp_path_factory: pytest.TempPathFactory, first: int, second: int, newer: int, gap: int
) -> None:
    """Every valid state of a ring, once with its zone table and once without: the same answers."""
    counts = [first, second]
    slots = max(first, second, 2) + (gap if 0 in counts else 0)
    counts[1 - newer] = slots if counts[1 - newer] else 0  # the older zone of two is full
    if counts[1] and not counts[0]:
        counts[1] = slots
    if not any(counts):
        counts[0] = 1
    newer = newer if counts[newer] else 1 - newer
    path = tmp_path_factory.mktemp("derived") / "disk.img"
    contents = {zone: [make_super((200 if zone == newer else 100) + n) for n in range(counts[zone])] for zone in (0, 1)}
    Drive(path, capacity_bytes=slots * SUPER_BYTES, contents=contents).make()
    plain = path.with_name("plain.img")
    plain.hardlink_to(path)
    with open_image(str(path)) as declared, open_image(str(plain)) as raw:
        told, derived = survey_device(declared), survey_device(raw)
        assert derived.placement.derived
        assert derived.placement.zone_bytes == 4 * MIB
        one, other = told.mirrors[0], derived.mirrors[0]
        assert other.state is one.state is RingState.OK
        assert other.copies.tolist() == one.copies.tolist()
        assert head_of(other).tolist() == head_of(one).tolist()
        assert other.newest == one.newest == other.head_row
        if other.next_write_bytes is not None:
            assert other.next_write_bytes == one.next_write_bytes
        latest = find_latest(raw)
        assert latest is not None
        assert latest["offset_bytes"] == head_of(one)["offset_bytes"]


def test_ones_above_the_write_pointer_are_not_content(tmp_path: Path) -> None:
    """Some drives return ones there, and so do raw copies of them."""
    path = tmp_path / "disk.img"
    Drive(path, contents={0: [make_super(7), make_super(8)]}).make()
    Path(f"{path}.zones").unlink()
    poke(path, 2 * SUPER_BYTES, b"\xff" * (4 * MIB - 2 * SUPER_BYTES))
    poke(path, 4 * MIB, b"\xff" * 4 * MIB)
    with open_image(str(path)) as raw:
        survey = survey_device(raw).mirrors[0]
        assert survey.copies["generation"].tolist() == [7, 8]
        assert int(head_of(survey)["generation"]) == 8
        latest = find_latest(raw)
        assert latest is not None
        assert int(latest["generation"]) == 8
