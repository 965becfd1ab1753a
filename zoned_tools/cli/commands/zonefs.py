"""``zoned zonefs``: the files of a zonefs volume, without a kernel that knows it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeAlias, cast

import typer

from zoned_tools.cli.documents import expect, print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import (
    DevicePath,
    DryRun,
    Json,
    Mapfiles,
    NoUndo,
    Quiet,
    ReadLength,
    ReadOffset,
    Settings,
    Start,
    Undo,
)
from zoned_tools.cli.output import progress_bar
from zoned_tools.cli.settings import takes_settings
from zoned_tools.errors import DeviceError, FsckStatus, UsageError
from zoned_tools.formats.shared.settings import Journey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.plan import Plan
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.zonefs.mapper.open import ZonefsTree

app = new_app("List, read, write, check and mount the files of a zonefs volume.")

FilePath: TypeAlias = Annotated[
    str, typer.Argument(metavar="PATH", help="File in the volume, as /seq/0.", show_default=False)
]
AnyPath: TypeAlias = Annotated[str, typer.Argument(metavar="[PATH]", help="File or directory in the volume.")]
Kernel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--kernel",
        metavar="VERSION",
        help="Show what this kernel shows (before 6.3 the root directory's size differs).",
        show_default=False,
    ),
]

SPOOLED_IN_MEMORY_BYTES = 64 << 20


@contextmanager
def _tree(
    path: str,
    start: int | None,
    *,
    writable: bool = False,
    dry_run: bool = False,
    options: dict[str, str] | None = None,
    mapfiles: Sequence[str] | None = None,
) -> Iterator[ZonefsTree]:
    """The tree of a volume; with ``dry_run`` changes stay in memory."""
    from zoned_tools.device.opening import mapfile_of_each, open_device
    from zoned_tools.device.overlay import Overlay
    from zoned_tools.engine.opening import single_target
    from zoned_tools.formats.zonefs.mapper.open import open_tree

    (mapfile,) = mapfile_of_each([path], mapfiles or ())
    with open_device(path, writable=writable and not dry_run, mapfile=mapfile) as device:
        view = Overlay(device) if dry_run else device
        target = single_target([view], start_sector=start, layout="zonefs", only_own=True)
        with open_tree(target, writable=writable, options=options) as tree:
            yield tree


def _kernel_options(kernel: str | None) -> dict[str, str]:
    if kernel is None:
        return {}
    numbers = kernel.split("-")[0].split(".")[:2]
    if not all(n.isascii() and n.isdigit() for n in numbers) or len(numbers) != 2:
        raise UsageError(f"'{kernel}' is not a kernel version", hint="as 6.1")
    return {"old-root-size": "1"} if (int(numbers[0]), int(numbers[1])) < (6, 3) else {}


@app.command("ls")
@prints("zonefs.ls")
def list_files(
    device: DevicePath,
    path: AnyPath = "/",
    details: Annotated[bool, typer.Option("--long", "-l", help="Print modes, owners, sizes, zones.")] = False,
    json: Json = False,
    kernel: Kernel = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> None:
    """List files and directories, at and below PATH."""
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.zonefs import list_document, text_lines

    with _tree(device, start, options=_kernel_options(kernel), mapfiles=mapfile) as tree:
        if json:
            print_json(list_document(tree, path))
        else:
            write_lines(text_lines(tree, path, details=details))


@app.command("stat")
@prints("zonefs.stat")
def stat_file(
    device: DevicePath,
    path: AnyPath = "/",
    file_system: Annotated[
        bool, typer.Option("--file-system", "-f", help="Print the figures of the whole volume instead.")
    ] = False,
    json: Json = False,
    kernel: Kernel = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> None:
    """Print what stat(2) shows of a file, or statfs(2) of the volume."""
    from zoned_tools.report.documents import zonefs as documents
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.tree import tree_lines

    if file_system:
        expect("zonefs.statfs")
    with _tree(device, start, options=_kernel_options(kernel), mapfiles=mapfile) as tree:
        entry = documents.zonefs_entry(tree.stat(path))
        figures = documents.zonefs_figures(tree) if file_system else None
    if not json:
        write_lines(tree_lines(entry if figures is None else figures))
    elif figures is None:
        print_json(documents.zonefs_stat_document(entry))
    else:
        print_json(documents.zonefs_statfs_document(figures))


@app.command("cat")
def print_content(
    device: DevicePath,
    path: FilePath,
    raw: Annotated[bool, typer.Option("--raw", help="Read up to the capacity, and read-only zones too.")] = False,
    offset: ReadOffset = "0",
    length: ReadLength = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Write zeroes for sectors that cannot be read; status 4 then.")
    ] = False,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> FsckStatus:
    """Write the content of a file to standard output."""
    from zoned_tools.formats.zonefs.transfer import read_chunks
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.zonefs import lost_lines
    from zoned_tools.units import parse_size

    first, count = parse_size(offset), None if length is None else parse_size(length)
    lost: list[tuple[int, int, str]] = []
    unread = lost.extend if skip_errors else None
    with _tree(device, start, mapfiles=mapfile) as tree:
        for chunk in read_chunks(tree, path, offset_bytes=first, length_bytes=count, raw=raw, unread=unread):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    write_lines((f"zoned: {line}" for line in lost_lines(device, path, lost)), sys.stderr)
    return FsckStatus.UNCORRECTED if lost else FsckStatus.CLEAN


@contextmanager
def _source(name: str) -> Iterator[tuple[BinaryIO, int]]:
    """A file or standard input, and its length; what has no length is spooled first."""
    import tempfile
    from shutil import copyfileobj

    if name != "-":
        try:
            file = open(name, "rb")  # noqa: SIM115 - closed below, with the error of opening told apart
        except OSError as error:
            raise DeviceError.from_os_error(error, name, "cannot open") from None
        with file:
            if file.seekable():
                yield file, os.fstat(file.fileno()).st_size
                return
            with tempfile.SpooledTemporaryFile(SPOOLED_IN_MEMORY_BYTES) as spool:
                copyfileobj(file, spool)
                length = spool.tell()
                spool.seek(0)
                yield cast("BinaryIO", spool), length
        return
    with tempfile.SpooledTemporaryFile(SPOOLED_IN_MEMORY_BYTES) as spool:
        copyfileobj(sys.stdin.buffer, spool)
        length = spool.tell()
        spool.seek(0)
        yield cast("BinaryIO", spool), length


@app.command("put")
@prints("zonefs.put")
def put_content(
    device: DevicePath,
    path: FilePath,
    source: Annotated[str, typer.Argument(metavar="[SOURCE]", help="File to read, - for standard input.")] = "-",
    pad: Annotated[bool, typer.Option("--pad", help="Fill the last block with zeroes.")] = False,
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset", metavar="BYTES", help="Where to write in a conventional file (default 0).", show_default=False
        ),
    ] = None,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    quiet: Quiet = False,
    start: Start = None,
) -> None:
    """Append to a sequential file, or write into a conventional one."""
    from zoned_tools.formats.zonefs.transfer import plan_put, put_plan
    from zoned_tools.report.documents.zonefs import zonefs_put_document
    from zoned_tools.report.stream import write_line
    from zoned_tools.report.zonefs import put_line
    from zoned_tools.units import parse_size

    at = None if offset is None else parse_size(offset)
    with _source(source) as (file, length), _tree(device, start, writable=True, dry_run=dry_run) as tree:
        put = plan_put(tree, path, length, offset_bytes=at, pad=pad)
        if not dry_run:
            with progress_bar(f"writing {put.ref.path}", length, quiet=quiet or json) as progress:
                name = "standard input" if source == "-" else source
                _execute(tree, put_plan(tree, put, file, progress, name=name), undo=undo, no_undo=no_undo)
    if json:
        print_json(zonefs_put_document(put, changed=not dry_run and length > 0))
    elif dry_run:
        write_line(put_line(device, put))


@app.command("truncate")
@prints("zonefs.truncate")
def truncate_file(
    device: DevicePath,
    path: FilePath,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="0, or the file's capacity: max.", show_default=False)],
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    start: Start = None,
) -> None:
    """Empty a sequential file (SIZE 0), or fill it up (max)."""
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.zonefs.transfer import truncate_plan
    from zoned_tools.report.documents.zonefs import zonefs_truncate_document
    from zoned_tools.report.stream import write_line
    from zoned_tools.report.zonefs import truncate_line
    from zoned_tools.units import parse_size

    number = None if size == "max" else parse_size(size)
    carried = Carried(changed=False)
    with _tree(device, start, writable=True, dry_run=dry_run) as tree:
        ref = tree.file(path)
        sizes = (ref.size_bytes, ref.capacity_bytes if number is None else number)
        plan = truncate_plan(tree, path, sizes[1])
        if not dry_run:
            carried = _execute(tree, plan, undo=undo, no_undo=no_undo)
    if json:
        print_json(zonefs_truncate_document(ref.path, sizes, carried))
    elif dry_run:
        write_line(truncate_line(device, ref.path, sizes))


def _execute(tree: ZonefsTree, plan: Plan, *, undo: str | None, no_undo: bool) -> Carried:
    """Carry out what changes files; the volume stays the same one."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.engine.changing import identity_of

    device = tree.volume.device
    return execute(plan, [device], undo=undo, no_undo=no_undo, identity_after=identity_of([device]))


