"""After a failed write or flush the export takes no more changes, and the server's end says so."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from tests.engine.nbd_wire import FLUSH, FUA, READ, TRIM, WRITE, ZEROES, Client
from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine.nbd import server
from zoned_tools.errors import DeviceError, ZonedError


class FailingMapper(MemoryMapper):
    """Its flush and its close fail as often as they are told to."""

    flush_errors: tuple[int, ...] = ()
    close_errno = 0

    def flush(self) -> None:
        super().flush()
        if self.flush_errors:
            number, *rest = self.flush_errors
            self.flush_errors = tuple(rest)
            raise DeviceError("cannot be synced", errno=number)

    def close(self) -> None:
        super().close()
        if self.close_errno:
            raise DeviceError("cannot be closed", errno=self.close_errno)


@pytest.fixture
def failing() -> FailingMapper:
    return FailingMapper(64)


def write(client: Client, block: int = 0, flags: int = 0) -> None:
    client.send(WRITE, block * BLOCK, BLOCK, flags, b"x" * BLOCK)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_flush_poisons_the_export_for_all_clients(failing: FailingMapper, tmp_path: Path, number: int) -> None:
    failing.flush_errors = (number,)
    complaints: list[str] = []
    failures: list[ZonedError] = []
    with served(failing, tmp_path / "s", complaints=complaints, failures=failures):
        first, second = Client(tmp_path / "s").go(), Client(tmp_path / "s").go()
        write(first)
        assert first.simple() == 0
        second.send(FLUSH)
        assert second.error() == number
        for client in (first, second, Client(tmp_path / "s").go()):
            write(client, 1)
            assert client.error() == errno.EIO
            write(client, 1, FUA)
            assert client.error() == errno.EIO
            for command in (TRIM, ZEROES):
                client.send(command, 0, BLOCK)
                assert client.error() == errno.EIO
            client.send(FLUSH)
            assert client.error() == errno.EIO
            client.send(READ, 0, BLOCK)
            assert client.chunks()[0][1][8:] == b"x" * BLOCK
    assert len(complaints) == 1
    assert "cannot be synced" in complaints[0]
    (failure,) = failures
    assert "changes may be lost" in failure.message
    assert failing.flushes == 1, "a second sync would lie"
    assert failing.closed
    assert set(failing.blocks) == {0}


def test_fua_that_fails_poisons_the_export(failing: FailingMapper, tmp_path: Path) -> None:
    failing.flush_errors = (errno.EIO,)
    failures: list[ZonedError] = []
    with served(failing, tmp_path / "s", complaints=[], failures=failures):
        client = Client(tmp_path / "s").go()
        write(client, 0, FUA)
        assert client.error() == errno.EIO
        write(client)
        assert client.error() == errno.EIO
    assert len(failures) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV])
def test_a_failed_write_after_acknowledged_ones_poisons_the_export(
    failing: FailingMapper, tmp_path: Path, number: int
) -> None:
    failures: list[ZonedError] = []
    complaints: list[str] = []
    with served(failing, tmp_path / "s", complaints=complaints, failures=failures):
        client = Client(tmp_path / "s").go()
        write(client)
        assert client.simple() == 0
        failing.write_errno = number
        write(client)
        assert client.error() == errno.EIO
        failing.write_errno = 0
        write(client)
        assert client.error() == errno.EIO
        client.send(FLUSH)
        assert client.error() == errno.EIO
    assert len(complaints) == len(failures) == 1
    assert failing.flushes == 0


def test_a_failed_write_when_all_others_are_durable_costs_that_write_only(
    failing: FailingMapper, tmp_path: Path
) -> None:
    with served(failing, tmp_path / "s"):
        client = Client(tmp_path / "s").go()
        write(client, 0, FUA)
        assert client.simple() == 0
        failing.write_errno = errno.EIO
        write(client)
        assert client.error() == errno.EIO
        failing.write_errno = 0
        write(client)
        assert client.simple() == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG])
def test_a_refused_write_loses_nothing(failing: FailingMapper, tmp_path: Path, number: int) -> None:
    """A full drive still keeps, and syncs, what it took."""
    with served(failing, tmp_path / "s"):
        client = Client(tmp_path / "s").go()
        write(client)
        assert client.simple() == 0
        failing.write_errno = number
        write(client)
        assert client.error() != errno.EIO
        client.send(FLUSH)
        assert client.simple() == 0


def test_a_failed_flush_in_a_quiet_time_poisons_the_export(
    failing: FailingMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    failing.flush_errors = (errno.EIO,)
    complaints: list[str] = []
    failures: list[ZonedError] = []
    with served(failing, tmp_path / "s", complaints=complaints, failures=failures):
        client = Client(tmp_path / "s").go()
        write(client)
        assert client.simple() == 0
        deadline = time.monotonic() + 5
        while failing.flush_errors:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        write(client)
        assert client.error() == errno.EIO
    assert len(complaints) == len(failures) == 1
    assert failing.flushes == 1


@pytest.mark.parametrize("when", ["flush", "close"])
def test_a_failure_at_the_end_is_told(failing: FailingMapper, tmp_path: Path, when: str) -> None:
    if when == "flush":
        failing.flush_errors = (errno.EIO,)
    else:
        failing.close_errno = errno.EIO
    complaints: list[str] = []
    failures: list[ZonedError] = []
    with served(failing, tmp_path / "s", complaints=complaints, failures=failures):
        client = Client(tmp_path / "s").go()
        write(client)
        assert client.simple() == 0
    assert len(complaints) == len(failures) == 1
    assert failing.closed


def test_a_bug_in_a_flush_poisons_the_export_too(failing: FailingMapper, tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    complaints: list[str] = []
    failures: list[ZonedError] = []
    with served(failing, tmp_path / "s", complaints=complaints, failures=failures):
        client = Client(tmp_path / "s").go()
        write(client)
        assert client.simple() == 0
        failing.flush = broken  # type: ignore[method-assign]  # the fault to be injected
        client.send(FLUSH)
        assert client.closed()
        other = Client(tmp_path / "s").go()
        write(other)
        assert other.error() == errno.EIO
    assert len(failures) == 1
