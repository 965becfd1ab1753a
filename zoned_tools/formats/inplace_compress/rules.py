"""The rules that a check tests: severity, meaning, cause, what the driver does with it, repair, consent."""

from __future__ import annotations

from zoned_tools.formats.inplace_compress.layout import NAME
from zoned_tools.formats.shared.findings import Severity
from zoned_tools.formats.shared.losses import rescue_rules
from zoned_tools.formats.shared.rules import Consent, Rule, Rules

__all__ = ["RULES", "SHADOW_CODES", "UNREADABLE_CODES"]

_E, _W = Severity.ERROR, Severity.WARNING

UNREADABLE_CODES = ("MAP_NIBBLE", "EXT_TAG", "EXT_LEN", "EXT_DECOMP", "EXT_SHORT")
"""Codes of extents that cannot be read."""

SHADOW_CODES = ("RAW_SHADOW", "HOLE_SHADOW")
"""Codes that only a deep check reports."""

_LOST_UPDATE = "A crash: payloads and bitmap are written without any order between them."
_KNOWN_SIZES = (
    "Rewrite the super block when the sizes are known: from a table line (table=LINE) or number of blocks "
    "(data-blocks=N), or found because bitmap and payloads verify."
)
_RELINK = (
    "Point the bitmap at a payload that verifies at the extent's head, where there is one (--allow, or relink=yes). "
    "Where there is none, the content is given up (--allow, or zero-unreadable=yes: it becomes zeroes; with "
    "salvage-raw=yes the stored bytes)."
)
_SHADOW = (
    "Point the bitmap at the payload (--allow, or relink=yes), when a deep check found it (--deep, or relink=yes)."
)
_SILENT = "The driver reads it without complaint."
_EIO = "The driver returns EIO."
_REFUSED = "The driver refuses activation (Super is invalid)."

