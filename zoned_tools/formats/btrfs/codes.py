"""The findings of the check: severity, meaning, causes, and what repair does."""

from __future__ import annotations

from collections.abc import Mapping

from zoned_tools.findings import Severity
from zoned_tools.formats.registry import Code

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

_APPEND = "writes the newest good super block again where the kernel looks for the newest"
_CUT = "A power cut or a failing drive hit the last commit."
_OVERWRITTEN = "The block was overwritten or damaged on the medium."
_OTHER_DRIVE = "The image or drive is not the one that the file system was made on, or was resized."
_MADE_WRONG = "The file system was made or converted by something else than mkfs.btrfs."

CODES: Mapping[str, Code] = {
    # the ring
    "ring-invalid": Code(
        _ERROR,
        "The two zones of a ring are in a state that no sequence of commits leads to: mounting fails.",
        "A zone was reset or written by another program, or an image was restored incompletely.",
        "finishes the older zone, which keeps its contents",
    ),
    "ring-zone-dead": Code(
        _ERROR,
        "A zone that holds super blocks is read-only or offline.",
        "The drive gave the zone up.",
    ),
    "capacity-small": Code(
        _ERROR,
        "A zone of a ring has room for fewer than two super blocks.",
        "The drive's zone capacity is far below what btrfs expects.",
    ),
    "wp-unaligned": Code(
        _ERROR,
        "A write pointer is not at a multiple of 4096 bytes: the kernel looks for the super block in the wrong place.",
        "Another program wrote to the zone, or a drive with 512-byte blocks lost part of a write.",
        "finishes the zone and writes the newest good super block to the other one",
    ),
    "wp-ahead": Code(
        _WARNING,
        "There are blocks of zeroes below the write pointer.",
        "A zone was finished before it was full, or data that the drive acknowledged are lost.",
    ),
    "wp-behind": Code(
        _WARNING,
        "An image holds content at or above the write pointer.",
        "The zone table is older than the image, or a zone was reset without discarding its content.",
    ),
    # the head
    "head-none": Code(
        _ERROR,
        "There is no super block where the kernel looks for the newest.",
        _CUT + " Or the zones were reset.",
        _APPEND,
    ),
    "head-magic": Code(
        _ERROR, "The newest super block has no valid magic.", _OVERWRITTEN + " Or mkfs was cut.", _APPEND
    ),
    "head-torn": Code(_ERROR, "The newest super block was written only in part.", _CUT, _APPEND),
    "head-csum": Code(
        _ERROR, "The newest super block's checksum is wrong or of an unknown type.", _OVERWRITTEN, _APPEND
    ),
    "head-bytenr": Code(
        _ERROR, "The newest super block says that it belongs to another mirror.", "It was copied from there.", _APPEND
    ),
    "head-fsid": Code(
        _ERROR,
        "The newest super block's fsid does not match its device item.",
        "The fsid was changed without the device item.",
        _APPEND,
    ),
    "head-field": Code(
        _ERROR, "A field of the newest super block has a value for which the kernel refuses to mount.", _OVERWRITTEN
    ),
    "field-doubtful": Code(_WARNING, "A field of the newest super block is suspicious; the kernel only warns."),
    "choice-influenced": Code(
        _ERROR,
        "Both zones are full and a damaged last block decides which is newer: the kernel takes the wrong super block.",
        _CUT,
        "resets the older zone and writes the newest good super block at its start",
    ),
    "choice-stale": Code(
        _WARNING,
        "The kernel takes a valid super block that is not the newest in the order of the ring.",
        "A rollback over a whole zone of super blocks, or equal generations at the end of both zones.",
    ),
    "nothing-valid": Code(
        _ERROR,
        "No mirror holds a valid super block.",
        "The rings were reset or overwritten.",
    ),
    # the other copies
    "middle-bad": Code(
        _INFO,
        "A super block in the middle of the ring is damaged; that harms nothing.",
        _CUT + " It was repaired later.",
    ),
    "generation-decreases": Code(
        _WARNING, "Generations go back along the ring.", "A rollback was done; or blocks are out of order."
    ),
    "fsid-foreign": Code(
        _WARNING,
        "The ring holds valid super blocks of another file system.",
        "The zones were not reset before the file system was made, or its fsid was changed.",
    ),
    "mirror-behind": Code(
        _WARNING,
        "A mirror is more than one commit behind mirror 0.",
        "Writes to the mirror failed; the next commit brings it up to date.",
    ),
    "mirror-ahead": Code(
        _WARNING, "A mirror is ahead of mirror 0.", "Mirror 0 was rolled back, or lost its newest super blocks."
    ),
    # the trees
    "roots-unreadable": Code(
        _ERROR,
        "The chunk tree or the root tree of the newest super block cannot be read.",
        "The zones that held them were reset, or are damaged.",
        "with --allow roots-unreadable: rolls back to the newest super block whose roots can be read",
    ),
    "tree-lost": Code(
        _ERROR, "The root node of a tree that the kernel reads at mount is lost.", "Its zone was reset, or is damaged."
    ),
    "log-unreadable": Code(
        _ERROR,
        "There is a tree log to replay and it cannot be read: mounting fails.",
        "The zone of the log was reset, or is damaged.",
        "with --allow log-unreadable: writes the super block again without the log",
    ),
    # features
    "zoned-flag-clear": Code(
        _ERROR, "The file system on a zoned drive lacks the ZONED feature: the kernel refuses it.", _MADE_WRONG
    ),
    "not-zoned": Code(_INFO, "The file system is on a regular device and does not use the ZONED feature."),
    "mixed-groups": Code(_ERROR, "Mixed block groups do not work in zoned mode.", _MADE_WRONG),
    "raid56": Code(_ERROR, "RAID5 and RAID6 do not work in zoned mode.", _MADE_WRONG),
    "profile-unsupported": Code(_ERROR, "A chunk has a profile that does not work in zoned mode.", _MADE_WRONG),
    "feature-unknown": Code(_ERROR, "Incompatible features are on that nobody knows.", "Damage, or a newer kernel."),
    "space-cache-v1": Code(
        _WARNING,
        "There is a version 1 free space cache; zoned mode cannot write it and clears it at mount.",
        "The file system was converted.",
    ),
    "nodatacow": Code(
        _WARNING,
        "Files carry the NODATACOW attribute, which zoned mode cannot honour: writing them in place is impossible.",
        "chattr +C on another device, before the data were moved here.",
    ),
    # geometry
    "zone-size": Code(
        _ERROR, "The zone size is outside the limits of btrfs (4 MiB to 8 GiB, a power of two).", _OTHER_DRIVE
    ),
    "zone-size-mismatch": Code(_ERROR, "The file system was made for another zone size.", _OTHER_DRIVE),
    "zone-size-differs": Code(_ERROR, "The devices of the file system have different zone sizes.", _OTHER_DRIVE),
    "active-zones": Code(_ERROR, "The drive allows fewer than 8 active zones: the kernel refuses it.", _OTHER_DRIVE),
    "chunk-array": Code(_ERROR, "The system chunk array cannot be decoded.", _OVERWRITTEN),
    "chunk-outside": Code(_ERROR, "A chunk does not lie inside the device.", _OTHER_DRIVE),
    "chunk-unaligned": Code(_ERROR, "A chunk is not made of whole zones.", _OTHER_DRIVE),
    "chunk-in-reserved-zone": Code(_ERROR, "A chunk uses a zone that is reserved for super blocks.", _MADE_WRONG),
    # devices
    "device-item": Code(_ERROR, "The device item of the super block cannot be right.", _OVERWRITTEN),
    "device-too-small": Code(_ERROR, "The device is smaller than its device item says.", _OTHER_DRIVE),
    "device-uuid": Code(_ERROR, "A system chunk names another device under this device's number.", _OTHER_DRIVE),
    "device-duplicate": Code(_ERROR, "Two devices have the same number.", "A device was copied."),
    "device-foreign": Code(_ERROR, "A device belongs to another file system.", "The wrong device was named."),
    "device-missing": Code(
        _INFO, "Not all devices of the file system were given; trees on the others were not checked."
    ),
    "device-behind": Code(
        _WARNING,
        "A device is more than one commit behind the others.",
        "It was missing for some time, or its writes failed.",
    ),
}
