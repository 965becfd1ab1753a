"""One client: a thread that takes its requests one by one and answers them in order."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from zoned_tools.engine.nbd import protocol as wire
from zoned_tools.engine.nbd.handshake import Export, Handshake, Session
from zoned_tools.engine.nbd.protocol import Command, ProtocolError
from zoned_tools.engine.nbd.requests import LongReply, Request, Requests
from zoned_tools.engine.nbd.stream import NEVER, Stream

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from zoned_tools.engine.nbd.shared import SharedVolume

GATHERING_SECONDS = 0.001
"""A reply waits at most so long for those to the next requests, to be sent with them."""

_REQUEST_BYTES = wire.REQUEST.size


class Offer:
    """What every connection of a server needs.

    Args:
        volumes: what is exported; the first is the default.

    Attributes:
        volumes: by name, the default also by the empty one.
        exports: the first one is the default.
        stopping: no further request is begun.
        last_request: when a request was answered last.
    """

    def __init__(
        self, volumes: Sequence[tuple[SharedVolume, Export]], log: Callable[[str], None], tls: ssl.SSLContext | None
    ) -> None:
        self.exports = [export for _, export in volumes]
        self.volumes = {export.name: (volume, export) for volume, export in volumes} | {"": volumes[0]}
        self.log = log
        self.tls = tls
        self.long_reply = LongReply(max(e.maximum_bytes + 2 * e.preferred_bytes for e in self.exports))
        self.stopping = threading.Event()
        self.last_request = time.monotonic()


class Connection:
    """A connected client.

    Args:
        gone: called in the connection's thread when it has ended.
    """

    def __init__(self, connected: socket.socket, offer: Offer, gone: Callable[[Connection], None]) -> None:
        self._offer = offer
        self._gone = gone
        self._stream = Stream(connected)
        self._closing = threading.Lock()
        self._reason = ""
        self.ended = False
        self.since = time.monotonic()
        self.haggling = True
        self.thread = threading.Thread(target=self._run, name="nbd", daemon=True)

    @property
    def waiting_since(self) -> float:
        """Since when the client is waited for; :data:`NEVER` while a request is carried out."""
        return self.since if self.haggling else self._stream.waiting_since

    @property
    def idle(self) -> bool:
        """Nothing that was asked for is unanswered."""
        return self.haggling or (self._stream.idle and self._stream.waiting_since != NEVER)

    def end(self, reason: str = "") -> None:
        """Cut the connection; its thread then ends. For any thread."""
        with self._closing:
            if not self.ended:
                self.ended = True
                self._reason = reason
                self._stream.end()

    def _run(self) -> None:
        complaint = ""
        try:
            self._converse()
        except ProtocolError as error:
            complaint = str(error)
        except (EOFError, OSError):
            pass  # the client has gone, or was cut off
        except Exception as error:  # noqa: BLE001 - a bug costs the connection that hit it, not the server
            complaint = f"internal error: {error!r}"
        with self._closing:
            self.ended = True
            complaint = self._reason or complaint
            self._stream.close()
        if complaint:
            self._offer.log(f"connection closed: {complaint}")
        self._gone(self)

    def _converse(self) -> None:
        session = Handshake(self._stream, self._offer.exports, self._offer.tls).run()
        self.haggling = False
        if session is not None:
            self._answer_requests(session)

    def _answer_requests(self, session: Session) -> None:
        offer, stream = self._offer, self._stream
        requests = Requests(*offer.volumes[session.export], session, stream, offer.long_reply)
        perform, unpack, stopping = requests.perform, wire.REQUEST.unpack, offer.stopping
        gathering_since = NEVER
        while not stopping.is_set():
            waits = stream.buffered < _REQUEST_BYTES
            request = Request._make(unpack(stream.take(_REQUEST_BYTES)))
            if request.magic != wire.REQUEST_MAGIC:
                raise ProtocolError("a request does not begin with its magic number")
            if request.command == Command.DISCONNECT:
                break
            if waits:
                gathering_since = time.monotonic()
            perform(request)
            offer.last_request = now = time.monotonic()
            if now - gathering_since > GATHERING_SECONDS:
                stream.flush()
                gathering_since = now
        stream.flush()
