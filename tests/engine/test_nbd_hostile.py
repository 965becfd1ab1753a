"""The NBD server among clients that want to keep others from it: silent, slow and greedy ones."""

from __future__ import annotations

import errno
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.nbd_wire import DF, FLUSH, READ, WRITE, Client, connected
from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine.nbd import requests, server
from zoned_tools.engine.nbd.stream import PIECE_BYTES

MIB = 1 << 20
BOUND_BYTES = 80 * MIB
"""64 MiB of replies, and what is received."""


def speaks(client: Client) -> bool:
    client.send(FLUSH)
    return client.simple() == 0


def hung_up(client: Client) -> bool:
    """Whether the server has gone, asked with an option."""
    try:
        client.option(3)
    except (EOFError, ConnectionError):
        return True
    return False


# -- silent clients


@pytest.mark.parametrize("haggled", [False, True])
def test_as_many_silent_clients_as_there_are_places_do_not_lock_others_out(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, haggled: bool
) -> None:
    monkeypatch.setattr(server, "SPARED_SECONDS", 0.2)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        silent = []
        for number in range(server.MAX_CONNECTIONS):
            silent.append(Client(tmp_path / "s"))
            if haggled:
                assert speaks(silent[-1].go())
            if number == 0:
                time.sleep(0.3)
        began = time.monotonic()
        assert speaks(Client(tmp_path / "s").go())
        assert time.monotonic() - began < 3
        assert silent[0].closed(), "the one that was silent longest makes way"
        if haggled:
            assert speaks(silent[-1])
    assert complaints == ["connection closed: it was idle, and another client needed the place"]


