"""``zoned replay``: a trace through the offline mapper; and what the commands over mappers share."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import DevicePaths, DryRun, Json, LayoutName, Settings, Start, check_layout_name
from zoned_tools.cli.output import note
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, UsageError
from zoned_tools.formats.shared.settings import Journey
from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.engine.replay import Check, ReplayOptions, ReplayResult
    from zoned_tools.engine.trace import Request
    from zoned_tools.formats.contract import Mapper, Target


def print_warnings(mapper: Mapper, target: Target) -> None:
    """Say on standard error what the mapper found odd in the metadata."""
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import warning_lines

    write_lines((f"zoned: {line}" for line in warning_lines(target, mapper)), sys.stderr)


@takes_settings(Journey.LOGICAL)
@prints("replay")
def replay(
    devices: DevicePaths,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="FILE", help="A fio iolog (version 2 or 3), - for standard input."),
    ] = None,
    log_writes: Annotated[
        str | None, typer.Option("--log-writes", metavar="FILE", help="A log of the dm-log-writes target.")
    ] = None,
    crash_at: Annotated[
        int | None,
        typer.Option(
            "--crash-at",
            metavar="N",
            min=0,
            help="Stop as if the power was cut after N changes of the devices.",
            show_default=False,
        ),
    ] = None,
    check_each: Annotated[bool, typer.Option("--check-each", help="Check the layout after every flush.")] = False,
    pattern: Annotated[
        Literal["stamp", "zero"], typer.Option("--pattern", help="What the writes of an iolog carry.")
    ] = "stamp",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Added to the number in each stamp.")] = 0,
    dry_run: DryRun = False,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
) -> int:
    """Run a trace of writes, discards and flushes through the offline mapper."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.engine.replay import ReplayOptions
    from zoned_tools.engine.trace import Pattern

    check_layout_name(layout)
    if (trace is None) == (log_writes is None):
        raise UsageError("one of --trace and --log-writes is needed")
    if seed >= 1 << 64:
        raise UsageError("--seed has 64 bits")
    options = ReplayOptions(crash_at, Pattern(pattern), seed, dry_run)
    paths, chosen = split_settings(devices, settings)
    with (
        opened_target(paths, start, layout, writable=not dry_run) as target,
        _requests(trace, log_writes) as requests,
    ):
        result = _run(target, requests, chosen, options, check_each=check_each)
        _print(target, options, result, json=json)
        if result.crashed and not dry_run:
            _advise(target, start)
    return FsckStatus.UNCORRECTED if result.has_errors else FsckStatus.CLEAN


def _advise(target: Target, start: int | None) -> None:
    """Say when a repair has to come before a kernel starts what a power cut left."""
    from zoned_tools.engine.checking import gather
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import CheckOptions

    rules = registry.of(target).rules()
    evidence, _ = gather(target, CheckOptions())
    waits = next((group for group in evidence.findings.groups if group.repair and rules[group.code].kernel), None)
    if waits is not None:
        words = [*(("--start", str(start)) if start is not None else ()), *map(shell_word, target.paths)]
        text = f"zoned check --repair {' '.join(words)} has to come before a kernel starts it ({waits.id})"
        note(target.device.path, text)


def _print(target: Target, options: ReplayOptions, result: ReplayResult, *, json: bool) -> None:
    from zoned_tools.report.documents.logical import replay_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import replay_lines

    if json:
        print_json(replay_document(target, options, result))
    else:
        write_lines(replay_lines(target, result))


@contextmanager
def _requests(trace: str | None, log_writes: str | None) -> Iterator[Iterator[Request]]:
    from zoned_tools.engine.log_writes import parse_log_writes
    from zoned_tools.engine.trace import open_trace, parse_iolog

    path = trace if trace is not None else log_writes
    assert path is not None
    with open_trace(path) as file:
        yield (parse_iolog if trace is not None else parse_log_writes)(file, path)


def _run(
    target: Target, requests: Iterator[Request], settings: dict[str, str], options: ReplayOptions, *, check_each: bool
) -> ReplayResult:
    from zoned_tools.engine.logical import open_logical
    from zoned_tools.engine.replay import replay as run
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import CheckOptions

    def open_mapper(on: Target) -> Mapper:
        mapper = open_logical(on, writable=True, settings=settings, faithful=True)
        print_warnings(mapper, on)
        return mapper

    check: Check | None = None
    if check_each:
        layout = registry.of(target)
        check = lambda on: layout.check(on, CheckOptions())  # noqa: E731 - the name is bound either way
    return run(target, requests, open_mapper, options, check)