@app.command("check")
@takes_settings(Journey.CHECK, Journey.REPAIR, layout="zonefs")
@prints("check")
def check_volume(
    device: DevicePath,
    repair: Annotated[bool, typer.Option("--repair", help="Plan a repair of what is found, and carry it out.")] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="CODE", help="Agree to a repair that guesses; repeatable.", show_default=False),
    ] = None,
    settings: Settings = None,
    start: Start = None,
) -> int:
    """Check a volume; repair rewrites a damaged super block."""
    from zoned_tools.cli.checking import CheckCall, run_check

    return run_check(
        CheckCall(
            devices=[device],
            repair=repair,
            dry_run=dry_run,
            undo=undo,
            no_undo=no_undo,
            json=json,
            allow=allow or (),
            settings=settings or (),
            start=start,
            layout="zonefs",
            only_own=True,
        )
    )


@app.command("inspect")
@prints("inspect")
def inspect_volume(device: DevicePath, json: Json = False, start: Start = None) -> int:
    """Print the super block, field by field."""
    from zoned_tools.cli.commands.inspect import print_trees

    return print_trees([device], json, start=start, layout="zonefs", only_own=True)


_FUSE_SWITCHES = ("allow_other", "allow_root")
_IGNORED = ("rw", "defaults", "noatime", "nodev", "nosuid", "noexec", "nofail", "noauto")


@app.command("mount")
def mount_volume(
    device: DevicePath,
    mount_point: Annotated[str, typer.Argument(metavar="DIRECTORY", help="Where to mount.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--options",
            "-o",
            metavar="LIST",
            help="Mount options: errors=POLICY, explicit-open, ro, allow_other.",
            show_default=False,
        ),
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", "-F", help="Stay until it is unmounted.")] = False,
    start: Start = None,
) -> None:
    """Mount a volume through FUSE; umount or fusermount3 -u ends it."""
    from zoned_tools.formats.zonefs.fuse import mount

    words = [word for text in options or () for word in text.split(",") if word]
    read_only = "ro" in words
    fuse_options: dict[str, str | bool] = {word: True for word in words if word in _FUSE_SWITCHES}
    known = {"ro", *_FUSE_SWITCHES, *_IGNORED}
    parts = (word.partition("=") for word in words if word not in known)
    pairs = {key: value if equals else "1" for key, equals, value in parts}
    with _tree(device, start, writable=not read_only, options=pairs) as tree:
        mount(tree, os.path.abspath(mount_point), foreground=foreground, options=fuse_options)
