"""Documents of ``zoned undo``; the header of the files is in :mod:`zoned_tools.device.undo_format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.undo_files import UndoEntry
    from zoned_tools.engine.undoing import Playback


class UndoDocument(TypedDict):
    """``zoned.undo/1``; ``saved_from`` names the devices as they were when the file was saved."""

    schema: Literal["zoned.undo/1"]
    changed: bool
    title: str
    devices: list[str]
    saved_from: list[str]
    steps: list[str]


def undo_document(playback: Playback, *, changed: bool) -> UndoDocument:
    """What is undone, and where."""
    return {
        "schema": "zoned.undo/1",
        "changed": changed,
        "title": playback.title,
        "devices": [now for _, now in playback.pairs],
        "saved_from": [then for then, _ in playback.pairs],
        "steps": [f"{playback.devices[step.device].path}: {step.describe()}" for step in playback.steps()],
    }


class UndoFileRow(TypedDict):
    """One undo file of the state directory."""

    path: str
    title: str
    devices: list[str]
    identity: str
    created: str
    size_bytes: int


class UndoListDocument(TypedDict):
    """``zoned.undo.list/1``."""

    schema: Literal["zoned.undo.list/1"]
    files: list[UndoFileRow]


def undo_list_document(entries: Sequence[UndoEntry]) -> UndoListDocument:
    """The undo files that there are."""
    rows: list[UndoFileRow] = [
        {
            "path": entry.path,
            "title": entry.title,
            "devices": list(entry.devices),
            "identity": entry.identity,
            "created": entry.created,
            "size_bytes": entry.size_bytes,
        }
        for entry in entries
    ]
    return {"schema": "zoned.undo.list/1", "files": rows}
