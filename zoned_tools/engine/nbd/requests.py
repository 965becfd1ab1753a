"""Requests of an NBD client, carried out on the shared volume; replies go to the client's stream.

Payloads pass in pieces through the stream's buffers. A structured reply says so with a chunk for each piece,
and with an error chunk at the end where one cannot be read. A reply that has to be in one piece is read
first; the server has memory for one long reply at a time. While another client has that, such a reply is sent
as it is read, and breaking off is all that is left when reading fails.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.engine.nbd import protocol as wire
from zoned_tools.engine.nbd.protocol import Chunk, Command, CommandFlag, ProtocolError
from zoned_tools.engine.nbd.stream import PIECE_BYTES, TAKEN_BYTES
from zoned_tools.errors import DeviceError, UsageError, ZonedError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.engine.nbd.handshake import Export, Session
    from zoned_tools.engine.nbd.shared import SharedVolume
    from zoned_tools.engine.nbd.stream import Stream

MIN_HOLE_BYTES = 64 << 10
"""Shorter holes inside a read are sent as zeroes: a chunk of their own costs more."""
SHORT_READ_BYTES = 64 << 10
"""Shorter reads are not looked up before: that they are zeroes is seen afterwards."""
MAX_DESCRIPTORS = 4096
"""Extents in one reply to BLOCK_STATUS; the client asks again for the rest."""

_BLOCK = LOGICAL_BLOCK_BYTES
_ZEROES = bytes(SHORT_READ_BYTES)
_READ, _WRITE, _FLUSH = int(Command.READ), int(Command.WRITE), int(Command.FLUSH)
_FUA, _DF = int(CommandFlag.FUA), int(CommandFlag.DF)
_ALLOWED_FLAGS: dict[int, int] = {  # plain numbers: arithmetic of enumerations is slow
    _READ: int(CommandFlag.FUA | CommandFlag.DF),
    _WRITE: _FUA,
    _FLUSH: _FUA,
    int(Command.TRIM): _FUA,
    int(Command.WRITE_ZEROES): int(CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO),
    int(Command.BLOCK_STATUS): int(CommandFlag.FUA | CommandFlag.REQ_ONE),
}
_CHANGING = frozenset({_WRITE, int(Command.TRIM), int(Command.WRITE_ZEROES)})


class Request(NamedTuple):
    """One command as it came over the wire."""

    magic: int
    flags: int
    command: int
    cookie: int
    offset_bytes: int
    length_bytes: int


class LongReply:
    """Memory for one reply that has to be in one piece and is longer than a stream's buffer."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._memory: memoryview | None = None
        self._taken = threading.Lock()

    def take(self) -> memoryview | None:
        """The memory, until :meth:`give_back`; None while another connection has it."""
        if not self._taken.acquire(blocking=False):
            return None
        if self._memory is None:
            self._memory = memoryview(bytearray(self._size_bytes))
        return self._memory

    def give_back(self) -> None:
        self._taken.release()


