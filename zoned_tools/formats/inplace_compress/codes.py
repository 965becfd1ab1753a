"""The rules that a check tests: severity, meaning, cause, repair."""

from __future__ import annotations

from collections.abc import Mapping

from zoned_tools.findings import Severity
from zoned_tools.formats.registry import Code

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

_LOST_UPDATE = "A crash: payloads and bitmap are written without any order between them."
_RELINK = (
    "With --relink, when a verifying payload lies at its head: point the bitmap at it. Else with consent only: "
    "--zero-unreadable (content becomes zeroes) or --salvage-raw (content becomes the stored bytes)."
)

CODES: Mapping[str, Code] = {
    "SB_MAGIC": Code(
        _E,
        "The super block's magic is wrong; activating the target now would format the device.",
        "Overwritten block 0, or no inplace-compress volume.",
        "Rewrite the super block when the sizes are known: from --table, or found because bitmap and payloads verify.",
    ),
    "SB_SIZE": Code(
        _E,
        "The numbers of meta and data blocks do not belong together.",
        "A damaged super block.",
        "Rewrite the super block when the sizes are known: from --table, or found because bitmap and payloads verify.",
    ),
    "SB_DEVICE": Code(
        _E, "The volume is larger than its device.", "A shrunk or truncated device, or a damaged super block."
    ),
    "SB_ALG": Code(
        _E,
        "The super block names an unknown compressor.",
        "A damaged super block, or a later series.",
        "Store the compressor that decodes every compressed extent.",
    ),
    "SB_ALG_MISMATCH": Code(
        _E,
        "No compressed extent decodes with the super block's compressor, all do with another one.",
        "The 2016 series stored its default instead of the compressor in use.",
        "Store the compressor that decodes them.",
    ),
    "MAP_ENDIAN": Code(
        _E,
        "The bitmap was written by a host of the other byte order.",
        "A volume from a big-endian machine.",
        "With --swap-words: reverse the bitmap's 32-bit words, for use on little-endian hosts only.",
    ),
    "MAP_TAIL0": Code(_E, "The first block is marked as a tail.", "A damaged bitmap.", "Make it a head."),
    "MAP_NIBBLE": Code(
        _E, "An entry accounts more than 8 sectors to a block; the extent cannot be read.", "A damaged bitmap.", _RELINK
    ),
    "MAP_ORPHAN": Code(
        _E,
        "Tails without a payload; a later write to their first block would swallow them.",
        "A bitmap sector that was lost in a crash.",
        "Turn them into holes (the content stays zeroes).",
    ),
    "MAP_CANON": Code(
        _E,
        "The payload's sectors are not accounted to the first blocks of the extent.",
        "A damaged bitmap.",
        "Account them as the driver does, if the payload is good.",
    ),
    "MAP_LONG": Code(
        _W, "An extent of more than 32 blocks; the driver never makes one.", "The 2016 series, or lost head entries."
    ),
    "MAP_SLACK": Code(
        _E,
        "Bits behind the last entry are set.",
        "A damaged bitmap, or a changed number of data blocks.",
        "Correct the number of data blocks where the bits are entries that verify; else clear them, with --clear-slack "
        "only where they may account for raw data.",
    ),
    "EXT_TAG": Code(
        _E, "A compressed payload does not end in its tag; the extent cannot be read.", _LOST_UPDATE, _RELINK
    ),
    "EXT_LEN": Code(
        _E, "The stream length in the tag is impossible; the extent cannot be read.", "A damaged payload.", _RELINK
    ),
    "EXT_DECOMP": Code(_E, "The stream does not decode; the extent cannot be read.", _LOST_UPDATE, _RELINK),
    "EXT_SHORT": Code(
        _E,
        "The stream decodes to less than the extent; the driver returns zeroes for the rest.",
        "Tails that belong to nobody, or to a lost head.",
        "Shorten the extent to what it decodes to (the rest stays zeroes).",
    ),
    "EXT_PAD": Code(_W, "The payload has more sectors than its stream needs.", "Another writer than the driver."),
    "EXT_MISTAG": Code(
        _W,
        "A raw extent that holds a tagged stream of just its size; the driver returns the stream as content.",
        "A write by a series before v5.",
        "With --decode-mistagged: store the decoded content raw.",
    ),
    "RAW_SHADOW": Code(
        _W,
        "A raw extent begins with a payload that verifies.",
        "A write whose bitmap update was lost, or stored data that is itself such a payload.",
        "With --relink: use the payload.",
    ),
    "HOLE_SHADOW": Code(
        _W,
        "A hole holds a payload that verifies.",
        "A write whose bitmap update was lost, or the remains of an earlier volume.",
        "With --relink: use the payload.",
    ),
    "OLD_SERIES": Code(_E, "A volume of the 2013 series (target insitu-comp); it is not supported.", "An old volume."),
    "MORE": Code(_I, "Further findings of one kind are only counted.", "Wide damage."),
}
"""Every code, in the order of the rules."""
