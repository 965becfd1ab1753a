"""A user's choices: the start of a mapper, the words of a table line, what create writes."""

from __future__ import annotations

from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.shared.settings import choice, number, switch, text
from zoned_tools.formats.shared.table_words import require_carried
from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED, LABEL_BYTES, MAX_RESERVED

GC_STATES = {"off": 0, "on": 1, "force": 2}


def require_label(label: str) -> None:
    """Refuse a label that block 0 has no room for, or that cannot name a mapping.

    Raises:
        UsageError: it is refused.
    """
    try:
        size = len(label.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise UsageError("the label is not text") from None
    if size > LABEL_BYTES:
        raise UsageError(f"the label has {size} bytes, {LABEL_BYTES} are possible")
    if "/" in label or any(not c.isprintable() for c in label):
        raise UsageError("a label with '/' or control characters cannot name a mapping")


SETTINGS = (
    text("sb-uuid", "UUID in the keys of a ZDM that is started for the first time", Journey.LOGICAL, kind="uuid"),
    switch("create", "the line that starts a new ZDM, not an existing one", Journey.TABLE),
    switch("force", "with create: start over whatever is there", Journey.TABLE),
    text("meta", "device with the metadata", Journey.TABLE, kind="path", verify=require_carried),
    switch("mirror", "metadata are mirrored", Journey.TABLE),
    text(
        "label",
        f"label, at most {LABEL_BYTES} bytes; it also names the mapping",
        Journey.FORMAT,
        verify=require_label,
    ),
    text("uuid", "UUID of the new ZDM instead of a random one", Journey.FORMAT, kind="uuid"),
    number(
        "reserve",
        "zones kept back of each 1024",
        Journey.FORMAT,
        minimum=DEFAULT_RESERVED,
        maximum=MAX_RESERVED,
        default=str(DEFAULT_RESERVED),
    ),
    switch("trim", "discards are passed to the mapper", Journey.FORMAT, default="yes"),
    switch("raid-trim", "discards suit RAID 5", Journey.FORMAT),
    choice("gc", tuple(GC_STATES), "garbage collection", Journey.FORMAT, default="on"),
)
