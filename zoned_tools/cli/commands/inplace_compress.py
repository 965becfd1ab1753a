"""``zoned inplace-compress``: make, fill, check, repair and measure compressed volumes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import All, Allow, DevicePath, DryRun, Force, Json, NoUndo, Quiet, Settings, Start, Undo
from zoned_tools.cli.output import progress_bar
from zoned_tools.cli.settings import takes_settings
from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.settings import Journey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Device
    from zoned_tools.formats.inplace_compress.format import Wanted
    from zoned_tools.formats.inplace_compress.source import Source
    from zoned_tools.report.documents.inplace_compress import CompressTable

NAME = "inplace-compress"
SECTOR_BYTES = 512

app = new_app("Make, fill, check, repair and measure dm-inplace-compress volumes.")

Compression: TypeAlias = Annotated[
    str | None,
    typer.Option("--compressor", metavar="lzo|842", help="Compressor of the volume (lzo).", show_default=False),
]
Blocks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--data-blocks",
        metavar="N",
        min=1,
        help="Size of the volume in blocks of 4096 bytes; as large as the device allows.",
        show_default=False,
    ),
]
Table: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--table",
        metavar="LINE",
        help="The volume's dmsetup table line, or its arguments (device=PATH,writethrough...).",
        show_default=False,
    ),
]
Processes: TypeAlias = Annotated[
    int, typer.Option("--processes", "-j", metavar="N", min=0, max=256, help="Processes to use, 0 for all cores.")
]


def _print_made(lines: Iterable[str], table: CompressTable) -> None:
    """What was made, and how the driver is told of it."""
    from zoned_tools.report.inplace_compress import table_line, warning_line
    from zoned_tools.report.stream import write_line, write_lines

    write_lines(lines)
    if table["table"] is not None:
        write_line(table_line(table))
        write_line(warning_line(table), sys.stderr)


def _wanted(device: str, compressor: str | None, data_blocks: int | None, table: str | None) -> Wanted:
    """Compressor and size of a new volume, with what the driver would understand otherwise."""
    from zoned_tools.formats.inplace_compress import LAYOUT
    from zoned_tools.formats.inplace_compress.format import wanted_volume
    from zoned_tools.report.stream import write_lines

    given = {"table": table, "data-blocks": data_blocks, "compressor": compressor}
    words = {name: str(value) for name, value in given.items() if value is not None}
    wanted = wanted_volume(LAYOUT.parse_settings(words, Journey.FORMAT), device)
    write_lines((f"note: {note}" for note in wanted.notes), sys.stderr)
    return wanted


def _refuse_content(device: Device, *, force: bool) -> None:
    from zoned_tools.engine.content import refuse_content

    if not force:
        refuse_content(device)


@app.command("format")
@prints("inplace-compress.format")
def format_volume(
    device: DevicePath,
    compressor: Compression = None,
    data_blocks: Blocks = None,
    table: Table = None,
    force: Force = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    start: Start = None,
) -> int:
    """Make an empty volume."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.device.opening import open_device
    from zoned_tools.formats.inplace_compress.format import plan_volume, volume_sizes
    from zoned_tools.report.documents.inplace_compress import compress_format_document, compress_table
    from zoned_tools.report.inplace_compress import format_line

    wanted = _wanted(device, compressor, data_blocks, table)
    begin = (start or 0) * SECTOR_BYTES
    with open_device(device, writable=not dry_run) as drive:
        meta, data = volume_sizes(drive, begin, wanted.data_blocks)
        plan = plan_volume(drive, compressor=wanted.compressor, start_bytes=begin, data_blocks=data)
        _refuse_content(drive, force=force)
        if not (dry_run and json):
            execute(plan, [drive], dry_run=dry_run, undo=undo, no_undo=no_undo, identity_after=NAME)
    name, line = wanted.compressor.label, _line(device, start, table) if not dry_run else None
    made = compress_table(line)
    if json:
        print_json(compress_format_document(device, name, (meta, data), made, dry_run=dry_run))
    elif not dry_run:
        _print_made([format_line(device, data, name)], made)
    return 0


