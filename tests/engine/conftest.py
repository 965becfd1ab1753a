"""Fixtures of the NBD tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.nbd_wire import Client
from tests.engine.volumes import MemoryMapper
from zoned_tools.engine.nbd import server


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


@pytest.fixture(autouse=True)
def _fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that a test shortens are looked at often enough."""
    monkeypatch.setattr(server, "TICK_SECONDS", 0.05)


@pytest.fixture
def mapper() -> MemoryMapper:
    return MemoryMapper(64)
