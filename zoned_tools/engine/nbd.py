"""A small NBD server for one mapper: fixed newstyle, several connections at once.

The mapper is called from one worker thread, which serialises requests and keeps the event
loop responsive. A client that breaks the protocol loses its own connection only.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from zoned_tools.engine import nbd_protocol as wire
from zoned_tools.engine.nbd_handshake import Export, Handshake
from zoned_tools.engine.nbd_protocol import Command, ProtocolError
from zoned_tools.engine.nbd_requests import CHANGING_COMMANDS, Request, Requests
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import Mapper

HANDSHAKE_SECONDS = 60.0
"""A client that has not chosen its export by then is disconnected."""
GOODBYE_SECONDS = 10.0
"""How long a shutdown waits for clients to take the replies to what they asked before."""
IDLE_SECONDS = 10.0
"""After so long without a request, changes are made durable (drivers commit as often)."""
MAX_CONNECTIONS = 64
READ_BUFFER_BYTES = 1 << 20

Log = Callable[[str], None]


@dataclass(slots=True, eq=False)
class _Connection:
    task: asyncio.Task[None]
    busy: bool = False
    """A request is being carried out or answered."""


@dataclass(slots=True)
class Server:
    """Serves ``mapper`` on a listening socket until it is told to stop.

    Args:
        log: told about broken connections, one line each.
        stop_when_unused: stop when the last client has gone.
        when_idle: called in the worker thread when there was no request for :data:`IDLE_SECONDS`
            since something was changed; mostly the mapper's flush.
    """

    mapper: Mapper
    name: str = ""
    description: str = ""
    log: Log = lambda line: None
    stop_when_unused: bool = False
    when_idle: Callable[[], object] | None = None
    _connections: set[_Connection] = field(default_factory=set, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _last_request: float = field(default=0.0, init=False)
    _worker: ThreadPoolExecutor = field(init=False)
    _volume: Volume = field(init=False)
    _export: Export = field(init=False)

    def __post_init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mapper")
        self._volume = Volume(self.mapper)
        self._export = Export(self._volume.size_bytes, self.mapper.writable, self.name, self.description)

    def stop(self) -> None:
        """Begin the shutdown; to be called in the event loop."""
        self._stopping.set()

    async def run(self, listener: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM; then flush and close the mapper.

        ``ready`` is called once clients can connect.

        Raises:
            ZonedError: the mapper cannot be flushed or closed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError, RuntimeError):  # only the main thread gets signals
                loop.add_signal_handler(number, self.stop)
        loop.set_exception_handler(lambda _, context: self.log(f"connection closed: {_describe(context)}"))
        caretaker = asyncio.create_task(self._care())
        try:
            server = await asyncio.start_server(self._serve, sock=listener, limit=READ_BUFFER_BYTES)
            ready()
            await self._stopping.wait()
            server.close()
            await self._say_goodbye()
        finally:
            caretaker.cancel()
            await loop.run_in_executor(self._worker, self._close_mapper)
            self._worker.shutdown()

    def _close_mapper(self) -> None:
        try:
            if self.mapper.writable:
                self.mapper.flush()
        finally:
            self.mapper.close()

    async def _care(self) -> None:
        """Call ``when_idle`` whenever clients have been quiet for a while after a change."""
        loop = asyncio.get_running_loop()
        while self.when_idle is not None:
            await self._changed.wait()
            quiet = loop.time() - self._last_request
            if quiet < IDLE_SECONDS:
                await asyncio.sleep(IDLE_SECONDS - quiet)
                continue
            self._changed.clear()
            try:
                await loop.run_in_executor(self._worker, self.when_idle)
            except ZonedError as error:
                self.log(str(error))

    async def _say_goodbye(self) -> None:
        """Cut idle connections at once, the others when their request is answered."""
        for connection in self._connections:
            if not connection.busy:
                connection.task.cancel()
        tasks = [connection.task for connection in self._connections]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._stopping.is_set() or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        connection = _Connection(task)
        self._connections.add(connection)
        try:
            await self._converse(connection, reader, writer)
        except (ProtocolError, TimeoutError) as error:
            self.log(f"connection closed: {str(error) or 'no export was chosen in time'}")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the server is stopping
        finally:
            self._connections.discard(connection)
            await _close(writer)
            if self.stop_when_unused and not self._connections:
                self.stop()

    async def _converse(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            session = await Handshake(reader, writer, self._export).run()
        if session is None:
            return
        requests = Requests(self._volume, self._export, session)
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            connection.busy = False
            request = await self._next_request(connection, reader)
            if request is None:
                return
            reply = await loop.run_in_executor(self._worker, requests.perform, request)
            self._last_request = loop.time()
            if request.command in CHANGING_COMMANDS and self.mapper.writable:
                self._changed.set()
            writer.writelines(reply)
            await writer.drain()

    async def _next_request(self, connection: _Connection, reader: asyncio.StreamReader) -> Request | None:
        """The next request with its payload; None for a disconnect."""
        header = await reader.readexactly(wire.REQUEST.size)
        magic, flags, command, cookie, offset, length = wire.REQUEST.unpack(header)
        if magic != wire.REQUEST_MAGIC:
            raise ProtocolError("a request does not begin with its magic number")
        if command == Command.DISCONNECT:
            return None
        connection.busy = True
        data = b""
        if command == Command.WRITE:
            if length > self._export.maximum_bytes:
                raise ProtocolError(f"a write of {length} bytes")
            data = await reader.readexactly(length)
        return Request(flags, command, cookie, offset, length, data)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await writer.wait_closed()
    except (OSError, asyncio.CancelledError):  # TimeoutError is an OSError
        writer.transport.abort()


def _describe(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"internal error: {error!r}" if error is not None else str(context.get("message"))


def serve(server: Server, listener: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Run ``server`` to its end in an event loop of its own.

    Raises:
        ZonedError: the mapper cannot be flushed or closed.
    """
    asyncio.run(server.run(listener, ready))
