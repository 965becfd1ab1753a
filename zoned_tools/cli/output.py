"""What commands tell beside their results: errors of one of several devices, progress on a terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Protocol, cast

from zoned_tools.cli.documents import record_error
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.errors import FsckStatus, ZonedError


def complain(error: ZonedError) -> FsckStatus:
    """Say what is wrong with one of several devices, behind what was printed of those before; its exit status."""
    record_error(error)
    sys.stdout.flush()
    print(error.render("zoned"), file=sys.stderr)
    return error.fsck_status


def note_use(paths: Iterable[str]) -> None:
    """Say of block devices that somebody uses them: what is read there may be in the middle of a change."""
    from zoned_tools.device.identity import describe_use

    for path in paths:
        use = describe_use(path)
        if use:
            note(path, f"{use}: what is read is live, and may change meanwhile")


def note(path: str, text: str) -> None:
    """Say something about a device on standard error that is no failure."""
    print(visible(f"zoned: {path}: note: {text}"), file=sys.stderr)


class Progress(Protocol):
    """Told how far a long operation is, in its own unit (mostly bytes)."""

    def __call__(self, done: int) -> None: ...


def _ignore(done: int) -> None:
    """There is no terminal to show anything on."""


@contextmanager
def progress_bar(label: str, total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, only on a terminal; ``total`` in bytes."""
    if quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from zoned_tools.cli.streams import Unfiltered

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(file=cast("IO[str]", Unfiltered(sys.stderr))), transient=True) as bar:
        task = bar.add_task(visible(label), total=total)
        yield lambda done: bar.update(task, completed=done)


class LateBar:
    """A progress bar whose total is known only when the work has begun."""

    def __init__(self, label: str, stack: ExitStack, *, quiet: bool) -> None:
        self._label = label
        self._stack = stack
        self._quiet = quiet
        self._progress: Progress | None = None

    def begin(self, total: int) -> None:
        """Show the bar; ``total`` in bytes."""
        self._progress = self._stack.enter_context(progress_bar(self._label, total, quiet=self._quiet))

    def __call__(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done)


@contextmanager
def late_progress_bar(label: str, *, quiet: bool = False) -> Iterator[LateBar]:
    """A bar as :func:`progress_bar` that its user begins."""
    with ExitStack() as stack:
        yield LateBar(label, stack, quiet=quiet)