def _line(device: str, start: int | None, table: str | None) -> str | None:
    """The table line of what is on a device now; None where the driver could not use it."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.inplace_compress import LAYOUT
    from zoned_tools.formats.inplace_compress.table import table_line

    if start:
        return None
    with opened_target([device], start, NAME, only_own=True) as target:
        settings = LAYOUT.parse_settings({} if table is None else {"table": table}, Journey.TABLE)
        try:
            return table_line(target, settings).line
        except UsageError:
            return None  # no line can carry the device's name; what --table says was refused before the write


@app.command("import")
@prints("inplace-compress.import")
def import_content(
    source: Annotated[str, typer.Argument(metavar="RAW", help="Raw content: a file or block device.")],
    device: DevicePath,
    compressor: Compression = None,
    data_blocks: Blocks = None,
    table: Table = None,
    window: Annotated[int, typer.Option("--window", metavar="2|32", help="Longest extent, in blocks.")] = 32,
    exact: Annotated[bool, typer.Option("--exact", help="Store the very LZO streams of the kernel (slow).")] = False,
    processes: Processes = 0,
    force: Force = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read back what was imported, and compare.")] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    quiet: Quiet = False,
    start: Start = None,
) -> int:
    """Make a volume with the content of a raw file."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.device.opening import open_device, refuse_twice
    from zoned_tools.formats.inplace_compress.encoding import Choice
    from zoned_tools.formats.inplace_compress.import_ import plan_import, rehearse_import
    from zoned_tools.formats.inplace_compress.source import open_source
    from zoned_tools.formats.inplace_compress.workers import process_count
    from zoned_tools.report.documents.inplace_compress import compress_import_document, compress_table
    from zoned_tools.report.inplace_compress import import_line

    if dry_run and verify:
        raise UsageError("--dry-run writes nothing that --verify could read back")
    refuse_twice([source, device])
    wanted = _wanted(device, compressor, data_blocks, table)
    content, begin, count = open_source(source), (start or 0) * SECTOR_BYTES, process_count(processes)
    with open_device(device, writable=not dry_run) as drive:
        _refuse_content(drive, force=force)
        kind = wanted.compressor_over(drive, begin)
        choice = Choice(kind, window, exact)
        with progress_bar("rehearse" if dry_run else "import", content.size_bytes, quiet=quiet or json) as progress:
            plan, result = plan_import(
                drive, content, choice, data_blocks=wanted.data_blocks, start_bytes=begin, processes=count,
                progress=progress,
            )  # fmt: skip
            execute(plan, [drive], dry_run=dry_run, silent=json, undo=undo, no_undo=no_undo, identity_after=NAME)
            if dry_run:
                rehearse_import(content, choice, result, processes=count, progress=progress)
    if verify:
        _read_back(device, begin, content, count, quiet=quiet or json)
    made = compress_table(None if dry_run else _line(device, start, table))
    if json:
        how = {"dry_run": dry_run, "verified": verify}
        print_json(compress_import_document(device, source, kind.label, result, made, **how))
    else:
        _print_made([import_line(device, result, dry_run=dry_run, verified=verify)], made)
    return 0


def _read_back(device: str, start_bytes: int, content: Source, processes: int, *, quiet: bool) -> None:
    from zoned_tools.device.opening import open_device
    from zoned_tools.formats.inplace_compress.open import open_volume
    from zoned_tools.formats.inplace_compress.readback import verify_import

    with open_device(device) as drive, progress_bar("verify", content.size_bytes, quiet=quiet) as progress:
        verify_import(open_volume(drive, start_bytes), content, processes=processes, progress=progress)


def _sample_bytes(sample: str, size_bytes: int) -> int:
    """How much ``--sample`` asks for: a size or a share; 0 for everything.

    Raises:
        UsageError: neither.
    """
    from zoned_tools.units import parse_size

    if not sample.endswith("%"):
        return parse_size(sample)
    try:
        share = float(sample[:-1])
    except ValueError:
        share = -1
    if not 0 <= share <= 100:
        raise UsageError(f"--sample {sample} is no share", hint="0% to 100%, or a size such as 256MiB")
    return max(1, int(size_bytes * share / 100)) if share else 0


@app.command("estimate")
@prints("inplace-compress.estimate")
def print_estimate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A file or block device, or a volume for its content.", show_default=False
        ),
    ],
    sample: Annotated[
        str,
        typer.Option(
            "--sample", metavar="SIZE|SHARE%", help="How much to compress, spread over all of it; 0 for everything."
        ),
    ] = "256MiB",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Takes another sample.")] = 0,
    compressor: Annotated[
        list[str] | None,
        typer.Option("--compressor", metavar="lzo|842", help="Only this; repeatable.", show_default=False),
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(
            "--window", metavar="2|32", help="Only this longest extent, in blocks; repeatable.", show_default=False
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Make the very LZO streams of the kernel (slow).")] = False,
    processes: Processes = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Tell what a volume with this content would store; writes nothing."""
    from zoned_tools.formats.inplace_compress.compressors import compressor_by_name
    from zoned_tools.formats.inplace_compress.encoding import Choice
    from zoned_tools.formats.inplace_compress.estimate import estimate, opened_content
    from zoned_tools.formats.inplace_compress.layout import WINDOWS
    from zoned_tools.formats.inplace_compress.workers import process_count
    from zoned_tools.report.documents.inplace_compress import compress_estimate_document
    from zoned_tools.report.inplace_compress import estimate_lines
    from zoned_tools.report.stream import write_lines

    compressors = sorted({compressor_by_name(name) for name in compressor or ("lzo", "842")}, reverse=True)
    choices = [Choice(one, blocks, exact) for one in compressors for blocks in sorted(set(window or WINDOWS))]
    _sample_bytes(sample, 0)  # what cannot be meant is refused before anything is opened
    with (
        opened_content(source) as content,
        progress_bar("estimate", content.size_bytes, quiet=quiet or json) as progress,
    ):
        found = estimate(
            content,
            choices,
            sample_bytes=_sample_bytes(sample, content.size_bytes),
            seed=seed,
            processes=process_count(processes),
            progress=progress,
        )
    if json:
        print_json(compress_estimate_document(found))
    else:
        write_lines(estimate_lines(found))
    return 0


def _settings(table: str | None, data_blocks: int | None, more: list[str] | None, **switches: bool) -> list[str]:
    """``KEY=VALUE`` words of this command's options, and those given as such."""
    words = [f"{name.replace('_', '-')}=yes" for name, on in switches.items() if on]
    words += [] if table is None else [f"table={table}"]
    words += [] if data_blocks is None else [f"data-blocks={data_blocks}"]
    return words + (more or [])


KnownBlocks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--data-blocks",
        metavar="N",
        min=1,
        help="Blocks that the volume has, where its super block is damaged.",
        show_default=False,
    ),
]


