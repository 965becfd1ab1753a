"""What every document of a command has besides its result: how the command ended, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from zoned_tools.errors import ZonedError

ERROR: Final = "zoned.error/1"
"""Of a command line that names no command."""


class ErrorRow(TypedDict):
    """Something that went wrong: a line of standard error.

    ``id`` names the kind (``usage``, ``device``, ``metadata``...) and stays the same. ``device``, ``hint`` and
    ``errno`` (the operating system's number) are null where there is none.
    """

    id: str
    message: str
    device: str | None
    hint: str | None
    errno: int | None


class Envelope(TypedDict):
    """The keys that end every document; ``exit_status`` is null while a server runs."""

    exit_status: int | None
    errors: list[ErrorRow]


class ErrorDocument(TypedDict):
    """``zoned.error/1``: nothing but an envelope."""

    schema: Literal["zoned.error/1"]


def error_row(error: ZonedError) -> ErrorRow:
    """What programs read of an error."""
    return {
        "id": error.error_id,
        "message": error.message,
        "device": error.device or None,
        "hint": error.hint or None,
        "errno": (error.errno or None) if isinstance(error, DeviceError) else None,
    }
