"""What a user may choose about which state of a file system is read."""

from __future__ import annotations

from zoned_tools.formats.contract import Journey
from zoned_tools.formats.shared.settings import choice, number, switch

SETTINGS = (
    switch(
        "data",
        "read the data of files, every copy, and hold them against their checksums",
        Journey.CHECK,
        flag="--deep=data",
    ),
    number("generation", "generation of the super block to read by, the last one of it", Journey.LOGICAL),
    choice(
        "log",
        ("keep", "drop"),
        "whether the super block keeps its tree log, which the next mount replays",
        Journey.LOGICAL,
        default="keep",
    ),
)