@app.command("check")
@takes_settings(Journey.CHECK, Journey.REPAIR, layout=NAME)
@prints("check")
def check_volume(
    device: DevicePath,
    deep: Annotated[bool, typer.Option("--deep", help="Look for payloads behind wrong metadata too.")] = False,
    metadata_only: Annotated[bool, typer.Option("--metadata-only", help="Do not read payloads.")] = False,
    table: Table = None,
    data_blocks: KnownBlocks = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Go on with the given size when the super block is damaged.")
    ] = False,
    processes: Processes = 0,
    everything: All = False,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
) -> int:
    """Check super block, bitmap and payloads; changes nothing."""
    from zoned_tools.cli.checking import CheckCall, run_check

    if deep and metadata_only:
        raise UsageError("--deep reads payloads, --metadata-only does not")
    words = [f"processes={processes}", f"payloads={'no' if metadata_only else 'yes'}"]
    call = CheckCall(
        devices=[device], deep=deep, json=json, everything=everything, start=start, layout=NAME, only_own=True,
        settings=[*words, *_settings(table, data_blocks, settings, force=force)],
    )  # fmt: skip
    return run_check(call)


@app.command("repair")
@takes_settings(Journey.CHECK, Journey.REPAIR, layout=NAME)
@prints("check")
def repair_volume(
    device: DevicePath,
    relink: Annotated[
        bool, typer.Option("--relink", help="Point the bitmap at payloads that verify behind wrong metadata.")
    ] = False,
    zero_unreadable: Annotated[
        bool,
        typer.Option("--zero-unreadable", help="Turn unreadable extents without a payload that verifies into zeroes."),
    ] = False,
    salvage_raw: Annotated[
        bool, typer.Option("--salvage-raw", help="Turn them into their bytes as they are stored.")
    ] = False,
    decode_mistagged: Annotated[
        bool, typer.Option("--decode-mistagged", help="Store the decoded content of tagged raw extents.")
    ] = False,
    swap_words: Annotated[
        bool, typer.Option("--swap-words", help="Reverse the bitmap of a host of the other byte order.")
    ] = False,
    clear_slack: Annotated[
        bool, typer.Option("--clear-slack", help="Clear bits behind the last entry that may be entries of raw data.")
    ] = False,
    table: Table = None,
    data_blocks: KnownBlocks = None,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    everything: All = False,
    json: Json = False,
    allow: Allow = None,
    settings: Settings = None,
    start: Start = None,
) -> int:
    """Repair what can be repaired safely, and what the options agree to."""
    from zoned_tools.cli.checking import CheckCall, run_check

    words = _settings(
        table, data_blocks, settings,
        relink=relink, zero_unreadable=zero_unreadable, salvage_raw=salvage_raw,
        decode_mistagged=decode_mistagged, swap_words=swap_words, clear_slack=clear_slack,
    )  # fmt: skip
    call = CheckCall(
        devices=[device], repair=True, dry_run=dry_run, undo=undo, no_undo=no_undo, json=json, deep=relink,
        everything=everything, allow=allow or (),
        settings=words, start=start, layout=NAME, only_own=True,
    )  # fmt: skip
    return run_check(call)


@app.command("stat")
@prints("inplace-compress.stat")
def print_statistics(
    device: DevicePath,
    window: Annotated[
        int, typer.Option("--window", metavar="2|32", help="Window of the host: 2 for 4 KiB pages, 32 for 64 KiB.")
    ] = 2,
    json: Json = False,
    start: Start = None,
) -> int:
    """Print ratio, payload histogram and holes of a volume."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.inplace_compress.stat import statistics
    from zoned_tools.report.documents.inplace_compress import compress_stat_document, compress_table
    from zoned_tools.report.inplace_compress import warning_line
    from zoned_tools.report.stream import write_line, write_lines
    from zoned_tools.report.tree import tree_lines

    with opened_target([device], start, NAME, only_own=True) as target:
        facts = statistics(target, window)
    if json:
        print_json(compress_stat_document(device, facts))
        return 0
    write_lines(tree_lines(facts))
    write_line(warning_line(compress_table(None)), sys.stderr)
    return 0
