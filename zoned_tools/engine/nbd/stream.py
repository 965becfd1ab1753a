"""The two directions of a connection: received bytes in one buffer, replies gathered in another.

Both buffers are allocated once and used again, so that a connection needs the same memory whatever its client
asks for, and a reply to a small request costs one system call, or less: replies are kept while more requests
are there already, and sent together before anything is waited for.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Buffer

TAKEN_BYTES = 192 << 10
"""Received at a time at most; longer payloads pass in pieces. A socket holds about as much."""
PIECE_BYTES = 512 << 10
"""Sent at a time at most; longer replies pass in pieces. Mappers are quicker with larger ones."""
ROOM_BYTES = PIECE_BYTES + 8192
"""Room for a piece that was widened to whole blocks."""
GATHERED_BUFFERS = 256
"""Sent in one system call; the kernel allows 1024."""
JOINED_BYTES = 16 << 10
"""Shorter buffers are joined for TLS: each call makes records of its own."""
NEVER = float("inf")


class Stream:
    """A connected socket with its buffers; used by one thread, but for :meth:`end` and what it reads.

    Attributes:
        waiting_since: since when the client is waited for: for a message, for the rest of one, or until it takes
            a reply; :data:`NEVER` while a message is being dealt with.
        idle: nothing of a message has come; otherwise the client is in the middle of one.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._recv_into: Callable[[memoryview], int] = connected.recv_into
        self._send: Callable[[list[Buffer]], None] = self._send_plain
        self._send_some: Callable[[memoryview], int] = self._send_some_plain
        self._inbox = memoryview(bytearray(TAKEN_BYTES))
        self._start = self._end = 0
        self._outbox = memoryview(bytearray(ROOM_BYTES))
        self._used = 0
        self._gathered: list[Buffer] = []
        self._events = select.poll()
        self._events.register(connected)
        self.waiting_since = NEVER
        self.idle = False

    # -- receiving

    @property
    def buffered(self) -> int:
        """Bytes that were received and not taken."""
        return self._end - self._start

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, at most :data:`TAKEN_BYTES`; they hold until the next call.

        Raises:
            EOFError: the client has gone.
        """
        if self._end - self._start < count:
            self._fill(count)
        start = self._start
        self._start = start + count
        return self._inbox[start : start + count]

    def skip(self, count: int) -> None:
        """Let ``count`` bytes pass."""
        while count:
            count -= len(self.take(min(count, TAKEN_BYTES)))

    def _fill(self, count: int) -> None:
        """Receive until ``count`` bytes are there; what is to be sent goes first."""
        self.flush()
        kept = self._end - self._start
        if kept:
            self._inbox[:kept] = bytes(self._inbox[self._start : self._end])
        self._start, self._end = 0, kept
        self.idle = not kept
        self.waiting_since = time.monotonic()
        while self._end < count:
            received = self._recv_into(self._inbox[self._end :])
            if not received:
                raise EOFError
            if self.idle:
                self.waiting_since = time.monotonic()
                self.idle = False
            self._end += received
        self.waiting_since = NEVER

    # -- sending

    def room(self, count: int) -> memoryview:
        """Memory for ``count`` bytes (at most :data:`ROOM_BYTES`) of a reply; it holds until they are sent."""
        if self._used + count > ROOM_BYTES:
            self.flush()
        start = self._used
        self._used = start + count
        return self._outbox[start : start + count]

    def put(self, *buffers: Buffer) -> None:
        """Send ``buffers`` with what else is to be sent, at the latest before something is waited for."""
        self._gathered.extend(buffers)
        if len(self._gathered) >= GATHERED_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Send what was put.

        Raises:
            OSError: the client has gone, or was given up.
        """
        if self._gathered:
            self.waiting_since = time.monotonic()
            buffers, self._gathered = self._gathered, []
            self._send(buffers)
            self.waiting_since = NEVER
        self._used = 0

    def _send_plain(self, buffers: list[Buffer]) -> None:
        try:
            sent = self._socket.sendmsg(buffers, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        for buffer in buffers:
            if sent >= len(buffer):
                sent -= len(buffer)
            else:
                self._send_slowly(memoryview(buffer)[sent:])
                sent = 0

    def _send_slowly(self, left: memoryview) -> None:
        """Send to a client that is not taking it at once, and receive meanwhile what it sends.

        A client may send many requests before it takes the first reply; it would wait for ever for a server
        that waits for it.
        """
        more_comes = True
        while left:
            listens = more_comes and self._end < TAKEN_BYTES
            self._events.modify(self._socket, select.POLLOUT | (select.POLLIN if listens else 0))
            ((_, event),) = self._events.poll()
            if event & select.POLLIN:
                received = self._recv_into(self._inbox[self._end :])
                more_comes = received > 0
                self._end += received
            if event & ~select.POLLIN:
                left = left[self._send_some(left) :]
                self.waiting_since = time.monotonic()

    def _send_some_plain(self, left: memoryview) -> int:
        try:
            return self._socket.send(left, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    # -- TLS, the end

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on encrypted.

        Raises:
            OSError: the client could not be agreed with.
        """
        self.flush()
        encrypted = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = encrypted  # before the handshake, so that it can be ended
        encrypted.do_handshake()
        encrypted.settimeout(0)
        encryption = _Encryption(encrypted, self._events)
        self._recv_into = encryption.recv_into
        self._send_some = encryption.send_some
        self._send = self._send_joined

    def _send_joined(self, buffers: list[Buffer]) -> None:
        for buffer in _joined(buffers):
            left = memoryview(buffer)
            self._send_slowly(left[self._send_some(left) :])

    def end(self) -> None:
        """Cut the connection: whatever its thread waits for fails at once. For any thread, until :meth:`close`."""
        with suppress(OSError):  # the client was faster
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # TLS sockets' own forgets the encryption first

    def close(self) -> None:
        self._socket.close()


class _Encryption:
    """A TLS socket that does not wait, made to wait where receiving needs it."""

    def __init__(self, encrypted: ssl.SSLSocket, events: select.poll) -> None:
        from ssl import SSLWantReadError, SSLWantWriteError

        self._socket = encrypted
        self._events = events
        self._would_wait = (SSLWantReadError, SSLWantWriteError)

    def recv_into(self, room: memoryview) -> int:
        while True:
            try:
                return self._socket.recv_into(room)
            except self._would_wait:
                self._events.modify(self._socket, select.POLLIN)
                self._events.poll()

    def send_some(self, left: memoryview) -> int:
        try:
            return self._socket.send(left)
        except self._would_wait:
            return 0


def _joined(buffers: list[Buffer]) -> Iterator[Buffer]:
    """Short neighbours as one buffer."""
    short = bytearray()
    for buffer in buffers:
        if len(buffer) <= JOINED_BYTES:
            short += buffer
            continue
        if short:
            yield short
            short = bytearray()
        yield buffer
    if short:
        yield short
