"""The NBD server held to the protocol document, byte by byte, and against broken clients."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import served
from volumes import BLOCK, MemoryMapper

from zoned_tools.engine import nbd
from zoned_tools.engine.nbd_sockets import parse_tcp_address, tcp_listener, unix_listener
from zoned_tools.errors import BusyError, DeviceError, UsageError

SIZE = 64 * BLOCK
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
UNSUPPORTED, INVALID, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 3, 6, 9))


class Client:
    """Speaks the wire format and keeps no rules of its own."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, path: Path, flags: int = 3) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.opened.append(self)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        assert self.take(8) == b"NBDMAGIC"
        assert self.take(8) == b"IHAVEOPT"
        assert self.take(2) == b"\0\3"
        self.socket.sendall(struct.pack(">I", flags))

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Replies up to the final one."""
        self.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3E889045565A9
            assert option == number
            replies.append((kind, self.take(length)))
            if kind == 1 or kind & 0x80000000:
                return replies

    def go(self, *, structured: bool = True, context: bool = True, name: bytes = b"") -> Client:
        named = struct.pack(">I", len(name)) + name
        if structured:
            assert self.option(8)[0][0] == 1
            if context:
                query = struct.pack(">II", 1, 15) + b"base:allocation"
                assert [kind for kind, _ in self.option(10, named + query)] == [4, 1]
        assert self.option(7, named + b"\0\0")[-1][0] == 1
        return self

    def send(self, command: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b"") -> None:
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, 77, offset, length) + data)

    def simple(self) -> int:
        """Error number of a simple reply."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        assert cookie == 77
        return error

    def chunks(self) -> list[tuple[int, bytes]]:
        """``(type, payload)`` of a structured reply."""
        result = []
        while True:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.take(20))
            assert magic == 0x668E33EF
            assert cookie == 77
            result.append((kind, self.take(length)))
            if flags & 1:
                return result

    def error(self) -> int:
        """Error number of a reply that must be one structured error."""
        ((kind, payload),) = self.chunks()
        assert kind == 0x8001
        number, length = struct.unpack_from(">IH", payload)
        assert len(payload) == 6 + length > 6
        return number

    def closed(self) -> bool:
        """True when the server has closed the connection and sent nothing more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


@pytest.fixture
def mapper() -> MemoryMapper:
    return MemoryMapper(64)


@contextmanager
def connected(mapper: MemoryMapper, tmp_path: Path, flags: int = 3) -> Iterator[Client]:
    with served(mapper, tmp_path / "s"):
        client = Client(tmp_path / "s", flags)
        try:
            yield client
        finally:
            client.close()


# -- option haggling


@pytest.mark.parametrize("no_zeroes", [True, False])
def test_export_name_enters_transmission(mapper: MemoryMapper, tmp_path: Path, no_zeroes: bool) -> None:
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


# -- broken clients, shutdown


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, (32 << 20) + 1),
        struct.pack(">IHHQQI", 0xDEADBEEF, 0, READ, 1, 0, 512),
        bytes(4096),
    ],
)
def test_a_broken_client_loses_only_its_own_connection(mapper: MemoryMapper, tmp_path: Path, garbage: bytes) -> None:
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        good = Client(tmp_path / "s").go()
        bad = Client(tmp_path / "s").go()
        bad.socket.sendall(garbage)
        assert bad.closed()
        half = Client(tmp_path / "s").go()
        half.send(WRITE, 0, BLOCK, data=b"x" * 100)
        half.close()
        good.send(READ, 0, BLOCK)
        assert good.chunks()[-1] == (0, b"")
    assert len(complaints) == 1
    assert not mapper.blocks, "half a write was carried out"


@settings(max_examples=60)
@given(st.integers(0, 2), st.binary(max_size=200))
def test_random_bytes_do_not_harm_the_server(
    tmp_path_factory: pytest.TempPathFactory, stage: int, garbage: bytes
) -> None:
    mapper = MemoryMapper(64, writable=False)
    path = tmp_path_factory.mktemp("nbd") / "s"
    complaints: list[str] = []
    with served(mapper, path, complaints=complaints):
        client = Client(path)
        if stage:
            client.go()
        prefix = [struct.pack(">8sI", b"IHAVEOPT", len(garbage) % 14), struct.pack(">I", 0x25609513), b""][stage]
        client.socket.sendall(prefix + garbage)
        client.close()
        good = Client(path).go()
        good.send(READ, 0, BLOCK)
        assert good.chunks()[-1] == (0, b"")
    assert not any("internal" in line for line in complaints)


def test_a_bug_in_the_mapper_ends_one_connection(mapper: MemoryMapper, tmp_path: Path) -> None:
    def broken(block: int, count: int) -> bytes:
        raise ZeroDivisionError("a bug")

    mapper.read = broken  # type: ignore[method-assign]  # the fault to be injected
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s").go(structured=False)
        client.send(READ, 0, BLOCK)
        assert client.closed()
        other = Client(tmp_path / "s").go()
        other.send(FLUSH)
        assert other.simple() == 0
    assert complaints == ["connection closed: internal error: ZeroDivisionError('a bug')"]


def test_too_many_connections_are_turned_away(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "MAX_CONNECTIONS", 2)
    with served(mapper, tmp_path / "s"):
        clients = [Client(tmp_path / "s").go() for _ in range(2)]
        with pytest.raises((EOFError, ConnectionError)):
            Client(tmp_path / "s")
        clients[0].close()
        deadline = time.monotonic() + 5
        while True:
            try:
                Client(tmp_path / "s").go()
                break
            except (EOFError, ConnectionError):
                assert time.monotonic() < deadline


def test_a_client_that_does_not_haggle_is_disconnected(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "HANDSHAKE_SECONDS", 0.1)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        assert Client(tmp_path / "s").closed()
    assert complaints == ["connection closed: no export was chosen in time"]


def test_stopping_does_not_wait_for_idle_or_stuck_clients(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "GOODBYE_SECONDS", 0.5)
    mapper.blocks = dict.fromkeys(range(64), b"a" * BLOCK)
    began = time.monotonic()
    with served(mapper, tmp_path / "s"):
        Client(tmp_path / "s").go()
        stuck = Client(tmp_path / "s").go()
        for _ in range(200):  # asks for 50 MiB and reads nothing
            stuck.send(READ, 0, SIZE)
        time.sleep(0.2)
    assert time.monotonic() - began < 8
    assert mapper.closed
    assert mapper.flushes >= 1


def test_changes_are_made_durable_when_clients_are_quiet(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "IDLE_SECONDS", 0.2)
    calls: list[float] = []
    with served(mapper, tmp_path / "s", when_idle=lambda: calls.append(time.monotonic())):
        client = Client(tmp_path / "s").go()
        client.send(READ, 0, BLOCK)
        client.chunks()
        time.sleep(0.5)
        assert calls == [], "nothing was changed"
        for _ in range(8):
            client.send(WRITE, 0, BLOCK, data=bytes(BLOCK))
            assert client.simple() == 0
            last = time.monotonic()
            time.sleep(0.05)
        deadline = last + 10
        while not calls:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        assert len(calls) == 1
        assert calls[0] - last > 0.15


def test_a_failure_while_idle_does_not_end_the_server(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        raise DeviceError("the drive is gone", device="disk.img")

    monkeypatch.setattr(nbd, "IDLE_SECONDS", 0.05)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints, when_idle=failing):
        client = Client(tmp_path / "s").go()
        for _ in range(2):
            client.send(TRIM, 0, BLOCK)
            assert client.simple() == 0
            time.sleep(0.4)
    assert complaints == ["disk.img: the drive is gone"] * 2


def test_the_server_ends_with_its_last_client_when_asked(mapper: MemoryMapper, tmp_path: Path) -> None:
    with served(mapper, tmp_path / "s", stop_when_unused=True):
        client = Client(tmp_path / "s").go()
        client.send(DISC)
        assert client.closed()
        deadline = time.monotonic() + 5
        while not mapper.closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# -- sockets


def test_a_unix_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with unix_listener(str(path)) as (_, uri):
        assert uri == f"nbd+unix:///?socket={path}"
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(BusyError, match="another server"), unix_listener(str(path)):
            pass
    assert not path.exists()


def test_a_dead_servers_socket_is_replaced_but_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with unix_listener(str(path)):
        assert path.is_socket()
    path.write_text("precious")
    with pytest.raises(DeviceError, match="no socket"), unix_listener(str(path)):
        pass
    assert path.read_text() == "precious"


def test_a_unix_socket_needs_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with unix_listener(None) as (_, uri):
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert str(directory) in uri
    assert list(tmp_path.iterdir()) == []


def test_hopeless_socket_paths_are_errors(tmp_path: Path) -> None:
    for path in (str(tmp_path / ("x" * 200)), str(tmp_path / "missing" / "s")):
        with pytest.raises((UsageError, DeviceError)), unix_listener(path):
            pass


def test_tcp_is_for_the_loopback_interface_only() -> None:
    assert parse_tcp_address("10809") == ("127.0.0.1", 10809)
    assert parse_tcp_address("localhost:1") == ("127.0.0.1", 1)
    assert parse_tcp_address("[::1]:5") == ("::1", 5)
    for bad in ("0.0.0.0:1", "example.com:1", "::1", "", "x", "1:70000", "127.0.0.1:", "127.0.0.1:٣", "-1"):
        with pytest.raises(UsageError):
            parse_tcp_address(bad)
    with tcp_listener("0") as (listener, uri):
        assert uri == f"nbd://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(DeviceError, match="cannot listen"), tcp_listener(str(listener.getsockname()[1])):
            pass


_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from volumes import MemoryMapper
from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd_sockets import tcp_listener
mapper = MemoryMapper(64)
with tcp_listener("0") as (listener, uri):
    serve(Server(mapper), listener, lambda: print(uri, flush=True))
print(mapper.flushes, mapper.closed, len(mapper.blocks))
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_signals_flush_and_close(number: str) -> None:
    import signal

    here = os.path.dirname(__file__)
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, here], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        data = random.Random(3).randbytes(8192)
        subprocess.run(["nbdcopy", "-", uri], input=data + bytes(SIZE - 8192), check=True, timeout=30)
        server.send_signal(getattr(signal, number))
        assert server.stdout.read().split() == ["1", "True", "64"]
        assert server.wait(10) == 0
