"""The findings of a zonefs check: what they mean, what a kernel does with them, what repair does.

A repair writes at most one block, the super block, so no action loses a file. It guesses when the
parameters of the new super block are not known for certain.
"""

from __future__ import annotations

from zoned_tools.formats.contract import Consent, Rule, Rules, Severity
from zoned_tools.formats.shared.derived import derived_rule
from zoned_tools.formats.shared.losses import rescue_rules
from zoned_tools.formats.zonefs.constants import NAME

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
_DAMAGE = "The super block was overwritten or damaged on the medium."
_REFUSED = "Refuses the mount with EINVAL."
_MOUNTED = "Mounts the volume."
_REWRITE = "rewrites the super block; label and UUID found are kept"
_NEW = (
    "writes a new super block with the features, label and UUID given by --set,"
    " the defaults (and a random UUID) for those that are not given"
)

RULES = Rules(
    NAME,
    {
        "not-zoned": Rule(
            _ERROR,
            "The device is not zoned: a kernel does not mount it.",
            "The zone table of an image is missing.",
            kernel=_REFUSED,
        ),
        "sb-magic": Rule(
            _ERROR,
            "The super block's magic is wrong.",
            _DAMAGE,
            "rewrites the super block where its checksum tells that the magic alone was hit",
            kernel="Refuses the mount with EINVAL, without a message.",
            asks=Consent.GUESSES,
            allow=_NEW,
        ),
        "sb-crc": Rule(
            _ERROR,
            "The super block's checksum is wrong.",
            _DAMAGE,
            "puts right what the checksum locates: one byte, or the reserved area",
            kernel=_REFUSED,
            asks=Consent.GUESSES,
            allow="takes the fields as they are found, or as given by --set, and writes a checksum that fits",
        ),
        "sb-features": Rule(
            _ERROR,
            "Unknown feature bits are set.",
            "Damage, or a newer format.",
            "drops the unknown features; label and UUID found are kept",
            kernel=_REFUSED,
        ),
        "sb-uid": Rule(
            _ERROR,
            "The user id of the files is invalid.",
            "mkzonefs was given uid=-1.",
            "drops the feature",
            kernel=_REFUSED,
        ),
        "sb-gid": Rule(
            _ERROR,
            "The group id of the files is invalid.",
            "mkzonefs was given gid=-1.",
            "drops the feature",
            kernel=_REFUSED,
        ),
        "sb-reserved": Rule(_ERROR, "The reserved area is not all zero.", _DAMAGE, _REWRITE, kernel=_REFUSED),
        "sb-perm-bits": Rule(
            _WARNING,
            "The permissions have bits above 07777: files show a bogus type.",
            "mkzonefs was given a number over 07777.",
            "keeps the low twelve bits",
            kernel="Adds the bits to the mode of each file: a regular file shows as a socket or the like.",
        ),
        "sb-ignored-field": Rule(
            _INFO, "A user, group or permission is stored but its feature is off, so it is ignored.", kernel=_MOUNTED
        ),
        "sb-label": Rule(
            _WARNING,
            "The label is shown wrongly by other programs.",
            "It is too long, or not UTF-8 text.",
            kernel=f"{_MOUNTED} It does not look at the label.",
        ),
        "sb-uuid-nil": Rule(
            _WARNING,
            "The volume has no UUID.",
            repair="writes the UUID given with --set uuid=UUID",
            kernel=f"{_MOUNTED} statfs shows the file system id 0.",
        ),
        "zone0-not-full": Rule(
            _WARNING,
            "The super block's zone is sequential and not full: a later write can land after the super block.",
            "mkzonefs was interrupted before it finished the zone.",
            "finishes the zone",
            kernel=_MOUNTED,
        ),
        "zone0-empty": Rule(
            _ERROR,
            "The super block's zone is sequential and empty: there is no super block.",
            "The zone was reset.",
            _NEW,
            kernel="Refuses the mount with EINVAL: there is no magic.",
            asks=Consent.GUESSES,
        ),
        "zone0-offline": Rule(
            _ERROR,
            "The super block's zone is offline: it cannot be read.",
            "The medium failed.",
            kernel="Refuses the mount: the super block cannot be read.",
        ),
        "zone-readonly": Rule(
            _WARNING,
            "Read-only zones: their files cannot be accessed.",
            "The medium failed.",
            kernel="Mounts the volume; the files have no permissions and refuse every access with EPERM. Their"
            " content can still be read from the zones (zoned zonefs cat --raw).",
        ),
        "zone-offline": Rule(
            _WARNING,
            "Offline zones: their files are lost.",
            "The medium failed.",
            kernel="Mounts the volume; the files have size 0 and refuse every access with EPERM.",
        ),
        "zones-layout": Rule(
            _ERROR,
            "The zone table is not one that a kernel mounts.",
            "The drive's report is wrong.",
            kernel="Fails the mount with EIO.",
        ),
        "zones-state": Rule(
            _WARNING, "A zone is in a state that drives do not report.", "The zone table was edited.", kernel=_MOUNTED
        ),
        "active-limit": Rule(
            _WARNING, "More zones are active than the drive allows.", "The zone table was edited.", kernel=_MOUNTED
        ),
        "no-zones": Rule(_ERROR, "No zone can be used for a file."),
        **rescue_rules(lost_repair=_NEW, lost_asks=Consent.GUESSES),
        **derived_rule(),
    },
)
