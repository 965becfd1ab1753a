"""Numbers and names of zonefs that need no library: a usage error must not wait for numpy."""

from __future__ import annotations

from enum import IntFlag

from zoned_tools.formats.contract import ZoneRole

NAME = "zonefs"
"""The layout's name, as users write it."""

LABEL_BYTES = 64
BLKID_LABEL_BYTES = 32
"""libblkid reads another layout: what is past this part of a label, it shows as a UUID."""

DEFAULT_PERM = 0o640
PERM_MASK = 0o7777
ACCESS_MASK = 0o777
INVALID_ID = 0xFFFFFFFF
"""The user or group id that a kernel calls invalid."""

GROUPS = ("cnv", "seq")
NAME_MAX_BYTES = 16

ROLES = (
    ZoneRole("super block", "M", "#bc4b51"),
    ZoneRole("conventional files", "c", "#8fa8c8"),
    ZoneRole("sequential files", "f", "#3d6fb6"),
)
"""What zones are used for; the ``roles`` room says which are."""


class Feature(IntFlag):
    """Feature bits; any other bit makes a volume unmountable."""

    AGGR_CNV = 1
    UID = 2
    GID = 4
    PERM = 8


KNOWN_FEATURES = int(Feature.AGGR_CNV | Feature.UID | Feature.GID | Feature.PERM)


def feature_names(features: int) -> list[str]:
    """Names of the known bits that are set, in the order of the bits."""
    return [str(feature.name).lower() for feature in Feature if features & feature]
