"""Documents that are files: a lower floor reads them back, and their names stand where they are read."""

from __future__ import annotations

from typing import TypedDict

from zoned_tools.device.undo_format import FIRST_SCHEMA as FIRST_UNDO
from zoned_tools.device.undo_format import SCHEMA as UNDO
from zoned_tools.device.undo_format import HeaderDevice, HeaderDocument
from zoned_tools.engine.documents import SCHEMA as DUMP

__all__ = ["DUMP", "FIRST_UNDO", "UNDO", "DumpFile", "HeaderDevice", "HeaderDocument"]


class DumpFile(TypedDict):
    """``zoned.dump/1``, what ``zoned restore`` reads; the layout adds its own keys."""

    schema: str
    layout: str
    devices: list[str]
