"""Listening sockets for the NBD server: Unix domain, or TCP on the loopback interface."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import struct
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from zoned_tools.errors import BusyError, DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BACKLOG = 64
_PEER = struct.Struct("iII")  # process, user, group


def peer_uid(connected: socket.socket) -> int | None:
    """The user at the other end of a Unix or loopback TCP socket; None when that cannot be found out."""
    if connected.family == socket.AF_UNIX:
        _, uid, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return int(uid)
    try:
        return _owner_of_tcp(connected.getpeername(), connected.getsockname())
    except OSError:
        return None


def _owner_of_tcp(theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The owner of the client's end, from the kernel's table of sockets of this network (proc(5), /proc/net/tcp)."""
    wanted = (_in_table(theirs), _in_table(ours))
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 7 and (fields[1], fields[2]) == wanted:
                    return int(fields[7])
    return None


def _in_table(address: tuple[str, int]) -> str:
    """An address as the table has it: 32-bit words in the machine's order, hexadecimal."""
    packed = ipaddress.ip_address(address[0]).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


@contextmanager
def unix_listener(
    path: str | None, *, for_others: bool = False, tls: bool = False
) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket that only its owner can connect to, and its URI; removed at the end.

    Without ``path`` it lies in a new private directory under ``XDG_RUNTIME_DIR`` or the
    directory for temporary files. A socket that a dead server left is replaced.

    Args:
        for_others: other users can connect too; the server looks who they are.
        tls: the URI says that clients have to encrypt.

    Raises:
        BusyError: another server listens there.
        DeviceError: it cannot be made.
    """
    directory = None
    if path is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        directory = tempfile.mkdtemp(prefix="zoned-", dir=runtime if os.path.isdir(runtime) else None)
        if for_others:
            os.chmod(directory, 0o711)  # noqa: S103 - whoever knows the socket's name may reach it
        path = os.path.join(directory, "nbd.sock")
    path = os.path.abspath(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind_unix(listener, path, 0o111 if for_others else 0o177)
        identity = _identity(path)
        try:
            yield listener, f"{_scheme(tls=tls)}+unix:///?socket={quote(path)}"
        finally:
            if _identity(path) == identity:  # not another server's that took the place meanwhile
                os.unlink(path)
    finally:
        listener.close()
        if directory is not None:
            with suppress(OSError):
                os.rmdir(directory)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _scheme(*, tls: bool) -> str:
    return "nbds" if tls else "nbd"


def _bind_unix(listener: socket.socket, path: str, umask: int) -> None:
    _remove_dead_socket(path)
    before = os.umask(umask)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        if error.errno is None:  # the address family limits paths to about 100 bytes
            raise UsageError(f"the path of a Unix socket cannot be that long: {path}") from None
        raise DeviceError.from_os_error(error, path, "cannot listen") from None
    finally:
        os.umask(before)


def _remove_dead_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise DeviceError("already exists and is no socket", device=path, errno=errno.EEXIST)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot listen") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot listen") from None
    raise BusyError("another server listens there", device=path, errno=errno.EADDRINUSE)


@contextmanager
def tcp_listener(address: str, *, tls: bool = False) -> Iterator[tuple[socket.socket, str]]:
    """A TCP socket on a loopback address, and its URI. ``address`` is ``[HOST:]PORT``; port 0 takes a free one.

    Raises:
        UsageError: the address is malformed or not a loopback one.
        DeviceError: it cannot be made.
    """
    host, port = parse_tcp_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise DeviceError.from_os_error(error, address, "cannot listen") from None
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        yield listener, f"{_scheme(tls=tls)}://{shown}:{listener.getsockname()[1]}"


def parse_tcp_address(address: str) -> tuple[str, int]:
    """``(host, port)`` of ``[HOST:]PORT``, ``[::1]:PORT`` or ``:PORT``."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else ""
    if host in ("", "localhost"):
        host = "127.0.0.1"
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"'{address}' is not a TCP address", hint="[HOST:]PORT with a loopback HOST")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"'{host}' is not a loopback address", hint="the server has no access control; forward a port with ssh"
        )
    return host, int(port)
