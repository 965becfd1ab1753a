"""Reading many super blocks at once: the same verdicts as one at a time, damage of every kind found."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.btrfs.images import MIB, SUPER_BYTES, Drive, make_super, poke, template
from zoned_tools.device.image import open_image
from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.copies import Scanner, decode_one
from zoned_tools.formats.btrfs.crc_runs import SoundRuns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOTS = 4352
"""More than one batch of the scanner, and not a whole number of its chunks' batches."""


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "disk.img"
    blocks = [make_super(100 + n, log_root=4096 * (n % 7)) for n in range(SLOTS)]
    return Drive(path, zone_bytes=32 * MIB, capacity_bytes=SLOTS * SUPER_BYTES, contents={0: blocks}).make()


METADATA = uuid.UUID(int=9)
SPOTS: dict[str, Callable[[bytes], bytes]] = {
    "csum": lambda block: bytes([block[0] ^ 1]) + block[1:],
    "unused part of the checksum": lambda block: block[:9] + b"x" + block[10:],
    "body": lambda block: block[:3000] + b"x" + block[3001:],
    "magic": lambda block: block[:64] + b"nonsense" + block[72:],
    "zero": lambda block: bytes(SUPER_BYTES),
    "other mirror": lambda block: make_super(5, mirror=1, base=block),
    "xxhash": lambda block: template("xxhash"),
    "blake2": lambda block: template("blake2"),
    "unknown type": lambda block: make_super(5)[:0xC4] + b"\x63" + make_super(5)[0xC5:],
    "metadata uuid": lambda block: make_super(
        5, metadata_uuid=METADATA, dev_item__fsid=METADATA, incompat_flags=0x1741
    ),
    "wrong metadata uuid": lambda block: make_super(5, metadata_uuid=METADATA, incompat_flags=0x1741),
}


@settings(max_examples=30)
@given(data=st.data())
def test_scanning_is_decoding_one_by_one(
    ring: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damage = data.draw(st.dictionaries(st.integers(0, SLOTS - 1), st.sampled_from(sorted(SPOTS)), max_size=6))
    saved = {}
    with open_image(str(ring)) as drive:
        for slot, kind in damage.items():
            saved[slot] = drive.read(slot * SUPER_BYTES, SUPER_BYTES)
            poke(ring, slot * SUPER_BYTES, SPOTS[kind](saved[slot]))
        try:
            scanned = Scanner(drive, 65536).scan(0, SLOTS)
            for slot in {0, 255, 256, 4095, 4096, SLOTS - 1, *damage}:
                single = decode_one(drive.read(slot * SUPER_BYTES, SUPER_BYTES), slot * SUPER_BYTES, 65536)
                assert scanned[slot].tolist() == single[0].tolist(), (slot, damage.get(slot))
            whole = {"other mirror", "magic", "zero", "csum", "body", "unknown type", "wrong metadata uuid"}
            invalid = {slot for slot, kind in damage.items() if kind in whole}
            assert set(np.flatnonzero(~scanned["valid"]).tolist()) == invalid
        finally:
            for slot, block in saved.items():
                poke(ring, slot * SUPER_BYTES, block)


@pytest.mark.parametrize("blocks", [2, 8, 64])
def test_one_checksum_tells_a_run_of_sound_blocks(blocks: int) -> None:
    """Any single damaged bit anywhere in the run shows, also in a checksum field."""
    import crc32c

    run = bytearray(b"".join(make_super(n) for n in range(blocks)))
    tables = SoundRuns(blocks)

    def sound() -> bool:
        fields = np.frombuffer(bytes(run), np.uint64).reshape(1, blocks, -1)[:, :, :4]
        return bool(tables.sound(fields, np.array([crc32c.crc32c(run)], np.uint32))[0])

    assert sound()
    choose = np.random.default_rng(blocks)
    for at in [*range(36), *choose.integers(0, len(run), 200).tolist()]:
        run[at] ^= 1 << int(choose.integers(8))
        damaged = bytes(run)
        assert not sound(), at
        run[at] ^= damaged[at] ^ bytes(make_super(at // SUPER_BYTES))[at % SUPER_BYTES]
        assert sound()


def test_unreadable_blocks_are_marked(ring: Path) -> None:
    """A drive that fails one request: the other blocks of it are read singly."""
    with open_image(str(ring)) as drive:

        class Failing:
            geometry, data_extents = drive.geometry, drive.data_extents

            def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
                if offset_bytes <= 300 * SUPER_BYTES < offset_bytes + len(buffer):
                    raise DeviceError("medium error")
                drive.read_into(offset_bytes, buffer)

        scanned = Scanner(Failing(), 65536).scan(0, SLOTS)  # type: ignore[arg-type]
        assert np.flatnonzero(scanned["unreadable"]).tolist() == [300]
        assert np.flatnonzero(~scanned["valid"]).tolist() == [300]
