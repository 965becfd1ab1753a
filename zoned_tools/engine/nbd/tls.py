"""TLS for the NBD server: certificates, or pre-shared keys where Python knows them.

The files have the names and forms that qemu, nbdkit and libnbd use. Either way a client has to prove that it
may connect: with a certificate of the same authority, or with a key. This is the only module that loads ``ssl``.
"""

from __future__ import annotations

import errno
import os
import ssl
import stat

from zoned_tools.errors import DeviceError, UsageError

MAX_KEY_FILE_BYTES = 1 << 20
MAX_NAME_BYTES = 128
MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 256


def certificates_context(directory: str) -> ssl.SSLContext:
    """A context of ``server-cert.pem``, ``server-key.pem`` and ``ca-cert.pem`` in ``directory``.

    Raises:
        DeviceError: a file cannot be read, or others can read the key.
        UsageError: the files do not hold a certificate, its key and an authority.
    """
    certificate, key, authority = (
        os.path.join(directory, name) for name in ("server-cert.pem", "server-key.pem", "ca-cert.pem")
    )
    for path in (certificate, authority):
        os.close(_open(path))
    os.close(_open_private(key))
    context = _context()
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"not a certificate, its key and an authority: {error}", device=directory) from None
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def keys_context(path: str) -> ssl.SSLContext:
    """A context that knows the clients named in ``path``: lines of ``NAME:KEY``, the key in hexadecimal digits.

    Raises:
        UsageError: Python is older than 3.13, or a line is malformed.
        DeviceError: the file cannot be read, or others can.
    """
    context = _context()
    if not hasattr(context, "set_psk_server_callback"):
        raise UsageError("--tls-psk needs Python 3.13 or later", hint="--tls-certificates works with this one")
    keys = _read_keys(path)
    context.set_ciphers("PSK")
    context.set_psk_server_callback(lambda name: keys.get(name or "", b""))
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_keys(path: str) -> dict[str, bytes]:
    with open(_open_private(path), "rb") as stream:
        content = stream.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise UsageError("too long for a file of keys", device=path)
    keys = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip() and not line.startswith(b"#"):
            name, key = _parse_key(line.strip(), f"{path}:{number}")
            keys[name] = key
    if not keys:
        raise UsageError("there is no key in it", device=path, hint="psktool -u NAME -p FILE makes one")
    return keys


def _parse_key(line: bytes, place: str) -> tuple[str, bytes]:
    name, colon, digits = line.rpartition(b":")
    try:
        key, text = bytes.fromhex(digits.decode("ascii")), name.decode("utf-8")
    except ValueError:
        key, text = b"", ""
    if not colon or not 0 < len(name) <= MAX_NAME_BYTES or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise UsageError(f"not NAME:KEY with a key of at least {2 * MIN_KEY_BYTES} hexadecimal digits", device=place)
    return text, key


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot open") from None


def _open_private(path: str) -> int:
    """Open a file that holds a secret."""
    descriptor = _open(path)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
        os.close(descriptor)
        raise DeviceError("others can read this key", device=path, hint="chmod 600", errno=errno.EPERM)
    return descriptor
