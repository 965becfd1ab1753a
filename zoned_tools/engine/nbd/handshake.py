"""The handshake of an NBD connection: fixed newstyle option haggling."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.engine.nbd import protocol as wire
from zoned_tools.engine.nbd.protocol import HandshakeFlag, Info, Option, ProtocolError, Reply, TransmissionFlag

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from zoned_tools.engine.nbd.stream import Stream

MAX_OPTION_BYTES = 64 << 10
"""Option data that are read; no sensible option is longer."""
SKIPPED_OPTION_BYTES = 1 << 20
"""Longer data are not even skipped: the connection is closed."""


@dataclass(frozen=True, slots=True)
class Export:
    """What the server offers.

    Attributes:
        name: the first export of a server is also answered to under the empty (default) name.
        description: for humans, shown by clients.
        minimum_bytes, preferred_bytes, maximum_bytes: block sizes told to clients.
    """

    size_bytes: int
    writable: bool
    name: str = ""
    description: str = ""
    minimum_bytes: int = 512
    preferred_bytes: int = 4096
    maximum_bytes: int = 32 << 20

    def flags(self, *, structured: bool) -> TransmissionFlag:
        """Transmission flags; all connections share one mapper, so flushes cover every one of them."""
        flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
        flags |= TransmissionFlag.CAN_MULTI_CONN
        if structured:
            flags |= TransmissionFlag.SEND_DF
        if not self.writable:
            return flags | TransmissionFlag.READ_ONLY
        return flags | TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES | TransmissionFlag.SEND_FAST_ZERO


@dataclass(slots=True)
class Session:
    """What client and server agreed on."""

    structured: bool = False
    allocation_context_of: str | None = None
    """Export name for which ``base:allocation`` was selected."""
    allocation_context: bool = False
    export: str = ""
    """Name of the export that was chosen."""


class Handshake:
    """One connection's option haggling.

    Args:
        exports: the first is the default.
        tls: when given, nothing is told before the connection is encrypted.
    """

    def __init__(self, stream: Stream, exports: Sequence[Export], tls: ssl.SSLContext | None = None) -> None:
        self._stream = stream
        self._exports = {export.name: export for export in exports} | {"": exports[0]}
        self._names = list(dict.fromkeys(export.name for export in exports))
        self._session = Session()
        self._no_zeroes = False
        self._tls = tls
        self._must_encrypt = tls is not None

    def run(self) -> Session | None:
        """Negotiate; None when the client ended it.

        Raises:
            ProtocolError: the connection cannot go on.
            EOFError, OSError: the client went away.
        """
        offered = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
        self._stream.put(wire.GREETING.pack(wire.SERVER_MAGIC, wire.OPTION_MAGIC, offered))
        (flags,) = wire.CLIENT_FLAGS.unpack(self._stream.take(wire.CLIENT_FLAGS.size))
        if flags & ~int(offered):
            raise ProtocolError(f"unknown client flags {flags:#x}")
        self._no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
        while True:
            option, data = self._next_option()
            if option == Option.EXPORT_NAME:
                self._finish_by_name(data)
                return self._session
            ended, session = self._answer(option, data)
            if ended:
                self._stream.flush()
                return session

    def _next_option(self) -> tuple[int, bytes]:
        while True:
            magic, option, length = wire.OPTION.unpack(self._stream.take(wire.OPTION.size))
            if magic != wire.OPTION_MAGIC:
                raise ProtocolError("an option does not begin with its magic number")
            if length <= MAX_OPTION_BYTES:
                return option, bytes(self._stream.take(length))
            if length > SKIPPED_OPTION_BYTES or option == Option.EXPORT_NAME:
                raise ProtocolError(f"an option of {length} bytes")
            self._stream.skip(length)
            self._reply(option, Reply.ERROR_TOO_BIG, b"option is too long")

    def _reply(self, option: int, kind: Reply, data: bytes = b"") -> None:
        self._stream.put(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def _answer(self, option: int, data: bytes) -> tuple[bool, Session | None]:
        """Reply to one option; ``(haggling ended, session to go on with)``."""
        if option == Option.ABORT:
            self._reply(option, Reply.ACK)
            return True, None
        if option == Option.STARTTLS and self._tls is not None:
            self._encrypt(option, data, self._tls)
        elif self._must_encrypt:
            self._reply(option, Reply.ERROR_TLS_REQUIRED, b"this server wants TLS")
        elif option in (Option.INFO, Option.GO):
            if self._answer_info(option, data) and option == Option.GO:
                return True, self._session
        else:
            self._answer_other(option, data)
        return False, None

    def _answer_other(self, option: int, data: bytes) -> None:
        match option:
            case Option.LIST | Option.STRUCTURED_REPLY if data:
                self._reply(option, Reply.ERROR_INVALID, b"this option has no data")
            case Option.LIST:
                for name in (one.encode() for one in self._names):
                    self._reply(option, Reply.SERVER, wire.LENGTH.pack(len(name)) + name)
                self._reply(option, Reply.ACK)
            case Option.STRUCTURED_REPLY:
                self._session.structured = True
                self._reply(option, Reply.ACK)
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                self._answer_meta_context(option, data)
            case _:
                self._reply(option, Reply.ERROR_UNSUPPORTED, b"option is not supported")

    def _encrypt(self, option: int, data: bytes, tls: ssl.SSLContext) -> None:
        """Begin TLS; what was agreed on before is forgotten."""
        if data or not self._must_encrypt:
            self._reply(option, Reply.ERROR_INVALID, b"this option has no data" if data else b"TLS is in use already")
            return
        if self._stream.buffered:
            raise ProtocolError("something follows STARTTLS that is not encrypted")
        self._reply(option, Reply.ACK)
        try:
            self._stream.secure(tls)
        except ConnectionError:
            raise
        except OSError as error:
            raise ProtocolError(f"TLS could not be agreed on: {error}") from None
        self._must_encrypt = False
        self._session = Session()

    def _finish_by_name(self, data: bytes) -> None:
        name = _text(data)
        export = self._find(name)
        if self._must_encrypt or export is None:  # this option has no error reply
            raise ProtocolError("TLS was not begun" if self._must_encrypt else "there is no export of that name")
        self._select(name)
        flags = export.flags(structured=self._session.structured)
        self._stream.put(wire.EXPORT_NAME_REPLY.pack(export.size_bytes, flags))
        if not self._no_zeroes:
            self._stream.put(wire.RESERVED_ZEROES)

    def _find(self, name: str | None) -> Export | None:
        return None if name is None else self._exports.get(name)

    def _select(self, name: str | None) -> None:
        """Contexts hold only for the export name they were negotiated for."""
        self._session.export = name or ""
        self._session.allocation_context = name is not None and name == self._session.allocation_context_of

    def _answer_info(self, option: int, data: bytes) -> bool:
        parsed = _parse_info(data)
        if parsed is None:
            self._reply(option, Reply.ERROR_INVALID, b"malformed option")
            return False
        name, wanted = parsed
        export = self._find(name)
        if export is None:
            self._reply(option, Reply.ERROR_UNKNOWN, b"there is no export of that name")
            return False
        flags = export.flags(structured=self._session.structured)
        self._reply(option, Reply.INFO, wire.INFO_EXPORT.pack(Info.EXPORT, export.size_bytes, flags))
        sizes = (export.minimum_bytes, export.preferred_bytes, export.maximum_bytes)
        self._reply(option, Reply.INFO, wire.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes))
        if Info.NAME in wanted:
            self._reply(option, Reply.INFO, wire.COUNT.pack(Info.NAME) + export.name.encode())
        if Info.DESCRIPTION in wanted and export.description:
            self._reply(option, Reply.INFO, wire.COUNT.pack(Info.DESCRIPTION) + export.description.encode())
        self._reply(option, Reply.ACK)
        self._select(name)
        return True

    def _answer_meta_context(self, option: int, data: bytes) -> None:
        parsed = _parse_meta_context(data)
        if parsed is None or not self._session.structured:
            reason = b"malformed option" if parsed is None else b"structured replies come first"
            self._reply(option, Reply.ERROR_INVALID, reason)
            return
        name, queries = parsed
        if self._find(name) is None:
            self._reply(option, Reply.ERROR_UNKNOWN, b"there is no export of that name")
            return
        listing = option == Option.LIST_META_CONTEXT
        chosen = wire.ALLOCATION_CONTEXT in queries or (listing and (not queries or "base:" in queries))
        if not listing:
            self._session.allocation_context_of = name if chosen else None
        if chosen:
            number = 0 if listing else wire.ALLOCATION_CONTEXT_ID
            context = wire.LENGTH.pack(number) + wire.ALLOCATION_CONTEXT.encode()
            self._reply(option, Reply.META_CONTEXT, context)
        self._reply(option, Reply.ACK)


def _text(data: bytes) -> str | None:
    if len(data) > wire.MAX_STRING_BYTES:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _take_string(data: bytes, at: int) -> tuple[str | None, int]:
    """A string with its length before it, and where the next field begins."""
    (length,) = wire.LENGTH.unpack_from(data, at)
    end = at + wire.LENGTH.size + length
    if end > len(data):
        raise struct.error
    return _text(data[at + wire.LENGTH.size : end]), end


def _parse_info(data: bytes) -> tuple[str | None, frozenset[int]] | None:
    """Export name and requested information of INFO and GO; None when malformed."""
    try:
        name, at = _take_string(data, 0)
        (count,) = wire.COUNT.unpack_from(data, at)
        if len(data) != at + wire.COUNT.size * (1 + count):
            return None
        return name, frozenset(struct.unpack_from(f">{count}H", data, at + wire.COUNT.size))
    except struct.error:
        return None


def _parse_meta_context(data: bytes) -> tuple[str | None, list[str | None]] | None:
    """Export name and queries of LIST and SET_META_CONTEXT; None when malformed."""
    try:
        name, at = _take_string(data, 0)
        (count,) = wire.LENGTH.unpack_from(data, at)
        at += wire.LENGTH.size
        queries: list[str | None] = []
        while len(queries) < count:  # every query takes bytes, so this ends with the data
            query, at = _take_string(data, at)
            queries.append(query)
        return (name, queries) if at == len(data) else None
    except struct.error:
        return None
