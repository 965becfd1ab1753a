"""Who may connect to the NBD server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.nbd_wire import Client
from tests.engine.serving import served
from tests.engine.volumes import MemoryMapper
from zoned_tools.engine.nbd import server
from zoned_tools.engine.nbd.sockets import peer_uid, tcp_listener, unix_listener

_CONNECT = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.settimeout(10)
    print(client.recv(8).decode())
"""


def greeting_for(uid: int, path: Path) -> str:
    """What another user is told; only root can try that."""
    done = subprocess.run([sys.executable, "-c", _CONNECT, str(path), str(uid)], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that other users reach; pytest's are private."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_other_users_are_turned_away(mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "peer_uid", lambda _: 12345)
    complaints: list[str] = []
    with served(mapper, tmp_path / "s", complaints=complaints), pytest.raises((EOFError, ConnectionError)):
        Client(tmp_path / "s")
    assert complaints == ["connection refused: user 12345 may not connect"]


@pytest.mark.parametrize("uid", [0, os.geteuid(), 12345])
def test_root_the_owner_and_allowed_users_may_connect(
    mapper: MemoryMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    monkeypatch.setattr(server, "peer_uid", lambda _: uid)
    with served(mapper, tmp_path / "s", allowed_uids=[12345]):
        Client(tmp_path / "s").go()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_kernel_says_who_connects(mapper: MemoryMapper, open_directory: Path) -> None:
    path = open_directory / "s"
    complaints: list[str] = []
    with served(mapper, path, complaints=complaints, allowed_uids=[54321]):
        assert "PermissionError" in greeting_for(54321, path), "the socket is the owner's"
        path.chmod(0o666)
        assert greeting_for(54321, path) == "NBDMAGIC"
        assert greeting_for(54322, path) in ("", "ConnectionResetError: [Errno 104] Connection reset by peer")
    assert complaints == ["connection refused: user 54322 may not connect"]


def test_a_socket_for_others_can_be_reached_but_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with unix_listener(None, for_others=True):
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o711
        assert (directory / "nbd.sock").stat().st_mode & 0o777 == 0o666
    with unix_listener(None):
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "nbd.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_kernel_says_who_connects_over_tcp(mapper: MemoryMapper, host: str) -> None:
    with tcp_listener(f"{host}:0") as (listener, _):
        address = listener.getsockname()[:2]
        assert peer_of(listener, address, 54321) == 54321
        assert peer_of(listener, address, os.getuid()) == os.getuid()
    assert mapper.size_blocks


def peer_of(listener: socket.socket, address: tuple[str, int], uid: int) -> int | None:
    """What the server learns of a client that runs as ``uid``."""
    # Another user may not be able to import anything: all is there before the change.
    code = f"import os, socket, sys; os.setuid({uid}); s = socket.socket({int(listener.family)})\n"
    code += f"s.connect({address!r}); sys.stdin.read()"
    listener.settimeout(30)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as client:
        connected, _ = listener.accept()
        with connected:
            found = peer_uid(connected)
        assert client.stdin is not None
        client.stdin.close()
    return found
