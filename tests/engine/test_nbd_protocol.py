"""The NBD server held to the protocol document, byte by byte."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.nbd_wire import (
    CACHE,
    DF,
    DISC,
    FAST_ZERO,
    FLUSH,
    FUA,
    INVALID,
    NO_HOLE,
    READ,
    REQ_ONE,
    SIZE,
    STATUS,
    TOO_BIG,
    TRIM,
    UNKNOWN,
    UNSUPPORTED,
    WRITE,
    ZEROES,
    Client,
    connected,
)
from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper

# -- option haggling


@pytest.mark.parametrize("no_zeroes", [True, False])
def test_export_name_enters_transmission(mapper: MemoryMapper, tmp_path: Path, *, no_zeroes: bool) -> None:
    with connected(mapper, tmp_path, 3 if no_zeroes else 1) as client:
        client.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, 0))
        size, flags = struct.unpack(">QH", client.take(10))
        assert size == SIZE
        assert flags == 0b1001_0110_1101 | 1 << 8
        if not no_zeroes:
            assert client.take(124) == bytes(124)
        client.send(WRITE, 100, 5, data=b"hello")
        assert client.simple() == 0
        client.send(READ, 98, 9)
        assert client.simple() == 0
        assert client.take(9) == b"\0\0hello\0\0"
        client.send(DISC)
        assert client.closed()
    assert mapper.closed


def test_an_unknown_export_name_ends_the_connection(mapper: MemoryMapper, tmp_path: Path) -> None:
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s")
        client.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, 3) + b"abc")
        assert client.closed()
    assert len(complaints) == 1


def test_options_that_are_not_supported_are_refused_and_haggling_goes_on(mapper: MemoryMapper, tmp_path: Path) -> None:
    with connected(mapper, tmp_path) as client:
        for option in (4, 5, 8 + 3, 99, 0xFFFFFFFF):  # 5 STARTTLS, 11 EXTENDED_HEADERS
            assert client.option(option, b"x" * 10)[0][0] == UNSUPPORTED
        assert client.option(99, b"x" * 100_000)[0][0] == TOO_BIG
        assert client.option(3, b"x")[0][0] == INVALID
        assert client.option(8, b"x")[0][0] == INVALID
        assert client.option(3) == [(2, bytes(4)), (1, b"")]
        client.go()
        client.send(FLUSH)
        assert client.simple() == 0
    assert mapper.flushes >= 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", INVALID),
        (b"\0\0\0\1", INVALID),
        (b"\0\0\0\0\0\1", INVALID),
        (b"\xff\xff\xff\xff\0\0", INVALID),
        (b"\0\0\0\0\0\0\0", INVALID),
        (b"\0\0\0\1x\0\0", UNKNOWN),
        (b"\0\0\0\1\xff\0\0", UNKNOWN),
    ],
)
def test_malformed_info_and_go_are_refused(mapper: MemoryMapper, tmp_path: Path, data: bytes, expected: int) -> None:
    with connected(mapper, tmp_path) as client:
        assert client.option(6, data)[0][0] == expected
        assert client.option(7, data)[0][0] == expected
        client.go()


def test_info_tells_what_was_asked_for(mapper: MemoryMapper, tmp_path: Path) -> None:
    with served(mapper, tmp_path / "s", name="vol", description="text"):
        client = Client(tmp_path / "s")
        replies = client.option(6, struct.pack(">I3sHHH", 3, b"vol", 2, 1, 2))
        info = {struct.unpack_from(">H", data)[0]: data[2:] for kind, data in replies if kind == 3}
        assert struct.unpack(">QH", info[0])[0] == SIZE
        assert info[1] == b"vol"
        assert info[2] == b"text"
        assert struct.unpack(">III", info[3]) == (512, 4096, 32 << 20)
        assert client.option(2) == [(1, b"")]
        assert client.closed()


def test_metadata_contexts_need_structured_replies_and_hold_for_one_name(mapper: MemoryMapper, tmp_path: Path) -> None:
    query = struct.pack(">III", 0, 1, 15) + b"base:allocation"
    with served(mapper, tmp_path / "s", name="vol"):
        client = Client(tmp_path / "s")
        assert client.option(10, query)[0][0] == INVALID
        assert client.option(8)[0][0] == 1
        for malformed in (b"", query[:-1], query + b"x", struct.pack(">II", 0, 0xFFFFFFFF)):
            assert client.option(10, malformed)[0][0] == INVALID
        for query_text, found in ((b"", 1), (b"base:", 1), (b"qemu:x", 0), (b"base:other", 0)):
            count = struct.pack(">II", 0, 0) if not query_text else struct.pack(">III", 0, 1, len(query_text))
            assert len(client.option(9, count + query_text)) == 1 + found
        assert client.option(10, struct.pack(">II", 0, 0)) == [(1, b"")]
        assert len(client.option(10, query)) == 2
        client.go(context=False, name=b"vol")  # negotiated for the default name, not for this one
        client.send(STATUS, 0, BLOCK)
        assert client.error() == errno.EINVAL


@pytest.mark.parametrize("flags", [4, 0x80000000])
def test_unknown_client_flags_end_the_connection(mapper: MemoryMapper, tmp_path: Path, flags: int) -> None:
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        assert Client(tmp_path / "s", flags).closed()
    assert "flags" in complaints[0]


# -- requests


def test_structured_read_sends_long_holes_as_holes(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.blocks[1] = b"a" * BLOCK
    mapper.blocks[3] = b"b" * BLOCK
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(READ, 100, SIZE - 200)
        chunks = client.chunks()
        assert [kind for kind, _ in chunks] == [1, 2, 0]
        data, hole = chunks[0][1], chunks[1][1]
        assert struct.unpack(">QI", hole) == (4 * BLOCK, SIZE - 100 - 4 * BLOCK)
        assert struct.unpack_from(">Q", data) == (100,)
        assert data[8:] == mapper.content()[100 : 4 * BLOCK]
        client.send(READ, 8 * BLOCK, 10)
        assert client.chunks() == [(2, struct.pack(">QI", 8 * BLOCK, 10)), (0, b"")]
        client.send(READ, 0, SIZE, DF)
        ((kind, data), (last, _)) = client.chunks()
        assert (kind, last) == (1, 0)
        assert data[8:] == mapper.content()
        client.send(READ, 0, 0)
        assert client.chunks() == [(0, b"")]


def test_block_status(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.blocks[1] = mapper.blocks[2] = b"a" * BLOCK
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(STATUS, 512, SIZE - 512)
        ((kind, payload),) = client.chunks()
        assert kind == 5
        assert struct.unpack(">7I", payload) == (1, BLOCK - 512, 3, 2 * BLOCK, 0, SIZE - 3 * BLOCK, 3)
        client.send(STATUS, BLOCK + 7, 10, REQ_ONE)
        assert struct.unpack(">3I", client.chunks()[0][1]) == (1, 10, 0)
        client.send(STATUS, 0, SIZE, REQ_ONE)
        assert struct.unpack(">3I", client.chunks()[0][1]) == (1, BLOCK, 3)
        client.send(STATUS, 0, 0)
        assert client.error() == errno.EINVAL


def test_block_status_of_a_fragmented_device_comes_in_parts(tmp_path: Path) -> None:
    mapper = MemoryMapper(20_000)
    mapper.blocks.update(dict.fromkeys(range(0, 20_000, 2), b"a" * BLOCK))
    with connected(mapper, tmp_path) as client:
        client.go()
        at = 0
        while at < 20_000:
            client.send(STATUS, at * BLOCK, (20_000 - at) * BLOCK)
            payload = client.chunks()[0][1]
            descriptors = list(struct.iter_unpack(">II", payload[4:]))
            assert descriptors == [(BLOCK, (at + n) % 2 * 3) for n in range(len(descriptors))]
            at += len(descriptors)


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "expected"),
    [
        (READ, SIZE - 1, 2, 0, errno.EINVAL),
        (READ, 1 << 63, 1, 0, errno.EINVAL),
        (WRITE, SIZE, 512, 0, errno.ENOSPC),
        (ZEROES, SIZE - 4096, 4097, 0, errno.ENOSPC),
        (TRIM, SIZE, 1, 0, errno.EINVAL),
        (STATUS, SIZE - 512, 1024, 0, errno.EINVAL),
        (CACHE, 0, 512, 0, errno.EINVAL),
        (8, 0, 512, 0, errno.EINVAL),
        (0xFFFF, 0, 512, 0, errno.EINVAL),
        (READ, 0, 512, NO_HOLE, errno.EINVAL),
        (TRIM, 0, 512, NO_HOLE, errno.EINVAL),
        (WRITE, 0, 512, DF, errno.EINVAL),
        (READ, 0, 512, 1 << 15, errno.EINVAL),
        (ZEROES, 0, 512, NO_HOLE | FAST_ZERO, errno.ENOTSUP),
    ],
)
def test_bad_requests_fail_with_the_protocols_error(
    mapper: MemoryMapper, tmp_path: Path, command: int, offset: int, length: int, flags: int, expected: int
) -> None:
    payload = b"x" * length if command == WRITE else b""
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(command, offset, length, flags, payload)
        assert client.error() == expected
        client.send(FLUSH)
        assert client.simple() == 0
    assert not mapper.blocks


def test_bad_requests_fail_with_simple_replies_too(mapper: MemoryMapper, tmp_path: Path) -> None:
    with connected(mapper, tmp_path) as client:
        client.go(structured=False)
        client.send(READ, SIZE, 1)
        assert client.simple() == errno.EINVAL
        client.send(READ, 0, 512, DF)
        assert client.simple() == errno.EINVAL
        client.send(READ, 0, 4)
        assert client.simple() == 0
        assert client.take(4) == bytes(4)


def test_reads_have_a_longest_length(tmp_path: Path) -> None:
    with connected(MemoryMapper(16384), tmp_path) as client:
        client.go()
        client.send(READ, 0, (32 << 20) + 1)
        assert client.error() == errno.EOVERFLOW


def test_a_read_only_export_refuses_changes(tmp_path: Path) -> None:
    mapper = MemoryMapper(64, writable=False)
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(WRITE, 0, 512, data=bytes(512))
        assert client.error() == errno.EPERM
        for command in (TRIM, ZEROES):
            client.send(command, 0, 4096)
            assert client.error() == errno.EPERM
        client.send(FLUSH)
        assert client.simple() == 0


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (errno.EIO, errno.EIO),
        (errno.ENOSPC, errno.ENOSPC),
        (errno.EROFS, errno.EPERM),
        (errno.EFBIG, errno.ENOSPC),
        (errno.ENODEV, errno.EIO),
        (0, None),
    ],
)
def test_mapper_errors_reach_the_client(
    mapper: MemoryMapper, tmp_path: Path, failure: int, expected: int | None
) -> None:
    mapper.write_errno = failure
    mapper.broken = {5}
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(READ, 4 * BLOCK, 4 * BLOCK)
        assert client.error() == errno.EIO
        client.send(WRITE, 0, BLOCK, data=bytes(BLOCK))
        if expected is None:
            assert client.simple() == 0
        else:
            assert client.error() == expected


def test_fua_flushes_before_the_reply(mapper: MemoryMapper, tmp_path: Path) -> None:
    with connected(mapper, tmp_path) as client:
        client.go()
        for number, command in enumerate((WRITE, ZEROES, TRIM), start=1):
            client.send(command, 0, BLOCK, FUA, b"x" * BLOCK if command == WRITE else b"")
            assert client.simple() == 0
            assert mapper.flushes == number
        client.send(READ, 0, BLOCK, FUA)
        client.chunks()


def test_write_zeroes_allocates_only_when_asked(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.blocks = dict.fromkeys(range(8), b"a" * BLOCK)
    with connected(mapper, tmp_path) as client:
        client.go()
        client.send(ZEROES, 512, 3 * BLOCK, FAST_ZERO)
        assert client.simple() == 0
        assert set(mapper.blocks) == {0, 3, 4, 5, 6, 7}
        assert mapper.blocks[0] == b"a" * 512 + bytes(BLOCK - 512)
        assert mapper.blocks[3] == bytes(512) + b"a" * (BLOCK - 512)
        client.send(ZEROES, 4 * BLOCK, 2 * BLOCK, NO_HOLE)
        assert client.simple() == 0
        assert mapper.blocks[4] == mapper.blocks[5] == bytes(BLOCK)
        client.send(TRIM, 6 * BLOCK + 1, 2 * BLOCK - 1)
        assert client.simple() == 0
        assert set(mapper.blocks) == {0, 3, 4, 5, 6}


@settings(max_examples=30)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from([WRITE, ZEROES]), st.integers(0, SIZE), st.integers(0, 3 * BLOCK), st.binary(max_size=1)
        ),
        max_size=12,
    )
)
def test_unaligned_changes_equal_a_flat_buffer(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int, bytes]]
) -> None:
    mapper, model = MemoryMapper(64), bytearray(SIZE)
    with connected(mapper, tmp_path_factory.mktemp("nbd")) as client:
        client.go()
        for command, offset, wanted, fill in changes:
            length = min(wanted, SIZE - offset)
            data = (fill or b"z") * length if command == WRITE else b""
            client.send(command, offset, length, 0, data)
            assert client.simple() == 0
            model[offset : offset + length] = data or bytes(length)
    assert mapper.content() == bytes(model)
