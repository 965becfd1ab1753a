"""The NBD server with TLS, held to the clients that people use."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.engine.nbd_wire import FLUSH, INVALID, READ, UNSUPPORTED, Client
from tests.engine.serving import served
from tests.engine.volumes import BLOCK, MemoryMapper
from zoned_tools.engine.nbd.tls import certificates_context, keys_context
from zoned_tools.errors import DeviceError, UsageError

STARTTLS = 5
TLS_REQUIRED = 0x80000005
KEY = "5af1ab0a1f5b0c7ad0a3e2f1c4b5d697"
needs_keys = pytest.mark.skipif(sys.version_info < (3, 13), reason="Python knows no pre-shared keys before 3.13")


class Certificates(NamedTuple):
    """Directories as clients and servers take them."""

    server: Path
    client: Path
    stranger: Path


def openssl(*arguments: object) -> None:
    assert shutil.which("openssl"), "openssl is not installed"
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def make_authority(directory: Path) -> None:
    directory.mkdir()
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=authority"),
        *("-keyout", directory / "ca-key.pem", "-out", directory / "ca-cert.pem"),
    )


def make_certificate(authority: Path, directory: Path, who: str) -> None:
    directory.mkdir(exist_ok=True)
    shutil.copy(authority / "ca-cert.pem", directory)
    request, names = directory / "request.pem", directory / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", directory / f"{who}-key.pem", "-out", request),
    )
    openssl(
        *("x509", "-req", "-days", "30", "-in", request, "-CA", authority / "ca-cert.pem"),
        *("-CAkey", authority / "ca-key.pem", "-CAcreateserial", "-extfile", names),
        *("-out", directory / f"{who}-cert.pem"),
    )
    (directory / f"{who}-key.pem").chmod(0o600)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    root = tmp_path_factory.mktemp("tls")
    make_authority(root / "ours")
    make_authority(root / "theirs")
    made = Certificates(root / "server", root / "client", root / "stranger")
    make_certificate(root / "ours", made.server, "server")
    make_certificate(root / "ours", made.client, "client")
    make_certificate(root / "theirs", made.stranger, "client")
    shutil.copy(root / "ours" / "ca-cert.pem", made.stranger)  # it trusts the server, but not the other way round
    return made


@pytest.fixture
def data(mapper: MemoryMapper) -> MemoryMapper:
    mapper.blocks = {number: bytes([number + 1]) * BLOCK for number in range(64)}
    return mapper


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)


def test_clients_with_a_certificate_read_and_write(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates
) -> None:
    copies = tmp_path / "copy"
    with served(data, tmp_path / "s", tls=certificates_context(str(certificates.server))) as uri:
        assert uri.startswith("nbds+unix:///")
        full = f"{uri}&tls-certificates={certificates.client}&tls-verify-peer=false"
        done = run("nbdinfo", "--json", full)
        assert done.returncode == 0, done.stderr
        assert '"TLS": true' in done.stdout
        assert run("nbdcopy", full, copies).returncode == 0
        assert copies.read_bytes() == data.content()
        copies.write_bytes(bytes(reversed(data.content())))
        assert run("nbdcopy", copies, full).returncode == 0
    assert data.content() == copies.read_bytes()


def test_plain_clients_and_strangers_get_nothing(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates
) -> None:
    complaints: list[str] = []
    with served(data, tmp_path / "s", complaints=complaints, tls=certificates_context(str(certificates.server))) as uri:
        assert run("nbdinfo", uri.replace("nbds", "nbd")).returncode != 0
        stranger = run("nbdinfo", f"{uri}&tls-certificates={certificates.stranger}&tls-verify-peer=false")
        assert stranger.returncode != 0
        assert "export-size" not in stranger.stdout
    assert any("TLS could not be agreed on" in line for line in complaints)


@pytest.mark.parametrize("option", [3, 4, 6, 7, 8, 9, 10, 99])
def test_nothing_is_told_before_tls(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates, option: int
) -> None:
    with served(data, tmp_path / "s", tls=certificates_context(str(certificates.server))):
        client = Client(tmp_path / "s")
        assert client.option(option, bytes(6))[0][0] == TLS_REQUIRED
        assert client.option(STARTTLS, b"x")[0][0] == INVALID
        assert client.option(2) == [(1, b"")]


def test_an_export_name_without_tls_ends_the_connection(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates
) -> None:
    complaints: list[str] = []
    with served(data, tmp_path / "s", complaints=complaints, tls=certificates_context(str(certificates.server))):
        client = Client(tmp_path / "s")
        client.socket.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, 0))
        assert client.closed()
    assert complaints == ["connection closed: TLS was not begun"]


def test_what_follows_starttls_in_plain_is_not_taken_for_encrypted(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates
) -> None:
    complaints: list[str] = []
    with served(data, tmp_path / "s", complaints=complaints, tls=certificates_context(str(certificates.server))):
        client = Client(tmp_path / "s")
        client.socket.sendall(struct.pack(">8sII8sII", b"IHAVEOPT", STARTTLS, 0, b"IHAVEOPT", 8, 0))
        assert client.closed()
    assert complaints == ["connection closed: something follows STARTTLS that is not encrypted"]


def test_what_was_agreed_on_in_plain_is_forgotten(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates
) -> None:
    with served(data, tmp_path / "s", tls=certificates_context(str(certificates.server))):
        client = encrypted(Client(tmp_path / "s"), certificates)
        assert client.option(STARTTLS)[0][0] == INVALID, "once is enough"
        client.go(structured=False)
        for _ in range(300):  # many replies wait, and are sent in records
            client.send(READ, 0, 4 * BLOCK)
        for _ in range(300):
            assert client.simple() == 0
            assert client.take(4 * BLOCK) == data.content()[: 4 * BLOCK]
        client.send(FLUSH)
        assert client.simple() == 0


def encrypted(client: Client, certificates: Certificates) -> Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.client / "ca-cert.pem")
    context.load_cert_chain(certificates.client / "client-cert.pem", certificates.client / "client-key.pem")
    assert client.option(STARTTLS) == [(1, b"")]
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    return client


def test_a_client_that_stops_in_the_tls_handshake_is_cut_off(
    data: MemoryMapper, tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned_tools.engine.nbd.server.HANDSHAKE_SECONDS", 0.3)
    complaints: list[str] = []
    with served(data, tmp_path / "s", complaints=complaints, tls=certificates_context(str(certificates.server))):
        client = Client(tmp_path / "s")
        assert client.option(STARTTLS) == [(1, b"")]
        assert client.closed()
    assert complaints == ["connection closed: no export was chosen in time"]


def test_without_tls_it_is_not_offered(data: MemoryMapper, tmp_path: Path) -> None:
    with served(data, tmp_path / "s"):
        assert Client(tmp_path / "s").option(STARTTLS)[0][0] == UNSUPPORTED


# -- files of certificates and keys


def test_certificates_that_are_missing_open_or_wrong(tmp_path: Path, certificates: Certificates) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(certificates.server, copy)
    (copy / "server-key.pem").chmod(0o640)
    with pytest.raises(DeviceError, match="others can read"):
        certificates_context(str(copy))
    (copy / "server-key.pem").chmod(0o600)
    (copy / "server-cert.pem").write_text("nothing")
    with pytest.raises(UsageError, match="not a certificate"):
        certificates_context(str(copy))
    (copy / "ca-cert.pem").unlink()
    with pytest.raises(DeviceError, match="cannot open"):
        certificates_context(str(copy))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.psk"
    path.write_text(f"# clients\nalice:{KEY}\n")
    path.chmod(0o600)
    return path


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="this Python knows pre-shared keys")
def test_an_old_python_says_what_it_lacks(keys: Path) -> None:
    with pytest.raises(UsageError, match=r"needs Python 3\.13.*--tls-certificates"):
        keys_context(str(keys))


@needs_keys
def test_clients_with_a_key_are_let_in_and_others_are_not(data: MemoryMapper, tmp_path: Path, keys: Path) -> None:
    wrong = tmp_path / "wrong.psk"
    wrong.write_text(f"alice:{KEY[::-1]}\nbob:{KEY}\n")
    with served(data, tmp_path / "s", complaints=[], tls=keys_context(str(keys))) as uri:
        named = uri.replace("nbds+unix:///", "nbds+unix://{}@/")
        good = run("nbdcopy", f"{named.format('alice')}&tls-psk-file={keys}", tmp_path / "copy")
        assert good.returncode == 0, good.stderr
        for name in ("alice", "bob"):
            assert run("nbdinfo", f"{named.format(name)}&tls-psk-file={wrong}").returncode != 0
        assert run("nbdinfo", uri.replace("nbds", "nbd")).returncode != 0
    assert (tmp_path / "copy").read_bytes() == data.content()


@needs_keys
@pytest.mark.parametrize("content", ["", "alice\n", "alice:zz\n", ":" + KEY, "alice:" + KEY[:8], "x" * 300 + ":" + KEY])
def test_files_without_good_keys_are_refused(keys: Path, content: str) -> None:
    keys.write_text(content)
    with pytest.raises(UsageError):
        keys_context(str(keys))


@needs_keys
def test_keys_that_others_can_read_are_refused(keys: Path) -> None:
    keys.chmod(0o644)
    with pytest.raises(DeviceError, match="others can read"):
        keys_context(str(keys))


def test_ssl_is_loaded_only_for_tls() -> None:
    program = "import sys, zoned_tools.engine.nbd.server, zoned_tools.cli.commands.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"ssl", "asyncio", "http", "email"} & set(loaded)
    assert socket.__name__ in loaded
