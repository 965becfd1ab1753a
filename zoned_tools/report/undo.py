"""Undo files as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.undo_files import UndoEntry
    from zoned_tools.engine.undoing import Playback


def playback_lines(playback: Playback, *, dry_run: bool) -> Iterator[str]:
    """What is undone, and where; the single steps of a dry run."""
    yield f"{'would undo' if dry_run else 'undoing'}: {playback.title}"
    for then, now in playback.pairs:
        yield f"  {now}" + ("" if then == now else f" (was {then})")
    if dry_run:
        yield from (f"  {playback.devices[step.device].path}: {step.describe()}" for step in playback.steps())


def list_lines(entries: Sequence[UndoEntry]) -> Iterator[str]:
    """One undo file a line, newest first."""
    if not entries:
        yield "no undo files"
    for entry in entries:
        names = ", ".join(entry.devices)
        what = f" ({entry.identity})" if entry.identity else ""
        yield f"{entry.created}  {format_size(entry.size_bytes):>10}  {entry.title}: {names}{what}"
        yield f"    {entry.path}"
