"""``zoned serve``: the logical device over NBD."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.documents import announce, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Json,
    LayoutName,
    Mapfiles,
    Settings,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.output import note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import DeviceError, UsageError, ZonedError
from zoned_tools.formats.shared.settings import Journey
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from socket import socket
    from ssl import SSLContext

    from zoned_tools.formats.contract import Mapper, Target


Write = Annotated[bool, typer.Option("--write", "-w", help="Let clients write; without it they only read.")]
Socket = Annotated[
    str | None,
    typer.Option(
        "--socket", metavar="PATH", help="Unix socket (default: in a new private directory).", show_default=False
    ),
]
Tcp = Annotated[
    str | None,
    typer.Option(
        "--tcp",
        metavar="[HOST:]PORT",
        help="TCP on the loopback interface instead; port 0 takes a free one.",
        show_default=False,
    ),
]
AllowUid = Annotated[
    list[int] | None,
    typer.Option("--allow-uid", metavar="N", min=0, help="This user may connect too.", show_default=False),
]
Certificates = Annotated[
    str | None,
    typer.Option(
        "--tls-certificates",
        metavar="DIR",
        help="TLS with server-cert.pem, server-key.pem and ca-cert.pem of DIR, for clients with a certificate.",
        show_default=False,
    ),
]
Keys = Annotated[
    str | None,
    typer.Option(
        "--tls-psk",
        metavar="FILE",
        help="TLS for clients with a key of FILE (lines of NAME:KEY); needs Python 3.13.",
        show_default=False,
    ),
]
InsecureTcp = Annotated[
    bool, typer.Option("--insecure-tcp", help="Let everybody on this machine connect over TCP without TLS.")
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Export name beside the default one.")]
Once = Annotated[bool, typer.Option("--once", help="Stop when the last client disconnects.")]


@dataclass(frozen=True, slots=True)
class _Access:
    """Where clients connect, and which ones may."""

    unix: str | None
    tcp: str | None
    uids: tuple[int, ...]
    certificates: str | None
    keys: str | None
    insecure: bool

    def check(self) -> None:
        """Refuse what excludes each other."""
        if self.unix is not None and self.tcp is not None:
            raise UsageError("--socket and --tcp exclude each other")
        if self.certificates is not None and self.keys is not None:
            raise UsageError("--tls-certificates and --tls-psk exclude each other")
        if self.tcp is None and self.insecure:
            raise UsageError("--insecure-tcp is for --tcp")

    @property
    def everybody(self) -> bool:
        """Whoever reaches the port may connect: TLS proves who they are, or the user said so."""
        return self.insecure or (self.tcp is not None and self.encrypted)

    @property
    def encrypted(self) -> bool:
        return self.certificates is not None or self.keys is not None

    def tls(self) -> SSLContext | None:
        if self.certificates is not None:
            from zoned_tools.engine.nbd.tls import certificates_context

            return certificates_context(self.certificates)
        if self.keys is not None:
            from zoned_tools.engine.nbd.tls import keys_context

            return keys_context(self.keys)
        return None

    def listener(self) -> AbstractContextManager[tuple[socket, str]]:
        from zoned_tools.engine.nbd.sockets import tcp_listener, unix_listener

        if self.tcp is not None:
            return tcp_listener(self.tcp, tls=self.encrypted)
        return unix_listener(self.unix, for_others=bool(self.uids), tls=self.encrypted)


@takes_settings(Journey.LOGICAL)
@prints("serve")
def serve(
    devices: DevicePaths,
    *,
    write: Write = False,
    unix: Socket = None,
    allow_uid: AllowUid = None,
    tcp: Tcp = None,
    insecure_tcp: InsecureTcp = False,
    tls_certificates: Certificates = None,
    tls_psk: Keys = None,
    name: Name = "",
    once: Once = False,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Serve the logical device over NBD, until SIGINT or SIGTERM."""
    from zoned_tools.engine.nbd import Server
    from zoned_tools.engine.nbd import serve as run
    from zoned_tools.engine.opening import opened_target

    check_layout_name(layout)
    access = _Access(unix, tcp, tuple(allow_uid or ()), tls_certificates, tls_psk, insecure_tcp)
    access.check()
    if not name.isprintable() or len(name.encode()) > 256:
        raise UsageError("--name: not printable text of at most 256 bytes")
    tls = access.tls()
    paths, chosen = split_settings(devices, settings)
    if not write:
        note_use(paths)
    with (
        opened_target(
            paths, start, layout, writable=write, mapfiles=mapfile or (), by_content=zones == "content"
        ) as target,
        access.listener() as (listener, uri),
    ):
        exports = list(_exports(target, chosen, name, writable=write))
        mapper = exports[0][1]
        server = Server(
            mapper,
            name=exports[0][0],
            others=exports[1:],
            description=visible(f"{target.layout} on {', '.join(target.paths)}"),
            log=lambda line: _complain(target, line),
            stop_when_unused=once,
            when_idle=_idle_work(mapper),
            tls=tls,
            allowed_uids=access.uids,
            everybody=access.everybody,
        )
        failure = run(server, listener, lambda: _announce(target, exports, uri, json=json))
    if failure is not None:
        raise DeviceError(failure.message, device=target.device.path, errno=errno.EIO)
    return 0


def _exports(target: Target, settings: Mapping[str, str], name: str, *, writable: bool) -> Iterator[tuple[str, Mapper]]:
    """Names and mappers of what is served; what of them cannot be read is told."""
    from zoned_tools.engine.logical import open_logical
    from zoned_tools.engine.losses import KnownLosses, describe_losses, find_losses
    from zoned_tools.engine.views import has_views, open_views, place_text

    if not has_views(target):
        mapper = open_logical(target, writable=writable, settings=settings)
        shown = [(name, mapper)]
    else:
        if writable:
            raise UsageError(f"{target.layout} is served read-only", device=target.device.path)
        views = open_views(target, settings)
        if name and len(views) > 1:
            raise UsageError(f"{len(views)} devices are served by their own names, without --name")
        shown = [(name if len(views) == 1 else view.name, view.mapper) for view in views]
        for view in views:
            for row in view.gone:
                _complain(target, f"{view.name}: {row.length_bytes} bytes{place_text(view, row)}: {row.reason}, a hole")
    for called, mapper in shown:
        print_warnings(mapper, target)
        known = KnownLosses(target, find_losses(target, mapper))
        if known.rows:
            _complain(target, f"{describe_losses(known.rows)}: clients get EIO for them")
        yield called, mapper


def _complain(target: Target, line: str) -> None:
    from zoned_tools.report.stream import write_line

    write_line(ZonedError(line, device=target.device.path).render("zoned"), sys.stderr)


def _idle_work(mapper: Mapper) -> Callable[[], object] | None:
    """What the server does while no client asks for anything, beside making changes durable."""
    from zoned_tools.formats.contract import Reclaims

    return mapper.reclaim if isinstance(mapper, Reclaims) and mapper.reclaims_when_idle else None


def _announce(target: Target, exports: Sequence[tuple[str, Mapper]], uri: str, *, json: bool) -> None:
    """Say where clients find the server; a script waits for this line."""
    from zoned_tools.report.stream import write_line

    if json:
        from zoned_tools.report.documents.logical import serve_document

        announce(serve_document(target, exports, uri))
    else:
        write_line(uri)
    sys.stdout.flush()
