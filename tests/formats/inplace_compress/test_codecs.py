"""LZO, 842 and LZ4: the kernel's own streams, hostile streams, agreement of independent decoders."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.inplace_compress.images import CODECS, codec_input, content
from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress import c842, lz4, lzo, lzo1x
from zoned_tools.formats.inplace_compress.c842 import sequential, templates
from zoned_tools.formats.inplace_compress.compressors import Compressor, compressor_by_name, decode_many, encode_many
from zoned_tools.formats.inplace_compress.rejection import Rejected


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=f"{name}-{number}") for number, case in enumerate(CODECS[name])]


def matches(stream: bytes, case: dict[str, Any], prefix: str = "stream") -> bool:
    if f"{prefix}_hex" in case:
        return bool(stream.hex() == case[f"{prefix}_hex"])
    digest = hashlib.sha256(stream).hexdigest()
    return bool(len(stream) == case.get(f"{prefix}_bytes", len(stream)) and digest == case[f"{prefix}_sha256"])


def decoder_answer(decode: Any, stream: bytes, capacity: int) -> bytes | None:
    try:
        return bytes(decode(stream, capacity))
    except Rejected:
        return None


def lzo_answer(stream: bytes, capacity: int) -> bytes | None:
    outcome = lzo.decode_many([stream], [capacity])[0]
    return None if isinstance(outcome, Rejected) else outcome


@pytest.mark.parametrize("case", cases("842"))
def test_842_stream_is_the_kernels(case: dict[str, Any]) -> None:
    plain = codec_input(case)
    stream = c842.encode(plain)
    assert matches(stream, case)
    assert c842.decode(stream, len(plain)) == plain
    assert sequential.decode(stream, len(plain)) == plain


def test_842_batches_give_the_same_streams() -> None:
    inputs = [codec_input(case) for case in CODECS["842"]]
    streams = c842.encode_many(inputs)
    assert streams == [c842.encode(data) for data in inputs]
    assert c842.decode_many(streams, [len(data) for data in inputs]) == inputs


@pytest.mark.parametrize("case", [*cases("842_accept"), *cases("842_templates"), *cases("nx_framed_constructed")])
def test_842_accepts(case: dict[str, Any]) -> None:
    output = c842.decode(bytes.fromhex(case["stream_hex"]), case.get("capacity", 1 << 17))
    assert matches(output, case, "output")


@pytest.mark.parametrize("case", cases("842_reject"))
def test_842_rejects(case: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        c842.decode(bytes.fromhex(case["stream_hex"]), case["capacity"])


def test_842_rejected_streams_do_not_harm_their_neighbours() -> None:
    good = c842.encode(content("text:1", 8192))
    bad = [bytes.fromhex(case["stream_hex"]) for case in CODECS["842_reject"]]
    mixed = [item for stream in bad for item in (good, stream)] + [good]
    outcomes = c842.decode_many(mixed, [8192] * len(mixed))
    assert all(outcome == content("text:1", 8192) for outcome in outcomes[::2])


def test_crc_of_842() -> None:
    assert templates.crc32_msb(b"123456789") == 0x89A1897F
    assert templates.crc32_msb(b"") == 0


@given(
    st.lists(
        st.sampled_from([b"\0" * 8, b"abcdefgh", b"efghabcd", b"12345678", b"\xff" * 4 + b"\0" * 4]), max_size=400
    ),
    st.binary(max_size=40),
)
def test_842_round_trip(groups: list[bytes], rest: bytes) -> None:
    plain = b"".join(groups) + rest
    stream = c842.encode(plain)
    assert len(stream) % 8 == 0
    assert c842.decode(stream, len(plain)) == plain
    assert sequential.decode(stream, len(plain)) == plain
    if plain:
        assert decoder_answer(c842.decode, stream, len(plain) - 1) is None


def mutated(base: bytes, seed: int) -> bytes:
    chooser = random.Random(seed)
    stream = bytearray(base)
    for _ in range(chooser.choice([1, 1, 2, 5])):
        stream[chooser.randrange(len(stream))] ^= 1 << chooser.randrange(8)
    return bytes(stream[: chooser.randrange(len(stream) + 1)]) if chooser.random() < 0.2 else bytes(stream)


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from([24, 64, 600, 4096]), st.sampled_from([0, 100, 4096, 8192]))
def test_842_decoders_agree_on_damaged_streams(seed: int, length: int, capacity: int) -> None:
    stream = mutated(c842.encode(content("text:3", length)), seed)
    if stream[:2] != b"\xf8\x42":
        assert decoder_answer(c842.decode, stream, capacity) == decoder_answer(sequential.decode, stream, capacity)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([0, 64, 4096]), st.booleans())
def test_842_decoders_agree_on_noise(stream: bytes, capacity: int, framed: bool) -> None:
    if framed:
        decoder_answer(c842.decode, b"\xf8\x42" + stream, capacity)  # must only not fail otherwise
    elif stream[:2] != b"\xf8\x42":
        assert decoder_answer(c842.decode, stream, capacity) == decoder_answer(sequential.decode, stream, capacity)


def test_842_output_is_bounded_before_it_is_made() -> None:
    """A few hundred bytes of repeats stand for megabytes."""
    bits = "00000" + "0" * 64 + "11011111111" * 100_000
    stream = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    assert decoder_answer(c842.decode, stream, 8192) is None


@pytest.mark.parametrize("case", cases("lzo"))
def test_lzo_stream_is_the_kernels(case: dict[str, Any]) -> None:
    plain = codec_input(case)
    stream = lzo1x.encode(plain)
    assert matches(stream, case)
    assert lzo1x.decode(stream, len(plain)) == plain
    assert lzo_answer(stream, len(plain)) == plain
    assert lzo_answer(lzo.encode_many([plain], exact=False)[0], len(plain)) == plain


@pytest.mark.parametrize("case", cases("lzo_accept"))
def test_lzo_accepts(case: dict[str, Any]) -> None:
    stream = bytes.fromhex(case["stream_hex"])
    output = lzo_answer(stream, case["capacity"])
    assert output is not None
    assert matches(output, case, "output")
    assert lzo1x.decode(stream, case["capacity"]) == output


@pytest.mark.parametrize("case", cases("lzo_reject"))
def test_lzo_rejects(case: dict[str, Any]) -> None:
    stream = bytes.fromhex(case["stream_hex"])
    assert lzo_answer(stream, case["capacity"]) is None
    assert decoder_answer(lzo1x.decode, stream, case["capacity"]) is None


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.sampled_from([8, 64, 600, 4096]), st.sampled_from([8, 100, 4096]))
def test_lzo_decoders_agree_on_damaged_streams(seed: int, length: int, capacity: int) -> None:
    stream = mutated(lzo1x.encode(content("rand:7", length // 2) + content("text:3", length - length // 2)), seed)
    if stream[:1] != b"\x11":
        assert lzo_answer(stream, capacity) == decoder_answer(lzo1x.decode, stream, capacity)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=40))
def test_lzo_round_trip(seed: bytes, cuts: list[int]) -> None:
    plain = seed + b"".join(seed[:cut] * 3 for cut in cuts)
    assert lzo1x.decode(lzo1x.encode(plain), len(plain)) == plain
    assert lzo_answer(lzo1x.encode(plain), len(plain)) == plain


def test_lzo_far_matches_and_long_runs() -> None:
    plain = content("rand:1", 20480) + bytes(5000) + content("rand:1", 20480) + bytes(60000)
    stream = lzo1x.encode(plain)
    assert len(stream) < 22000
    assert lzo1x.decode(stream, len(plain)) == plain
    assert lzo_answer(stream, len(plain)) == plain


def test_versioned_lzo_streams() -> None:
    """Only a stream of version 1 has runs of zeroes; the run's length is ((X << 3) | L) + 4."""
    run = bytes([0x18 | 3, 0xFC, 0xFF, 2])
    literals = b"\x00\x01abcd"  # never reached: shows that what follows is an instruction again
    assert lzo_answer(b"\x11\x01" + b"\x15abcd" + run + b"\x11\0\0", 100) == b"abcd" + bytes(23)
    assert lzo_answer(b"\x11\x00" + b"\x15abcd" + run + b"\x11\0\0", 100) is None
    assert lzo_answer(b"\x11\x01" + b"\x15abcd" + run + literals, 100) is None
    assert lzo_answer(b"\x11\x01" + b"\x15abcd" + run + b"\x11\0\0", 26) is None


