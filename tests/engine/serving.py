"""A server in a thread, for tests."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

from zoned_tools.engine.nbd import Server, serve
from zoned_tools.engine.nbd.sockets import unix_listener
from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import Mapper


class ServerSettings(TypedDict, total=False):
    name: str
    description: str
    stop_when_unused: bool
    when_idle: Callable[[], object]
    tls: ssl.SSLContext
    allowed_uids: Collection[int]


@contextmanager
def served(
    mapper: Mapper,
    path: Path,
    *,
    complaints: list[str] | None = None,
    failures: list[ZonedError] | None = None,
    **settings: Unpack[ServerSettings],
) -> Iterator[str]:
    """The mapper behind a server in a thread; yields the URI.

    Without ``complaints`` there must be none, and without ``failures`` the server must end well.
    """
    lines: list[str] = []
    results: list[ZonedError | None] = []
    started = threading.Event()
    with unix_listener(str(path), tls="tls" in settings) as (listener, uri):
        server = Server(mapper, log=lines.append, **settings)
        thread = threading.Thread(target=lambda: results.append(serve(server, listener, started.set)))
        thread.start()
        assert started.wait(10)
        try:
            yield uri
        finally:
            server.stop()
            thread.join(30)
            assert not thread.is_alive()
    if complaints is None:
        assert lines == []
    else:
        complaints += lines
    found = [failure for failure in results if failure is not None]
    if failures is None:
        assert found == []
    else:
        failures += found
