"""The server: accepts connections, looks after them, and ends in order."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from zoned_tools.engine.nbd.connection import Connection, Offer
from zoned_tools.engine.nbd.handshake import Export
from zoned_tools.engine.nbd.shared import SharedVolume
from zoned_tools.engine.nbd.sockets import peer_uid
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterator, Sequence

    from zoned_tools.errors import ZonedError
    from zoned_tools.formats.contract import Mapper

HANDSHAKE_SECONDS = 10.0
"""A client that has not chosen its export by then is disconnected."""
STALL_SECONDS = 30.0
"""In the middle of a request or a reply, a client has so long to give or take the next piece."""
GOODBYE_SECONDS = 10.0
"""How long a shutdown waits for clients to take the replies to what they asked before."""
IDLE_SECONDS = 10.0
"""After so long without a request, changes are made durable (drivers commit as often)."""
MAX_CONNECTIONS = 64
SPARED_SECONDS = 1.0
"""A client that asked for something so recently does not lose its place to another."""
PLACE_SECONDS = 3.0
"""So long a new client waits for the place of one that is idle, then it is turned away."""
TICK_SECONDS = 0.5
"""How often the caretaker looks at its clocks."""


def no_log(line: str) -> None:
    """Tell nobody."""
    del line


class Server:
    """Serves ``mapper`` on a listening socket until it is told to stop.

    Args:
        name: also of the default export.
        others: names and mappers of further exports.
        log: told about broken connections and losses, one line each, from any thread.
        stop_when_unused: stop when the last client has gone.
        when_idle: called when there was no request for :data:`IDLE_SECONDS` since something was changed,
            before the changes are made durable.
        tls: clients have to begin TLS with it.
        allowed_uids: users who may connect, beside root and the server's own.
        everybody: do not look who connects; TLS does that, or nobody needs to.
    """

    def __init__(
        self,
        mapper: Mapper,
        *,
        name: str = "",
        others: Sequence[tuple[str, Mapper]] = (),
        description: str = "",
        log: Callable[[str], None] = no_log,
        stop_when_unused: bool = False,
        when_idle: Callable[[], object] | None = None,
        tls: ssl.SSLContext | None = None,
        allowed_uids: Collection[int] = (),
        everybody: bool = False,
    ) -> None:
        self._log = log
        offered = [
            (SharedVolume(one, log), Export(one.size_blocks * LOGICAL_BLOCK_BYTES, one.writable, called, description))
            for called, one in [(name, mapper), *others]
        ]
        self._volumes = [volume for volume, _ in offered]
        self._offer = Offer(offered, log, tls)
        self._stop_when_unused = stop_when_unused
        self._when_idle = when_idle
        self._everybody = everybody
        self._allowed_uids = frozenset({0, os.geteuid(), *allowed_uids})
        self._connections: set[Connection] = set()
        self._places = threading.Condition()
        self._wake, self._waker = socket.socketpair()
        self._waker.settimeout(0)

    def stop(self) -> None:
        """Begin the shutdown; for any thread, and for signal handlers."""
        self._offer.stopping.set()
        with suppress(OSError):  # it is closed, or full of such bytes
            self._waker.send(b"s")

    def run(self, listener: socket.socket, ready: Callable[[], None] = lambda: None) -> ZonedError | None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM; then flush and close the mapper.

        Args:
            ready: called once clients can connect.

        Returns:
            Why changes that clients were told of may be lost; None when all are durable.
        """
        caretaker = threading.Thread(target=self._care, name="caretaker", daemon=True)
        try:
            with self._stopped_by_signals():
                caretaker.start()
                ready()
                self._accept_clients(listener)
                self._say_goodbye()
        finally:
            self.stop()
            for volume in self._volumes:
                volume.close()
            self._wake.close()
            self._waker.close()
        return next((volume.failure for volume in self._volumes if volume.failure is not None), None)

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        before = {}
        with suppress(ValueError):  # only the main thread gets signals
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: self.stop())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- clients

    def _accept_clients(self, listener: socket.socket) -> None:
        listener.settimeout(0)
        events = select.poll()
        events.register(listener, select.POLLIN)
        events.register(self._wake, select.POLLIN)
        while not self._offer.stopping.is_set():
            events.poll()
            try:
                connected, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                self._log(f"connection refused: {error}")
                self._offer.stopping.wait(TICK_SECONDS)  # out of descriptors: some come back
                continue
            if not (self._admits(connected) and self._begin(connected)):
                connected.close()

    def _admits(self, connected: socket.socket) -> bool:
        if self._everybody:
            return True
        uid = peer_uid(connected)
        if uid in self._allowed_uids:
            return True
        self._log(f"connection refused: {'an unknown user' if uid is None else f'user {uid}'} may not connect")
        return False

    def _begin(self, connected: socket.socket) -> bool:
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._places:
            if not self._find_place():
                return False
            connection = Connection(connected, self._offer, self._end_of)
            self._connections.add(connection)
        connection.thread.start()
        return True

    def _find_place(self) -> bool:
        """Whether another client can be had; the one that is missed least makes way."""
        give_up = time.monotonic() + PLACE_SECONDS
        while len(self._connections) >= MAX_CONNECTIONS:
            now = time.monotonic()
            if now >= give_up or self._offer.stopping.is_set():
                self._log(f"connection refused: all {MAX_CONNECTIONS} connections are in use")
                return False
            staying = [c for c in self._connections if not c.ended]
            if len(staying) >= MAX_CONNECTIONS:  # else one that was cut is on its way out
                chosen = min(staying, key=lambda c: (not c.haggling, not c.idle, c.waiting_since))
                if now - chosen.waiting_since >= SPARED_SECONDS:
                    chosen.end("it was idle, and another client needed the place")
            self._places.wait(TICK_SECONDS / 10)
        return True

    def _end_of(self, connection: Connection) -> None:
        with self._places:
            self._connections.discard(connection)
            self._places.notify_all()
            unused = not self._connections
        if unused and self._stop_when_unused:
            self.stop()

    def _say_goodbye(self) -> None:
        """Cut idle connections at once, the others when their request is answered."""
        give_up = time.monotonic() + GOODBYE_SECONDS
        with self._places:
            while self._connections:
                late = time.monotonic() >= give_up
                for connection in self._connections:
                    if late or connection.idle:
                        connection.end()
                if time.monotonic() >= give_up + 1:
                    break  # its request does not come back from the mapper
                self._places.wait(0.02)

    # -- what nobody asks for

    def _care(self) -> None:
        while not self._offer.stopping.wait(TICK_SECONDS):
            try:
                self._cut_silent_clients()
                idle = time.monotonic() - self._offer.last_request >= IDLE_SECONDS
                for volume in self._volumes:
                    if volume.unsynced and idle:
                        volume.rest(self._when_idle)
            except Exception as error:  # noqa: BLE001 - a bug in the mapper must not end the care
                self._log(f"internal error: {error!r}")

    def _cut_silent_clients(self) -> None:
        now = time.monotonic()
        with self._places:
            connections = list(self._connections)
        for connection in connections:
            if connection.haggling and now - connection.since >= HANDSHAKE_SECONDS:
                connection.end("no export was chosen in time")
            elif not connection.idle and now - connection.waiting_since >= STALL_SECONDS:
                connection.end("the client did not go on in time")


def serve(server: Server, listener: socket.socket, ready: Callable[[], None] = lambda: None) -> ZonedError | None:
    """Run ``server`` to its end; what :meth:`Server.run` returns."""
    return server.run(listener, ready)
