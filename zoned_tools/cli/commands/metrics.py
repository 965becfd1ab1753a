"""``zoned metrics``: Prometheus text for node_exporter's textfile collector."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import DevicePaths, Start
from zoned_tools.cli.output import complain
from zoned_tools.errors import FsckStatus


def metrics(
    devices: DevicePaths,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Replace FILE atomically; - is standard output.")
    ] = "-",
    check: Annotated[bool, typer.Option("--check", help="Check each layout too, and report how that went.")] = False,
    start: Start = None,
) -> int:
    """Print Prometheus metrics of drives and their layouts."""
    from zoned_tools.device.outputs import refuse_drive
    from zoned_tools.engine.metrics import collect
    from zoned_tools.report.prometheus import render, write_atomically
    from zoned_tools.report.stream import write_text

    samples, errors = collect(devices, check=check, start_sector=start)
    text = render(samples)
    if output == "-":
        write_text([text])
    else:
        refuse_drive(output, devices)
        write_atomically(output, text)
    status = FsckStatus.CLEAN
    for error in errors:
        status |= complain(error)
    return status
