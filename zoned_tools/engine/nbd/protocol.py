"""Numbers and records of the NBD protocol.

Source: the protocol document of the NetworkBlockDevice project (``doc/proto.md``, public
domain). All integers on the wire are big-endian.
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum, IntFlag

from zoned_tools.errors import DeviceError, RefusedError, UsageError

SERVER_MAGIC = 0x4E42444D41474943
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

GREETING = struct.Struct(">QQH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, reply type, length
EXPORT_NAME_REPLY = struct.Struct(">QH")  # size in bytes, transmission flags
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
CHUNK = struct.Struct(">IHHQI")  # magic, flags, type, cookie, payload length
LENGTH = struct.Struct(">I")
COUNT = struct.Struct(">H")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
CHUNK_ERROR = struct.Struct(">IH")
DESCRIPTOR = struct.Struct(">II")
_DATA = struct.Struct(">IHHQIQ")  # a chunk with the offset of its data
_HOLE = struct.Struct(">IHHQIQI")  # a chunk with the offset and length of a hole

RESERVED_ZEROES = bytes(124)
MAX_STRING_BYTES = 4096
ALLOCATION_CONTEXT = "base:allocation"
ALLOCATION_CONTEXT_ID = 1


class HandshakeFlag(IntFlag):
    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class TransmissionFlag(IntFlag):
    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERROR_UNSUPPORTED = (1 << 31) + 1
    ERROR_INVALID = (1 << 31) + 3
    ERROR_TLS_REQUIRED = (1 << 31) + 5
    ERROR_UNKNOWN = (1 << 31) + 6
    ERROR_TOO_BIG = (1 << 31) + 9


class Info(IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class Chunk(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1


CHUNK_DONE = 1
_OFFSET_DATA = int(Chunk.OFFSET_DATA)
STATE_HOLE, STATE_ZERO = 1, 2

_WIRE_ERRORS = frozenset(
    {
        errno.EPERM,
        errno.EIO,
        errno.ENOMEM,
        errno.EINVAL,
        errno.ENOSPC,
        errno.EOVERFLOW,
        errno.ENOTSUP,
        errno.ESHUTDOWN,
    }
)
_NEAREST = {
    errno.EROFS: errno.EPERM,
    errno.EBADF: errno.EPERM,
    errno.EACCES: errno.EPERM,
    errno.EDQUOT: errno.ENOSPC,
    errno.EFBIG: errno.ENOSPC,
}


class ProtocolError(Exception):
    """The client breaks the protocol in a way that only closing the connection answers."""


def wire_error(error: Exception) -> int:
    """The protocol's error number for a failure; the protocol allows eight of them."""
    match error:
        case DeviceError(errno=number) | OSError(errno=int(number)):
            nearest = _NEAREST.get(number, number)
            return nearest if nearest in _WIRE_ERRORS else errno.EIO
        case RefusedError():
            return errno.EPERM
        case UsageError():
            return errno.EINVAL
        case MemoryError():
            return errno.ENOMEM
        case _:
            return errno.EIO


def simple_reply(cookie: int, error: int = 0) -> bytes:
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def chunk_header(kind: Chunk, cookie: int, length_bytes: int, *, done: bool = False) -> bytes:
    return CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE if done else 0, kind, cookie, length_bytes)


def data_chunk(cookie: int, offset_bytes: int, length_bytes: int) -> bytes:
    """What comes before ``length_bytes`` of data."""
    return _DATA.pack(STRUCTURED_REPLY_MAGIC, 0, _OFFSET_DATA, cookie, 8 + length_bytes, offset_bytes)


def hole_chunk(cookie: int, offset_bytes: int, length_bytes: int) -> bytes:
    return _HOLE.pack(STRUCTURED_REPLY_MAGIC, 0, Chunk.OFFSET_HOLE, cookie, 12, offset_bytes, length_bytes)


def end_chunk(cookie: int) -> bytes:
    """The end of a reply that had no error."""
    return CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, 0, cookie, 0)


def error_chunk(cookie: int, error: int, message: str) -> bytes:
    text = message.encode("utf-8", "replace")[:MAX_STRING_BYTES]
    payload = CHUNK_ERROR.pack(error, len(text)) + text
    return chunk_header(Chunk.ERROR, cookie, len(payload), done=True) + payload
