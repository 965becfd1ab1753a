"""Who may connect to the NBD server."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.nbd_wire import Client
from tests.engine.serving import served
from tests.engine.volumes import MemoryMapper
from zoned_tools.engine.nbd import access, server
from zoned_tools.engine.nbd.sockets import unix_listener

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


def account(name: str, uid: int, shell: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", "/", shell))


def test_people_are_told_from_services(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [
        account("root", 0, "/bin/bash"),
        account("daemon", 1, "/usr/sbin/nologin"),
        account("postgres", 120, "/bin/bash"),
        account("alice", 1000, "/bin/zsh"),
        account("bob", 1001, "/bin/bash"),
        account("web", 1002, "/usr/sbin/nologin"),
        account("nobody", 65534, "/usr/sbin/nologin"),
    ]
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(access, "_at_work", lambda: {0, 33, 1001, 1500})
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert access.other_people() == ["alice", "bob", "1500"]
    monkeypatch.setenv("SUDO_UID", "1000")
    assert access.other_people() == ["bob", "1500"]


def test_owners_of_processes_are_found() -> None:
    assert os.getuid() in access._at_work()
