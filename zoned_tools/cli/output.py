"""Printing results: JSON documents, progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


def print_json(document: Mapping[str, object]) -> None:
    """Print one JSON document; its first key is ``schema``."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=True, default=str)
    sys.stdout.write("\n")


class Progress(Protocol):
    """Told how far a long operation is, in its own unit (mostly bytes)."""

    def __call__(self, done: int) -> None: ...


@contextmanager
def progress_bar(label: str, total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, only on a terminal; ``total`` in bytes."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