def test_lzo_output_is_bounded() -> None:
    """A stream of more than a MiB goes to the decoder that stops at the capacity."""
    hostile = b"\x12a" + b"\x20" + bytes(2 << 20) + b"\x01\0\0" + b"\x11\0\0"
    assert lzo_answer(hostile, 4096) is None


def test_lz4_blocks() -> None:
    assert lz4.decode(b"\x50hello", 10) == b"hello"
    assert lz4.decode(b"\x1fa\x01\x00\x05\x10b", 100) == b"a" * 25 + b"b"
    for bad in (
        b"",
        b"\x50hell",
        b"\x1fa\x00\x00\x05\x10b",
        b"\x1fa\x02\x00\x05\x10b",
        b"\x1fa\x01\x00\xff",
        b"\xf0\xff",
    ):
        assert decoder_answer(lz4.decode, bad, 100) is None
    assert decoder_answer(lz4.decode, b"\x1fa\x01\x00\x05\x10b", 25) is None
    with pytest.raises(UsageError):
        encode_many(Compressor.LZ4, [b""], exact=False)


@given(st.binary(max_size=100))
def test_lz4_noise(stream: bytes) -> None:
    outcome = decode_many(Compressor.LZ4, [stream], [4096])[0]
    assert isinstance(outcome, Rejected) or len(outcome) <= 4096


def test_names_of_compressors() -> None:
    assert compressor_by_name("842-generic") is Compressor.C842
    assert compressor_by_name("lzo-rle") is Compressor.LZO
    with pytest.raises(UsageError):
        compressor_by_name("zstd")
