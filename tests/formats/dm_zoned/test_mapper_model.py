"""The mapper against an array of blocks, under requests that hypothesis thinks up."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.formats.dm_zoned.crash_model import TARGETS, content, error_findings, logical, seeds_of
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

BASES = {name: make() for name, make in TARGETS.items()}


class MapperModel(RuleBasedStateMachine):
    """Whatever the zones do, the logical device is an array of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[Device] = []
        self.options: dict[str, str] = {}
        self.next_seed = 1

    @initialize(name=st.sampled_from(sorted(BASES)), rlow=st.sampled_from(("0", "30", "50", "100")))
    def start(self, name: str, rlow: str) -> None:
        self.devices = [Overlay(device) for device in BASES[name]]
        self.options = {"rlow": rlow}
        self.mapper = self.opened()
        self.zone_blocks = self.devices[-1].geometry.zone_bytes // 4096
        self.model = np.zeros(self.mapper.size_blocks, np.uint64)

    def opened(self) -> DmZonedMapper:
        return open_mapper(Target("dm-zoned", tuple(self.devices)), writable=True, settings=logical(**self.options))

    def place(self, data: st.DataObject) -> tuple[int, int]:
        """A range; mostly near the start of a chunk, where write pointers are."""
        chunk = data.draw(st.integers(0, len(self.model) // self.zone_blocks - 1), "chunk")
        offset = data.draw(st.integers(0, self.zone_blocks - 1), "offset")
        count = data.draw(st.integers(1, 2 * self.zone_blocks), "count")
        block = chunk * self.zone_blocks + offset
        return block, min(count, len(self.model) - block)

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        block, count = self.place(data)
        self.mapper.write(block, content(block, count, self.next_seed))
        self.model[block : block + count] = self.next_seed
        self.next_seed += 1

    @rule(data=st.data())
    def overwrite_a_chunk_from_its_start(self, data: st.DataObject) -> None:
        chunk = data.draw(st.integers(0, len(self.model) // self.zone_blocks - 1), "chunk")
        block = chunk * self.zone_blocks
        self.mapper.discard(block, self.zone_blocks)
        self.mapper.write(block, content(block, self.zone_blocks, self.next_seed))
        self.model[block : block + self.zone_blocks] = self.next_seed
        self.next_seed += 1

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        block, count = self.place(data)
        self.mapper.discard(block, count)
        self.model[block : block + count] = 0

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        block, count = self.place(data)
        expected = b"".join(content(b, 1, int(self.model[b])) for b in range(block, block + count))
        assert self.mapper.read(block, count) == expected

    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        block, count = self.place(data)
        position = block
        stored = np.zeros(count, np.bool_)
        for extent in self.mapper.lookup(block, count):
            assert extent.logical_block == position
            position += extent.blocks
            if extent.physical_block is None:
                continue
            raw = self.devices[extent.device_index].read(extent.physical_block * 4096, extent.blocks * 4096)
            assert raw == self.mapper.read(extent.logical_block, extent.blocks)
            stored[extent.logical_block - block : position - block] = True
        assert position == block + count
        assert (stored == (self.model[block : block + count] > 0)).all()
        joined = np.zeros(count, np.bool_)
        for start, length in self.mapper.data_extents(block, count):
            joined[start - block : start - block + length] = True
        assert (joined == stored).all()

    @rule()
    def flush(self) -> None:
        self.mapper.flush()

    @rule()
    def reclaim(self) -> None:
        self.mapper.reclaim()

    @rule()
    def reopen(self) -> None:
        self.mapper.close()
        assert error_findings(self.devices) == []
        self.mapper = self.opened()

    @rule()
    def read_back_on_another_open(self) -> None:
        self.mapper.flush()
        other = open_mapper(Target("dm-zoned", tuple(self.devices)), writable=False, settings=logical())
        assert (seeds_of(other) == self.model).all()

    @invariant()
    def content_is_right(self) -> None:
        if hasattr(self, "model"):
            assert (seeds_of(self.mapper) == self.model).all()

    def teardown(self) -> None:
        if hasattr(self, "mapper"):
            self.mapper.close()
            assert error_findings(self.devices) == []


MapperModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMapperModel = MapperModel.TestCase