class Requests:
    """Carries out the requests of one connection."""

    def __init__(
        self, volume: SharedVolume, export: Export, session: Session, stream: Stream, long_reply: LongReply
    ) -> None:
        self._volume = volume
        self._export = export
        self._structured = session.structured
        self._allocation_context = session.allocation_context
        self._stream = stream
        self._long_reply = long_reply

    def perform(self, request: Request) -> None:
        """Carry out ``request`` and put the reply; failures of the mapper become error replies.

        Raises:
            ProtocolError: the connection cannot go on.
        """
        unread = request.length_bytes if request.command == _WRITE else 0
        if unread > self._export.maximum_bytes:
            raise ProtocolError(f"a write of {unread} bytes")
        try:
            try:
                self._check(request)
            except ZonedError:
                self._stream.skip(unread)
                raise
            self._run(request)
        except (ZonedError, MemoryError) as error:
            self._fail(request, wire.wire_error(error), str(error) or type(error).__name__)

    def _fail(self, request: Request, error: int, message: str) -> None:
        """An error reply, with the message where the client can take it."""
        if self._structured:
            self._stream.put(wire.error_chunk(request.cookie, error, message))
        else:
            self._stream.put(wire.simple_reply(request.cookie, error))

    def _check(self, request: Request) -> None:
        """Refuse what the protocol does not allow.

        Raises:
            UsageError, DeviceError: with the error number that the protocol wants.
        """
        command, length = request.command, request.length_bytes
        allowed = _ALLOWED_FLAGS.get(command)
        if allowed is None:
            raise UsageError(f"unknown command {command}")
        if request.flags & ~allowed or (request.flags & _DF and command == _READ and not self._structured):
            raise UsageError(f"flags {request.flags:#x} are not for this command")
        if command in _CHANGING and not self._export.writable:
            raise DeviceError("the export is read-only", errno=errno.EPERM)
        if command != _FLUSH and not self._volume.contains(request.offset_bytes, length):
            beyond = command in (Command.WRITE, Command.WRITE_ZEROES)
            raise DeviceError("the range is not on the device", errno=errno.ENOSPC if beyond else errno.EINVAL)
        if command == _READ and length > self._export.maximum_bytes:
            raise DeviceError("the request is too long", errno=errno.EOVERFLOW)
        if command == Command.BLOCK_STATUS and not (self._allocation_context and length):
            raise UsageError("no metadata context was negotiated, or the range is empty")

    def _run(self, request: Request) -> None:
        if request.command == _READ:
            self._read(request)
            return
        if request.command == Command.BLOCK_STATUS:
            self._block_status(request)
            return
        self._change(request)
        if request.command == _FLUSH or request.flags & _FUA:
            self._volume.flush()
        self._stream.put(wire.simple_reply(request.cookie))

    # -- changes

    def _change(self, request: Request) -> None:
        match request.command:
            case Command.WRITE:
                self._write(request.offset_bytes, request.length_bytes)
            case Command.TRIM:
                self._volume.discard(request.offset_bytes, request.length_bytes)
            case Command.WRITE_ZEROES:
                allocate = bool(request.flags & CommandFlag.NO_HOLE)
                if allocate and request.flags & CommandFlag.FAST_ZERO:
                    raise DeviceError("allocated zeroes have to be written", errno=errno.ENOTSUP)
                self._volume.zero(request.offset_bytes, request.length_bytes, allocate=allocate)

    def _write(self, offset: int, length: int) -> None:
        """Write what the client sends, piece by piece; after a failure the rest passes unwritten."""
        for at, count in _pieces(offset, length, TAKEN_BYTES):
            data = self._stream.take(count)
            try:
                self._volume.write(at, data)
            except (ZonedError, MemoryError):
                self._stream.skip(offset + length - at - count)
                raise

    # -- reads

    def _read(self, request: Request) -> None:
        offset, length = request.offset_bytes, request.length_bytes
        if length <= SHORT_READ_BYTES:
            self._read_short(request)
        elif not self._structured:
            self._read_whole(request)
        else:
            parts = self._parts(offset, length)
            if request.flags & _DF and len(parts) > 1:
                parts = [(offset, length, True)]
            if request.flags & _DF and parts[0][2]:
                self._read_whole(request)
                return
            for start, count, stored in parts:
                if stored:
                    self._read_data(request.cookie, start, count)
                else:
                    self._stream.put(wire.hole_chunk(request.cookie, start, count))
            self._stream.put(wire.end_chunk(request.cookie))

    def _read_short(self, request: Request) -> None:
        """The way of most requests: one read, one reply."""
        _, _, _, cookie, offset, length = request
        if not length:
            self._stream.put(wire.end_chunk(cookie) if self._structured else wire.simple_reply(cookie))
            return
        data = self._fetch(offset, length)
        if not self._structured:
            self._stream.put(wire.simple_reply(cookie), data)
        elif data[0] == 0 == data[-1] and bytes(data) == _ZEROES[:length]:
            self._stream.put(wire.hole_chunk(cookie, offset, length), wire.end_chunk(cookie))
        else:
            self._stream.put(wire.data_chunk(cookie, offset, length), data, wire.end_chunk(cookie))

    def _fetch(self, offset: int, length: int) -> memoryview:
        """A piece in the stream's memory."""
        skip = offset % _BLOCK
        room = self._stream.room(-(-(skip + length) // _BLOCK) * _BLOCK)
        self._volume.read_into(offset - skip, room)
        return room if len(room) == length else room[skip : skip + length]

    def _read_data(self, cookie: int, offset: int, length: int) -> None:
        """Data as chunks, one for each piece."""
        for at, count in _pieces(offset, length, PIECE_BYTES):
            data = self._fetch(at, count)
            self._stream.put(wire.data_chunk(cookie, at, count), data)

    def _read_whole(self, request: Request) -> None:
        """A reply of one piece."""
        _, _, _, cookie, offset, length = request
        header = wire.data_chunk(cookie, offset, length) if self._structured else wire.simple_reply(cookie)
        memory = self._long_reply.take() if length > PIECE_BYTES else None
        if memory is not None:
            try:
                self._stream.flush()
                self._stream.put(header, *self._fetch_long(offset, length, memory))
                self._stream.flush()
            finally:
                self._long_reply.give_back()
        else:
            self._read_as_sent(header, offset, length)
        if self._structured:
            self._stream.put(wire.end_chunk(cookie))

    def _fetch_long(self, offset: int, length: int, memory: memoryview) -> Iterator[memoryview]:
        at = 0
        for start, count in _pieces(offset, length, PIECE_BYTES):
            skip = start % _BLOCK
            room = memory[at : at + -(-(skip + count) // _BLOCK) * _BLOCK]
            self._volume.read_into(start - skip, room)
            yield room[skip : skip + count]
            at += len(room)

    def _read_as_sent(self, header: bytes, offset: int, length: int) -> None:
        """Piece after piece. Only the first may still fail with an error reply."""
        for at, count in _pieces(offset, length, PIECE_BYTES):
            try:
                data = self._fetch(at, count)
            except (ZonedError, MemoryError) as error:
                if at == offset:
                    raise
                raise ProtocolError(f"a read failed in the middle of its reply: {error}") from None
            if at == offset:
                self._stream.put(header)
            self._stream.put(data)

    def _parts(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """Data and holes of a read, short holes counted as data."""
        parts = []
        data_start, end = offset, offset + length
        for start, count, stored in self._volume.extents(offset, length, length // _BLOCK + 2):
            if stored or (count < MIN_HOLE_BYTES and count < length):
                continue
            if start > data_start:
                parts.append((data_start, start - data_start, True))
            parts.append((start, count, False))
            data_start = start + count
        if data_start < end:
            parts.append((data_start, end - data_start, True))
        return parts

    def _block_status(self, request: Request) -> None:
        limit = 1 if request.flags & CommandFlag.REQ_ONE else MAX_DESCRIPTORS
        payload = bytearray(wire.LENGTH.pack(wire.ALLOCATION_CONTEXT_ID))
        for _, length, stored in self._volume.extents(request.offset_bytes, request.length_bytes, limit):
            payload += wire.DESCRIPTOR.pack(length, 0 if stored else wire.STATE_HOLE | wire.STATE_ZERO)
        room = self._stream.room(len(payload))  # so that many replies are bounded together
        room[:] = payload
        self._stream.put(wire.chunk_header(Chunk.BLOCK_STATUS, request.cookie, len(payload), done=True), room)


def _pieces(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """A range in pieces that begin, but for the first, at whole blocks."""
    end = offset + length
    while offset < end:
        count = min(end - offset, most - offset % _BLOCK)
        yield offset, count
        offset += count
