"""What a user can choose about a dm-zoned target."""

from __future__ import annotations

import re
from dataclasses import replace

from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.settings import Journey, Setting, choice, number, switch, text

USE_SET = "use-set"
OVERLAP, RECLAIM, BZONE, BITS, PAIR = "overlap", "reclaim", "bzone", "bits", "pair"
BITMAPS = "bitmaps"
CHUNKS = "chunks"
RLOW, IDLE_RLOW = "rlow", "idle_rlow"
ACCEPT_MEMBERS = "accept_members"
LEGACY = "legacy"
LABEL, UUID, DEVICE_UUID, SEQ, METADATA_VERSION = "label", "uuid", "device-uuid", "seq", "metadata-version"
VERSION = "version"

_PAIR = re.compile(r"([0-9]{1,9}):([0-9]{1,9})(?:\+([0-9]{1,9}))?")


def named_pairs(value: str) -> dict[int, tuple[int, int | None]]:
    """What ``pair=`` says: data zone and buffer zone of chunks, from ``CHUNK:ZONE[+BUFFER]`` words with commas.

    Raises:
        UsageError: not of this form, or a chunk twice.
    """
    pairs: dict[int, tuple[int, int | None]] = {}
    for word in filter(None, value.split(",")):
        match = _PAIR.fullmatch(word)
        if match is None:
            raise UsageError(f"'{word}' is not CHUNK:ZONE or CHUNK:ZONE+BUFFER")
        chunk, zone, buffer = match.groups()
        if int(chunk) in pairs:
            raise UsageError(f"chunk {chunk} is named twice")
        pairs[int(chunk)] = int(zone), int(buffer) if buffer else None
    return pairs


SETTINGS: tuple[Setting, ...] = (
    replace(
        choice(
            USE_SET,
            ("0", "1"),
            "metadata set to trust: the whole set, or of two equally good ones of one generation where they differ",
            Journey.CHECK,
            Journey.REPAIR,
            Journey.LOGICAL,
            Journey.READ,
            flag="--use-set",
        ),
        aliases=("use_set",),
    ),
    choice(
        OVERLAP,
        ("data", "buffer"),
        "zone that keeps a block which is valid in a data zone and in its buffer zone",
        Journey.CHECK,
        Journey.REPAIR,
        default="data",
    ),
    choice(
        RECLAIM,
        ("move", "clear"),
        "what becomes of the valid bits of an empty data zone whose chunk has a buffer zone; by default they move when "
        "the buffer zone certainly has the blocks",
        Journey.CHECK,
        Journey.REPAIR,
        Journey.LOGICAL,
    ),
    choice(
        BZONE,
        ("promote", "drop"),
        "what becomes of a buffer zone with valid blocks whose chunk has no usable data zone: the data zone "
        "(with --allow), or lost",
        Journey.CHECK,
        Journey.REPAIR,
        default="promote",
    ),
    choice(
        BITS,
        ("sets", "union"),
        "which valid bits count where both metadata sets are equally good and only their bitmaps differ: those of "
        "one set (--use-set), or those of both",
        Journey.CHECK,
        Journey.REPAIR,
        Journey.LOGICAL,
        default="sets",
    ),
    choice(
        BITMAPS,
        ("lost", "written"),
        "blocks whose validity bits cannot be read in any metadata set: lost, or valid where they were written (below "
        "the write pointer, or not all zero)",
        Journey.LOGICAL,
        default="lost",
    ),
    replace(
        text(
            PAIR,
            "zones that a chunk has, CHUNK:ZONE or CHUNK:ZONE+BUFFER, where a damaged entry of the mapping table "
            "leaves several possible",
            Journey.CHECK,
            Journey.REPAIR,
            Journey.LOGICAL,
            kind="list",
            verify=named_pairs,
        ),
        repeats=True,
    ),
    number(
        CHUNKS,
        "chunks of the target, where entries behind the last one that its super blocks know are in use",
        Journey.CHECK,
        Journey.REPAIR,
        minimum=1,
        maximum=(1 << 32) - 2,
    ),
    number(
        RLOW,
        "percentage of free random zones at which writers reclaim",
        Journey.LOGICAL,
        Journey.TABLE,
        maximum=100,
    ),
    number(
        IDLE_RLOW,
        "the same while the target is idle",
        Journey.LOGICAL,
        Journey.TABLE,
        maximum=100,
    ),
    switch(ACCEPT_MEMBERS, "read although a member says that it belongs elsewhere", Journey.LOGICAL),
    switch(LEGACY, "the table line of the original driver, with rlow= and idle_rlow=", Journey.TABLE, flag="--legacy"),
    text(LABEL, "name of the target, at most 31 bytes", Journey.FORMAT, Journey.REPAIR),
    text(UUID, "UUID of the target", Journey.FORMAT, Journey.REPAIR, kind="uuid"),
    text(DEVICE_UUID, "UUIDs of the devices in order, separated by commas", Journey.FORMAT),
    number(SEQ, "sequential zones kept for reclaim", Journey.FORMAT, Journey.REPAIR, minimum=1, maximum=(1 << 32) - 2),
    choice(VERSION, ("1", "2"), "version of super blocks that are made anew", Journey.REPAIR, default="2"),
    choice(METADATA_VERSION, ("1", "2"), "version of the metadata", Journey.FORMAT, default="2"),
)
