"""An NBD client of the wire format alone, and a server for it to talk to."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper

SIZE = 64 * BLOCK
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
UNSUPPORTED, INVALID, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 3, 6, 9))


class Client:
    """Speaks the wire format and keeps no rules of its own."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, path: Path, flags: int = 3) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.opened.append(self)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        assert self.take(8) == b"NBDMAGIC"
        assert self.take(8) == b"IHAVEOPT"
        assert self.take(2) == b"\0\3"
        self.socket.sendall(struct.pack(">I", flags))

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Replies up to the final one."""
        self.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3E889045565A9
            assert option == number
            replies.append((kind, self.take(length)))
            if kind == 1 or kind & 0x80000000:
                return replies

    def go(self, *, structured: bool = True, context: bool = True, name: bytes = b"") -> Client:
        named = struct.pack(">I", len(name)) + name
        if structured:
            assert self.option(8)[0][0] == 1
            if context:
                query = struct.pack(">II", 1, 15) + b"base:allocation"
                assert [kind for kind, _ in self.option(10, named + query)] == [4, 1]
        assert self.option(7, named + b"\0\0")[-1][0] == 1
        return self

    def send(self, command: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b"") -> None:
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, 77, offset, length) + data)

    def simple(self) -> int:
        """Error number of a simple reply."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        assert cookie == 77
        return int(error)

    def chunks(self) -> list[tuple[int, bytes]]:
        """``(type, payload)`` of a structured reply."""
        result = []
        while True:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.take(20))
            assert magic == 0x668E33EF
            assert cookie == 77
            result.append((kind, self.take(length)))
            if flags & 1:
                return result

    def error(self) -> int:
        """Error number of a reply that must be one structured error."""
        ((kind, payload),) = self.chunks()
        assert kind == 0x8001
        number, length = struct.unpack_from(">IH", payload)
        assert len(payload) == 6 + length > 6
        return int(number)

    def closed(self) -> bool:
        """True when the server has closed the connection and sent nothing more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()


@contextmanager
def connected(mapper: MemoryMapper, tmp_path: Path, flags: int = 3) -> Iterator[Client]:
    with served(mapper, tmp_path / "s"):
        client = Client(tmp_path / "s", flags)
        try:
            yield client
        finally:
            client.close()
