"""What a user may choose: the parameters of a super block that is to be written."""

from __future__ import annotations

from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.shared.settings import text
from zoned_tools.formats.zonefs.constants import LABEL_BYTES
from zoned_tools.formats.zonefs.features import parse_features


def label_of(given: str) -> bytes:
    """The bytes of a label.

    Raises:
        UsageError: as :func:`check_label`; or it has surrogates that stand for no byte.
    """
    try:
        return check_label(given.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise UsageError("Invalid label") from None


def check_label(label: bytes) -> bytes:
    """The label itself.

    Raises:
        UsageError: it has more than 64 bytes, or holds a NUL.
    """
    if len(label) > LABEL_BYTES:
        raise UsageError(f"Label too long ({LABEL_BYTES} chars allowed)")
    if b"\0" in label:
        raise UsageError("Invalid label")
    return label


SETTINGS = (
    text(
        "features",
        "features of the volume, as mkzonefs -o takes them: aggr_cnv, uid=ID, gid=ID, perm=OCTAL",
        Journey.REPAIR,
        Journey.FORMAT,
        kind="list",
        verify=parse_features,
    ),
    text("label", f"label of the volume, at most {LABEL_BYTES} bytes", Journey.REPAIR, Journey.FORMAT, verify=label_of),
    text("uuid", "UUID of the volume (a new volume: random)", Journey.REPAIR, Journey.FORMAT, kind="uuid"),
)
