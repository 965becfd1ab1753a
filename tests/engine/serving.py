"""A server in a thread, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd_sockets import unix_listener
from zoned_tools.formats.contract import Mapper


@contextmanager
def served(mapper: Mapper, path: Path, *, complaints: list[str] | None = None, **settings: object) -> Iterator[str]:
    """The mapper behind a server in a thread; yields the URI. Without ``complaints`` there must be none."""
    lines: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    def ready() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()

    with unix_listener(str(path)) as (listener, uri):
        server = Server(mapper, log=lines.append, **settings)
        thread = threading.Thread(target=serve, args=(server, listener, ready))
        thread.start()
        assert started.wait(10)
        try:
            yield uri
        finally:
            if thread.is_alive():
                loops[0].call_soon_threadsafe(server.stop)
            thread.join(30)
            assert not thread.is_alive()
    if complaints is None:
        assert lines == []
    else:
        complaints += lines
