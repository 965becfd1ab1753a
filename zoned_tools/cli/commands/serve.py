"""``zoned serve``: the logical device over NBD."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.options import DevicePaths, Json, LayoutName, Settings, Start, check_layout_name
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.settings import Journey

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from socket import socket

    from zoned_tools.engine.nbd import Server
    from zoned_tools.formats.contract import Mapper, Target


@takes_settings(Journey.LOGICAL)
def serve(
    devices: DevicePaths,
    write: Annotated[bool, typer.Option("--write", "-w", help="Let clients write; without it they only read.")] = False,
    unix: Annotated[
        str | None,
        typer.Option(
            "--socket", metavar="PATH", help="Unix socket (default: in a new private directory).", show_default=False
        ),
    ] = None,
    tcp: Annotated[
        str | None,
        typer.Option(
            "--tcp",
            metavar="[HOST:]PORT",
            help="TCP on the loopback interface instead; port 0 takes a free one.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Export name beside the default one.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Stop when the last client disconnects.")] = False,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
) -> int:
    """Serve the logical device over NBD, until SIGINT or SIGTERM."""
    from zoned_tools.engine.logical import open_logical
    from zoned_tools.engine.nbd import serve as run
    from zoned_tools.engine.opening import opened_target

    check_layout_name(layout)
    if unix is not None and tcp is not None:
        raise UsageError("--socket and --tcp exclude each other")
    if len(name.encode()) > 256:
        raise UsageError("--name: longer than 256 bytes")
    paths, chosen = split_settings(devices, settings)
    with opened_target(paths, start, layout, writable=write) as target, _listener(unix, tcp) as (listener, uri):
        mapper = open_logical(target, writable=write, settings=chosen)
        print_warnings(mapper, target)
        server = _server(target, mapper, name, once=once)
        run(server, listener, lambda: _announce(target, mapper, uri, json=json))
    return 0


def _listener(unix: str | None, tcp: str | None) -> AbstractContextManager[tuple[socket, str]]:
    from zoned_tools.engine.nbd_sockets import tcp_listener, unix_listener

    return tcp_listener(tcp) if tcp is not None else unix_listener(unix)


def _server(target: Target, mapper: Mapper, name: str, *, once: bool) -> Server:
    from zoned_tools.engine.nbd import Server

    return Server(
        mapper,
        name=name,
        description=f"{target.layout} on {', '.join(target.paths)}",
        log=lambda line: print(f"zoned: {target.device.path}: {line}", file=sys.stderr, flush=True),
        stop_when_unused=once,
        when_idle=_idle_work(mapper),
    )


def _idle_work(mapper: Mapper) -> Callable[[], object]:
    """What the server does while no client asks for anything."""
    from zoned_tools.formats.contract import Reclaims

    return mapper.reclaim if isinstance(mapper, Reclaims) and mapper.reclaims_when_idle else mapper.flush


def _announce(target: Target, mapper: Mapper, uri: str, *, json: bool) -> None:
    """Say where clients find the server; a script waits for this line."""
    if json:
        from zoned_tools.report.documents.targets import serve_document
        from zoned_tools.report.stream import encode

        print(encode(serve_document(target, mapper, uri)), flush=True)
    else:
        print(uri, flush=True)
