"""The NBD server among broken clients, at its end, and its sockets."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.nbd_wire import (
    DISC,
    FLUSH,
    READ,
    SIZE,
    TRIM,
    WRITE,
    Client,
)
from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine.nbd import server as nbd
from zoned_tools.engine.nbd.sockets import parse_tcp_address, tcp_listener, unix_listener
from zoned_tools.errors import BusyError, DeviceError, UsageError

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
        raise ZeroDivisionError("a bug", block, count)

    mapper.read = broken  # type: ignore[method-assign]  # the fault to be injected
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
        client = Client(tmp_path / "s").go(structured=False)
        client.send(READ, 0, BLOCK)
        assert client.closed()
        other = Client(tmp_path / "s").go()
        other.send(FLUSH)
        assert other.simple() == 0
    assert complaints == ["connection closed: internal error: ZeroDivisionError('a bug', 0, 1)"]


def test_too_many_connections_are_turned_away(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(nbd, "SPARED_SECONDS", 60)
    monkeypatch.setattr(nbd, "PLACE_SECONDS", 0.1)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints):
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
from tests.engine.volumes import MemoryMapper
from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd.sockets import tcp_listener
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
