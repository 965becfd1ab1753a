"""What is made of a damaged super block, and how sure that is."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zonefs.volumes import GOOD
from zoned_tools.formats.zonefs.judge import mount_faults
from zoned_tools.formats.zonefs.recover import recover


@given(st.integers(0, 4095), st.integers(1, 255))
def test_one_damaged_byte_is_put_right(position: int, change: int) -> None:
    """Also in the checksum itself: then the fields are as they were, but that cannot be known."""
    raw = bytearray(GOOD.pack())
    raw[position] ^= change
    recovered = recover(bytes(raw))
    assert recovered is not None
    assert recovered.block.pack() == GOOD.pack()
    assert recovered.sure == (not 4 <= position < 8)


@given(st.integers(0, 2**64), st.sampled_from((b"", b"SFOZ")))
def test_any_super_block(seed: int, start: bytes) -> None:
    """Nonsense is described, never a surprise; what recovery makes of it is mountable, and only a guess."""
    raw = start + Random(seed).randbytes(4096 - len(start))
    list(mount_faults(raw))
    recovered = recover(raw)
    assert (recovered is not None) == (start == b"SFOZ")
    if recovered is not None:
        assert not list(mount_faults(recovered.block.pack()))
        assert not recovered.sure
