"""Fixtures of the NBD tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.nbd_wire import Client
from tests.engine.volumes import MemoryMapper


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


@pytest.fixture
def mapper() -> MemoryMapper:
    return MemoryMapper(64)
