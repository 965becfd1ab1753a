"""``zoned serve`` as users call it: who may connect, and what the exit status says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.nbd_wire import DISC, FLUSH, READ, WRITE, Client
from tests.engine.rescue_cases import CASES, build
from tests.engine.test_nbd_failures import FailingMapper
from tests.engine.volumes import BLOCK
from tests.programs import Program
from zoned_tools.engine import logical


@pytest.fixture
def image(program: Program, tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    assert program("zoned", "image", "create", path, "--size", "64M", "--zone-size", "1M", "--conventional", "8")
    assert program("dmzadm", "--format", path).status == 0
    return path


def first_client(path: Path) -> Client:
    deadline = time.monotonic() + 30
    while True:
        try:
            return Client(path)
        except (FileNotFoundError, ConnectionRefusedError):  # not made yet, or not listened to
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def client_of(path: Path, *messages: tuple[int, bytes]) -> Iterator[None]:
    """A client in a thread: waits for the server, sends ``messages``, takes the replies and leaves."""

    def talk() -> None:
        client = first_client(path).go(structured=False)
        for command, data in messages:
            client.send(command, 0, len(data), data=data)
            client.simple()
        client.send(DISC)

    thread = threading.Thread(target=talk)
    thread.start()
    yield
    thread.join(20)


@pytest.mark.parametrize("when", ["flush", "end", "close"])
def test_lost_changes_are_an_exit_status(
    image: Path, zoned: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    failing = FailingMapper(64)
    if when == "close":
        failing.close_errno = errno.EIO
    else:
        failing.flush_errors = (errno.ENOSPC,)
    monkeypatch.setattr(logical, "open_logical", lambda *_, **__: failing)
    messages = [(WRITE, bytes(BLOCK)), (FLUSH, b"")] if when == "flush" else [(WRITE, bytes(BLOCK))]
    socket = tmp_path / "s"
    with client_of(socket, *messages):
        result = zoned("serve", image, "--write", "--once", "--socket", socket)
    assert result.status == 8
    assert result.err.count("changes may be lost") == 2, "when it happened, and at the end"
    assert str(image) in result.err.splitlines()[-1]


def test_a_good_end_is_a_good_exit_status(image: Path, zoned: Program, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with client_of(socket, (WRITE, b"x" * BLOCK), (FLUSH, b"")):
        result = zoned("serve", image, "--write", "--once", "--socket", socket, "--allow-uid", os.getuid())
    assert (result.status, result.err) == (0, "")
    assert zoned("check", image).status == 0


@pytest.mark.parametrize("arguments", [["--write", "--insecure-tcp"], ["--write"], ["--write", "--allow-uid", "5"], []])
def test_tcp_serves_who_wants_it_so(image: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    command = [sys.executable, "-m", "zoned_tools", "serve", str(image), "--tcp", "0", "--once", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().strip()
        assert uri.startswith("nbd://127.0.0.1:")
        subprocess.run(["nbdinfo", "--size", uri], check=True, timeout=30, capture_output=True)
        assert server.wait(30) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tls-psk", "keys", "--tls-certificates", "pki"],
        ["--insecure-tcp"],
        ["--allow-uid", "-1"],
        ["--tls-psk", "missing"],
        ["--tls-certificates", "missing"],
    ],
)
def test_options_that_cannot_be_meant_are_refused(image: Path, zoned: Program, arguments: list[str]) -> None:
    result = zoned("serve", image, *arguments)
    assert result.status in (8, 16)
    assert len(result.err.splitlines()) <= 2


def test_what_was_not_rescued_is_an_error_and_nothing_else(zoned: Program, tmp_path: Path) -> None:
    build(CASES["data-unread"], tmp_path)
    lost = 1574400 // BLOCK * BLOCK
    found: list[int] = []

    def talk() -> None:
        client = first_client(tmp_path / "s").go(structured=False)
        client.send(READ, lost, BLOCK)
        found.append(client.simple())
        client.send(READ, lost + BLOCK, BLOCK)
        found.append(client.simple())
        client.take(BLOCK)
        client.send(DISC)

    thread = threading.Thread(target=talk)
    thread.start()
    result = zoned("serve", tmp_path / "disk.img", "--once", "--socket", tmp_path / "s")
    thread.join(20)
    assert found == [errno.EIO, 0]
    assert result.status == 0
    assert "14848 bytes in 4 ranges of the logical device cannot be read: clients get EIO for them" in result.err
