"""Requests of an NBD client, carried out on a volume.

:class:`Requests` is synchronous and knows no sockets: each call takes a request that was
checked for its form and returns the reply as buffers to send.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from zoned_tools.device.base import Buffer
from zoned_tools.engine import nbd_protocol as wire
from zoned_tools.engine.nbd_handshake import Export, Session
from zoned_tools.engine.nbd_protocol import Chunk, Command, CommandFlag
from zoned_tools.engine.volume import Volume
from zoned_tools.errors import DeviceError, UsageError, ZonedError

MIN_HOLE_BYTES = 64 << 10
"""Shorter holes inside a read are sent as zeroes: a chunk of their own costs more."""
MAX_DESCRIPTORS = 4096
"""Extents in one reply to BLOCK_STATUS; the client asks again for the rest."""

_ALLOWED_FLAGS = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
CHANGING_COMMANDS = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})


@dataclass(frozen=True, slots=True)
class Request:
    """One command as it came over the wire."""

    flags: int
    command: int
    cookie: int
    offset_bytes: int
    length_bytes: int
    data: Buffer = b""


class Requests:
    """Carries out the requests of one connection."""

    def __init__(self, volume: Volume, export: Export, session: Session) -> None:
        self._volume = volume
        self._export = export
        self._session = session

    def perform(self, request: Request) -> list[Buffer]:
        """The reply to ``request``; failures of the mapper become error replies."""
        try:
            self._check(request)
            return self._run(request)
        except (ZonedError, OSError, MemoryError) as error:
            return [self.failure(request, wire.wire_error(error), str(error) or type(error).__name__)]

    def failure(self, request: Request, error: int, message: str) -> bytes:
        """An error reply, with the message where the client can take it."""
        if self._session.structured:
            return wire.error_chunk(request.cookie, error, message)
        return wire.simple_reply(request.cookie, error)

    def _check(self, request: Request) -> None:
        """Refuse what the protocol does not allow.

        Raises:
            UsageError, DeviceError: with the error number that the protocol wants.
        """
        try:
            command = Command(request.command)
        except ValueError:
            raise UsageError(f"unknown command {request.command}") from None
        allowed = _ALLOWED_FLAGS.get(command, CommandFlag(0))
        if request.flags & ~int(allowed) or (request.flags & CommandFlag.DF and not self._session.structured):
            raise UsageError(f"flags {request.flags:#x} are not for this command")
        if command in CHANGING_COMMANDS and not self._export.writable:
            raise DeviceError("the export is read-only", errno=errno.EPERM)
        if command is Command.FLUSH:
            return
        if not self._volume.contains(request.offset_bytes, request.length_bytes):
            beyond = command in (Command.WRITE, Command.WRITE_ZEROES)
            raise DeviceError("the range is not on the device", errno=errno.ENOSPC if beyond else errno.EINVAL)
        if command is Command.READ and request.length_bytes > self._export.maximum_bytes:
            raise DeviceError("the request is too long", errno=errno.EOVERFLOW)
        if command is Command.BLOCK_STATUS and not (self._session.allocation_context and request.length_bytes):
            raise UsageError("no metadata context was negotiated, or the range is empty")

    def _run(self, request: Request) -> list[Buffer]:
        volume, flags = self._volume, request.flags
        match request.command:
            case Command.READ:
                return self._read(request)
            case Command.BLOCK_STATUS:
                return self._block_status(request)
            case Command.WRITE:
                volume.write(request.offset_bytes, request.data)
            case Command.TRIM:
                volume.discard(request.offset_bytes, request.length_bytes)
            case Command.WRITE_ZEROES:
                allocate = bool(flags & CommandFlag.NO_HOLE)
                if allocate and flags & CommandFlag.FAST_ZERO:
                    raise DeviceError("allocated zeroes have to be written", errno=errno.ENOTSUP)
                volume.zero(request.offset_bytes, request.length_bytes, allocate=allocate)
        if request.command == Command.FLUSH or (flags & CommandFlag.FUA and self._export.writable):
            volume.mapper.flush()
        return [wire.simple_reply(request.cookie)]

    def _read(self, request: Request) -> list[Buffer]:
        offset, length = request.offset_bytes, request.length_bytes
        if not self._session.structured:
            return [wire.simple_reply(request.cookie), self._volume.read(offset, length)]
        parts = list(self._read_parts(request)) if length else []
        if request.flags & CommandFlag.DF and len(parts) > 1:
            parts = [(offset, length, True)]
        reply: list[Buffer] = []
        for start, count, stored in parts:
            if stored:
                payload_bytes = wire.CHUNK_OFFSET.size + count
                reply.append(wire.chunk_header(Chunk.OFFSET_DATA, request.cookie, payload_bytes))
                reply.append(wire.CHUNK_OFFSET.pack(start))
                reply.append(self._volume.read(start, count))
            else:
                reply.append(wire.chunk_header(Chunk.OFFSET_HOLE, request.cookie, wire.CHUNK_HOLE.size))
                reply.append(wire.CHUNK_HOLE.pack(start, count))
        reply.append(wire.chunk_header(Chunk.NONE, request.cookie, 0, done=True))
        return reply

    def _read_parts(self, request: Request) -> Iterator[tuple[int, int, bool]]:
        """Data and holes of a read, short holes counted as data."""
        offset, end = request.offset_bytes, request.offset_bytes + request.length_bytes
        data_start = offset
        for start, length, stored in self._volume.extents(offset, request.length_bytes):
            if stored or (length < MIN_HOLE_BYTES and length < request.length_bytes):
                continue
            if start > data_start:
                yield data_start, start - data_start, True
            yield start, length, False
            data_start = start + length
        if data_start < end:
            yield data_start, end - data_start, True

    def _block_status(self, request: Request) -> list[Buffer]:
        limit = 1 if request.flags & CommandFlag.REQ_ONE else MAX_DESCRIPTORS
        descriptors = bytearray()
        for count, (_, length, stored) in enumerate(
            self._volume.extents(request.offset_bytes, request.length_bytes), start=1
        ):
            descriptors += wire.DESCRIPTOR.pack(length, 0 if stored else wire.STATE_HOLE | wire.STATE_ZERO)
            if count == limit:
                break
        payload = wire.LENGTH.pack(wire.ALLOCATION_CONTEXT_ID) + descriptors
        return [wire.chunk_header(Chunk.BLOCK_STATUS, request.cookie, len(payload), done=True), payload]