RULES = Rules(
    NAME,
    {
        "SB_MAGIC": Rule(
            _E,
            "The super block's magic is wrong; activating the target now would format the device.",
            "Overwritten block 0, or no inplace-compress volume.",
            _KNOWN_SIZES,
            kernel="The driver formats the device without asking: all data is lost.",
        ),
        "SB_SIZE": Rule(
            _E,
            "The numbers of meta and data blocks do not belong together.",
            "A damaged super block.",
            _KNOWN_SIZES,
            kernel=_REFUSED,
        ),
        "SB_DEVICE": Rule(
            _E,
            "The volume is larger than its device.",
            "A shrunk or truncated device, or a damaged super block.",
            "Rewrite the super block when a table line or number of blocks that fits is given; else the device has to "
            "be enlarged.",
            kernel="The driver refuses activation (Insufficient sectors).",
        ),
        "SB_ALG": Rule(
            _E,
            "The super block names an unknown compressor.",
            "A damaged super block, or a later series.",
            "Store the compressor that decodes every compressed extent.",
            kernel="The driver refuses activation.",
        ),
        "SB_ALG_MISMATCH": Rule(
            _E,
            "No compressed extent decodes with the super block's compressor, all do with another one.",
            "The 2016 series stored its default instead of the compressor in use.",
            "Store the compressor that decodes them.",
            kernel=_EIO,
        ),
        "MAP_ENDIAN": Rule(
            _E,
            "The bitmap was written by a host of the other byte order.",
            "A volume from a big-endian machine.",
            "Reverse the bitmap's 32-bit words (--allow, or swap-words=yes), for use on little-endian hosts only.",
            asks=Consent.GUESSES,
        ),
        "MAP_TAIL0": Rule(_E, "The first block is marked as a tail.", "A damaged bitmap.", "Make it a head."),
        "MAP_NIBBLE": Rule(
            _E,
            "An entry accounts more than 8 sectors to a block; the extent cannot be read.",
            "A damaged bitmap.",
            _RELINK,
            kernel=_EIO,
            asks=Consent.LOSES,
        ),
        "MAP_ORPHAN": Rule(
            _E,
            "Tails without a payload; a later write to their first block would swallow them.",
            "A bitmap sector that was lost in a crash.",
            "Turn them into holes (the content stays zeroes); a payload that verifies there is a HOLE_SHADOW then.",
            kernel=_SILENT,
        ),
        "MAP_CANON": Rule(
            _E,
            "The payload's sectors are not accounted to the first blocks of the extent.",
            "A damaged bitmap.",
            "Account them as the driver does, if the payload is good.",
            kernel=_SILENT,
        ),
        "MAP_LONG": Rule(
            _W,
            "An extent of more than 32 blocks; the driver never makes one.",
            "The 2016 series, or lost head entries.",
        ),
        "MAP_SLACK": Rule(
            _E,
            "Bits behind the last entry are set.",
            "A damaged bitmap, or a changed number of data blocks.",
            "Correct the number of data blocks where the bits are entries that verify, else clear them. Where they may "
            "account for raw data, which nothing verifies, only with consent (--allow, or clear-slack=yes): the blocks "
            "that the super block left out are lost then.",
            kernel=_SILENT,
            asks=Consent.LOSES,
        ),
        "EXT_TAG": Rule(
            _E,
            "A compressed payload does not end in its tag; the extent cannot be read.",
            _LOST_UPDATE,
            _RELINK,
            kernel=_EIO,
            asks=Consent.LOSES,
        ),
        "EXT_LEN": Rule(
            _E,
            "The stream length in the tag is impossible; the extent cannot be read.",
            "A damaged payload.",
            _RELINK,
            kernel="The driver hands the length to the decoder unchecked: EIO with LZO; 842 may read what follows.",
            asks=Consent.LOSES,
        ),
        "EXT_DECOMP": Rule(
            _E,
            "The stream does not decode; the extent cannot be read.",
            _LOST_UPDATE,
            _RELINK,
            kernel=_EIO,
            asks=Consent.LOSES,
        ),
        "EXT_SHORT": Rule(
            _E,
            "The stream decodes to less than the extent; the driver returns zeroes for the rest.",
            "Tails that belong to nobody, or to a lost head.",
            "Shorten the extent to the whole blocks that it decodes to (the rest stays zeroes). Else: " + _RELINK,
            kernel="The driver returns zeroes for the missing part.",
            asks=Consent.LOSES,
        ),
        "EXT_PAD": Rule(
            _W,
            "The payload has more sectors than its stream needs.",
            "Another writer than the driver.",
            kernel=_SILENT,
        ),
        "EXT_MISTAG": Rule(
            _W,
            "A raw extent that holds a tagged stream of just its size; the driver returns the stream as content.",
            "A write by a series before v5.",
            "Store the decoded content raw (--allow, or decode-mistagged=yes).",
            kernel=_SILENT,
            asks=Consent.GUESSES,
        ),
        "RAW_SHADOW": Rule(
            _W,
            "A raw extent begins with a payload that verifies.",
            "A write whose bitmap update was lost, or stored data that is itself such a payload.",
            _SHADOW,
            kernel=_SILENT,
            asks=Consent.GUESSES,
        ),
        "HOLE_SHADOW": Rule(
            _W,
            "A hole holds a payload that verifies.",
            "A write whose bitmap update was lost, or the remains of an earlier volume.",
            _SHADOW,
            kernel="The driver returns zeroes.",
            asks=Consent.GUESSES,
        ),
        "OLD_SERIES": Rule(
            _E, "A volume of the 2013 series (target insitu-comp); it is not supported.", "An old volume."
        ),
        **rescue_rules(
            lost_repair="Write the super block with the sizes and the compressor that are assumed (--allow). Nothing "
            "can be done about blocks of the bitmap, which has one copy.",
            lost_asks=Consent.GUESSES,
        ),
    },
)