def test_clients_that_haggle_make_way_before_those_that_have_an_export(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(server, "SPARED_SECONDS", 0.1)
    with served(mapper, tmp_path / "s", complaints=[]):
        mounted = Client(tmp_path / "s").go()
        silent = Client(tmp_path / "s")
        assert speaks(Client(tmp_path / "s").go())
        assert silent.closed()
        assert speaks(mounted)


def test_a_client_that_stops_in_the_middle_of_a_request_makes_way_and_is_given_up(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(server, "SPARED_SECONDS", 0.1)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        halting = Client(tmp_path / "s").go()
        halting.send(WRITE, 0, BLOCK, data=b"x")
        second = Client(tmp_path / "s").go()
        assert speaks(second)
        assert halting.closed()
        monkeypatch.setattr(server, "STALL_SECONDS", 0.2)
        second.send(WRITE, 0, BLOCK, data=b"x")
        assert second.closed()
    assert complaints[1] == "connection closed: the client did not go on in time"
    assert not mapper.blocks


def test_a_trickle_of_options_does_not_prolong_the_handshake(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.3)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s")
        deadline = time.monotonic() + 8
        while not hung_up(client):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert complaints == ["connection closed: no export was chosen in time"]


@pytest.mark.parametrize("option", [1, 3, 6, 7, 10, 99])
def test_options_of_absurd_length_are_not_waited_for(mapper: MemoryMapper, tmp_path: Path, option: int) -> None:
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s")
        client.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", option, 0xFFFFFFFF))
        assert client.closed()
    assert complaints == ["connection closed: an option of 4294967295 bytes"]


# -- slow and greedy clients


_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.engine.volumes import FileMapper
from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd.sockets import unix_listener
with unix_listener(sys.argv[3]) as (listener, uri):
    serve(Server(FileMapper(sys.argv[2])), listener, lambda: print(uri, flush=True))
"""


@contextmanager
def serving_file(path: Path, socket: Path) -> Iterator[int]:
    """A server in a process of its own; yields its number."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", _PROGRAM, root, str(path), str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            while Client.opened:
                Client.opened.pop().close()
            process.terminate()


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) << 10


@pytest.mark.parametrize("structured", [False, True])
def test_64_slow_readers_cost_bounded_memory(tmp_path: Path, *, structured: bool) -> None:
    content = tmp_path / "content"
    with content.open("wb") as stream:
        stream.truncate(64 * MIB)
    with serving_file(content, tmp_path / "s") as pid:
        before = peak_bytes(pid)
        clients = [Client(tmp_path / "s").go(structured=structured) for _ in range(64)]
        for client in clients:
            for _ in range(4):
                client.send(READ, 0, 32 * MIB, DF if structured else 0)
        time.sleep(1)
        assert peak_bytes(pid) - before < BOUND_BYTES


def test_64_large_writes_at_once_cost_bounded_memory(tmp_path: Path) -> None:
    content = tmp_path / "content"
    with content.open("wb") as stream:
        stream.truncate(64 * MIB)
    with serving_file(content, tmp_path / "s") as pid:
        before = peak_bytes(pid)
        for _ in range(64):
            client = Client(tmp_path / "s").go()
            client.send(WRITE, 0, 32 * MIB, data=bytes(MIB))  # read-only: the payload has to pass all the same
        time.sleep(0.5)
        assert peak_bytes(pid) - before < BOUND_BYTES


def test_requests_are_taken_while_replies_are_not(mapper: MemoryMapper, tmp_path: Path) -> None:
    """A client with one thread sends everything before it takes the first reply."""
    mapper.blocks = dict.fromkeys(range(64), b"a" * BLOCK)
    with connected(mapper, tmp_path) as client:
        client.go(structured=False)
        for _ in range(2000):
            client.send(READ, 0, 16 * BLOCK)
        for _ in range(2000):
            assert client.simple() == 0
            assert client.take(16 * BLOCK) == b"a" * 16 * BLOCK


def test_a_client_may_half_close_before_it_takes_the_replies(mapper: MemoryMapper, tmp_path: Path) -> None:
    mapper.blocks = dict.fromkeys(range(64), b"a" * BLOCK)
    with connected(mapper, tmp_path) as client:
        client.go(structured=False)
        for _ in range(20):
            client.send(READ, 0, 64 * BLOCK)
        client.socket.shutdown(1)
        for _ in range(20):
            assert client.simple() == 0
            assert client.take(64 * BLOCK) == b"a" * 64 * BLOCK
        assert client.closed()


# -- payloads that pass in pieces


@pytest.fixture
def large() -> MemoryMapper:
    mapper = MemoryMapper(1024)
    rng = random.Random(5)
    mapper.blocks = {block: rng.randbytes(BLOCK) for block in range(1024)}
    return mapper


@pytest.mark.parametrize(("offset", "length"), [(0, 4 * MIB), (100, 3 * MIB), (511, PIECE_BYTES), (4096, PIECE_BYTES)])
def test_large_reads_and_writes_equal_a_flat_buffer(
    large: MemoryMapper, tmp_path: Path, offset: int, length: int
) -> None:
    content = bytearray(large.content())
    with connected(large, tmp_path) as client:
        client.go()
        client.send(READ, offset, length)
        found = bytearray(len(content))
        for kind, payload in client.chunks()[:-1]:
            assert kind == 1
            (at,) = struct.unpack_from(">Q", payload)
            found[at : at + len(payload) - 8] = payload[8:]
        assert found[offset : offset + length] == content[offset : offset + length]
        client.send(READ, offset, length, DF)
        ((_, payload), _) = client.chunks()
        assert payload[8:] == content[offset : offset + length]
        data = random.Random(6).randbytes(length)
        client.send(WRITE, offset, length, data=data)
        assert client.simple() == 0
    content[offset : offset + length] = data
    assert large.content() == content


@pytest.mark.parametrize("memory_taken", [False, True])
def test_a_long_simple_reply_is_right_with_and_without_the_memory_for_it(
    large: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, memory_taken: bool
) -> None:
    if memory_taken:
        monkeypatch.setattr(requests.LongReply, "take", lambda _: None)
    with connected(large, tmp_path) as client:
        client.go(structured=False)
        for offset, length in ((0, 4 * MIB), (100, 3 * MIB)):
            client.send(READ, offset, length)
            assert client.simple() == 0
            assert client.take(length) == large.content()[offset : offset + length]


def test_a_long_read_that_fails_late_is_an_error_reply(large: MemoryMapper, tmp_path: Path) -> None:
    large.broken = {1000}
    with served(large, tmp_path / "s"):
        client = Client(tmp_path / "s").go(structured=False)
        client.send(READ, 0, 4 * MIB)
        assert client.simple() == errno.EIO
        assert speaks(client)
        client = Client(tmp_path / "s").go()
        client.send(READ, 0, 4 * MIB)
        *data, (kind, payload) = client.chunks()
        assert {kind for kind, _ in data} == {1}
        assert kind == 0x8001
        assert struct.unpack_from(">I", payload) == (errno.EIO,)
        client.send(READ, 0, 4 * MIB, DF)
        assert client.error() == errno.EIO
        assert speaks(client)


def test_a_long_read_that_fails_when_half_is_sent_breaks_off(
    large: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.LongReply, "take", lambda _: None)
    large.broken = {1000}
    complaints: list[str] = []
    with served(large, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s").go(structured=False)
        client.send(READ, 0, 4 * MIB)
        assert client.simple() == 0
        with pytest.raises((EOFError, ConnectionError)):
            client.take(4 * MIB)
    assert complaints == ["connection closed: a read failed in the middle of its reply: block 1000 cannot be read"]


def test_a_large_write_that_fails_leaves_the_connection_in_step(large: MemoryMapper, tmp_path: Path) -> None:
    large.write_errno = errno.ENOSPC
    with connected(large, tmp_path) as client:
        client.go()
        client.send(WRITE, 100, 3 * MIB, data=bytes(3 * MIB))
        assert client.error() == errno.ENOSPC
        client.send(WRITE, 4 * MIB, 3 * MIB, data=bytes(3 * MIB))
        assert client.error() == errno.ENOSPC
        assert speaks(client)
