"""The findings of the check: severity, meaning, causes, what a kernel does with it, and what repair does."""

from __future__ import annotations

from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.contract import Consent, Rule, Rules, Severity
from zoned_tools.formats.shared.derived import derived_rule
from zoned_tools.formats.shared.losses import rescue_rules

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

_APPEND = "writes the newest good super block again where the kernel looks for the newest"
_CUT = "A power cut or a failing drive hit the last commit."
_OVERWRITTEN = "The block was overwritten or damaged on the medium."
_OTHER_DRIVE = "The image or drive is not the one that the file system was made on, or was resized."
_MADE_WRONG = "The file system was made or converted by something else than mkfs.btrfs."

_HEAD = (
    "Mounting fails where it is mirror 0: there is no fall back to an older super block or to another mirror. "
    "The other mirrors are not read; the next commit appends to them."
)
_STATE = 'Mounting fails with EUCLEAN ("Structure needs cleaning"), whichever mirror it is.'
_REFUSED = "Mounting fails, read-only too."

RULES = Rules(
    NAME,
    {
        # the ring
        "ring-invalid": Rule(
            _ERROR,
            "The two zones of a ring are in a state that no sequence of commits leads to: mounting fails.",
            "A zone was reset or written by another program, or an image was restored incompletely.",
            "finishes the older zone, which keeps its contents",
            kernel=_STATE,
        ),
        "ring-zone-dead": Rule(
            _ERROR,
            "A zone that holds super blocks is read-only or offline.",
            "The drive gave the zone up.",
        ),
        "capacity-small": Rule(
            _ERROR,
            "A zone of a ring has room for fewer than two super blocks.",
            "The drive's zone capacity is far below what btrfs expects.",
        ),
        "wp-unaligned": Rule(
            _ERROR,
            "A write pointer is not at a multiple of 4096 bytes: "
            "the kernel looks for the super block in the wrong place.",
            "Another program wrote to the zone, or a drive with 512-byte blocks lost part of a write.",
            "finishes the zone and writes the newest good super block to the other one",
        ),
        "wp-ahead": Rule(
            _WARNING,
            "There are blocks of zeroes below the write pointer.",
            "A zone was finished before it was full, or data that the drive acknowledged are lost.",
        ),
        "wp-behind": Rule(
            _WARNING,
            "An image holds content at or above the write pointer.",
            "The zone table is older than the image, or a zone was reset without discarding its content.",
        ),
        # the head
        "head-none": Rule(
            _ERROR,
            "There is no super block where the kernel looks for the newest.",
            _CUT + " Or the zones were reset.",
            _APPEND,
            kernel=_HEAD,
        ),
        "head-magic": Rule(
            _ERROR,
            "The newest super block has no valid magic.",
            _OVERWRITTEN + " Or mkfs was cut.",
            _APPEND,
            kernel=_HEAD,
        ),
        "head-torn": Rule(_ERROR, "The newest super block was written only in part.", _CUT, _APPEND, kernel=_HEAD),
        "head-csum": Rule(
            _ERROR,
            "The newest super block's checksum is wrong or of an unknown type.",
            _OVERWRITTEN,
            _APPEND,
            kernel=_HEAD,
        ),
        "head-bytenr": Rule(
            _ERROR,
            "The newest super block says that it belongs to another mirror.",
            "It was copied from there.",
            _APPEND,
            kernel=_HEAD,
        ),
        "head-fsid": Rule(
            _ERROR,
            "The newest super block's fsid does not match its device item.",
            "The fsid was changed without the device item.",
            _APPEND,
            kernel=_HEAD,
        ),
        "head-field": Rule(
            _ERROR,
            "A field of the newest super block has a value for which the kernel refuses to mount.",
            _OVERWRITTEN,
            kernel=_REFUSED,
        ),
        "field-doubtful": Rule(
            _WARNING,
            "A field of the newest super block is suspicious; the kernel only warns.",
            kernel="It mounts, read-only at least.",
        ),
        "mirror-absent": Rule(
            _INFO,
            "A mirror other than the first holds no super block yet.",
            "mkfs.btrfs on a regular device, and btrfs-image, do not write all of them.",
            kernel="It does not read them at mount; the next commit starts the mirror.",
        ),
        "choice-influenced": Rule(
            _ERROR,
            "Both zones are full and a damaged last block decides which is newer: the kernel takes the wrong "
            "super block.",
            _CUT,
            "resets the older zone and writes the newest good super block at its start",
            kernel="Of two full zones it compares the generations of the last blocks and nothing else of them: "
            "no magic, no checksum.",
        ),
        "choice-stale": Rule(
            _WARNING,
            "The kernel takes a valid super block that is not the newest in the order of the ring.",
            "A rollback over a whole zone of super blocks, or equal generations at the end of both zones.",
            kernel="It mounts the older one.",
        ),
        "nothing-valid": Rule(
            _ERROR,
            "No mirror holds a valid super block.",
            "The rings were reset or overwritten.",
            kernel=_REFUSED,
        ),
        # the other copies
        "middle-bad": Rule(
            _INFO,
            "A super block in the middle of the ring is damaged; that harms nothing.",
            _CUT + " It was repaired later.",
            kernel="It never reads that block.",
        ),
        "generation-decreases": Rule(
            _WARNING, "Generations go back along the ring.", "A rollback was done; or blocks are out of order."
        ),
        "fsid-foreign": Rule(
            _WARNING,
            "The ring holds valid super blocks of another file system.",
            "The zones were not reset before the file system was made, or its fsid was changed.",
        ),
        "mirror-behind": Rule(
            _WARNING,
            "A mirror is more than one commit behind mirror 0.",
            "Writes to the mirror failed; the next commit brings it up to date.",
        ),
        "mirror-ahead": Rule(
            _WARNING, "A mirror is ahead of mirror 0.", "Mirror 0 was rolled back, or lost its newest super blocks."
        ),
        # the trees
        "roots-unreadable": Rule(
            _ERROR,
            "The chunk tree or the root tree of the newest super block cannot be read.",
            "The zones that held them were reset, or are damaged.",
            "goes back, in every mirror of the device, to the newest super block whose roots can be read; "
            "everything that was committed after its generation is lost",
            kernel=_REFUSED,
            asks=Consent.LOSES,
        ),
        "tree-lost": Rule(
            _ERROR,
            "The root node of a tree that the kernel reads at mount is lost.",
            "Its zone was reset, or is damaged.",
        ),
        "log-unreadable": Rule(
            _ERROR,
            "There is a tree log to replay and it cannot be read: mounting fails.",
            "The zone of the log was reset, or is damaged.",
            "writes the newest super block of mirror 0 again without the log; "
            "what was only synced with fsync since its commit is lost",
            kernel="It replays the log at every mount, read-only ones too, unless mounted with rescue=nologreplay.",
            asks=Consent.LOSES,
        ),
        "node-lost": Rule(
            _ERROR,
            "No copy of a tree node can be read; what lies below it is not reached.",
            "Its zone was reset, went dead, or is damaged.",
            kernel="It mounts while no tree that mounting needs is concerned; the files that the node holds give EIO.",
        ),
        "node-copy-lost": Rule(
            _WARNING,
            "One copy of a tree node cannot be read, another can.",
            "Its zone was reset or is damaged.",
            kernel="It reads the other copy; btrfs scrub mends it by relocating the whole block group.",
        ),
        "data-lost": Rule(
            _ERROR,
            "Data of files cannot be read in any copy, or have another checksum than the checksum tree says.",
            "Their zone was reset, went dead, or is damaged.",
            kernel="Reading them gives EIO.",
        ),
        "data-copy-lost": Rule(
            _WARNING,
            "One copy of data of files is bad, another is good.",
            "Its zone was reset or is damaged.",
            kernel="It reads the other copy; btrfs scrub mends it.",
        ),
        # block groups and zones
        "bg-wp-differs": Rule(
            _ERROR,
            "The zones of a mirrored block group are not written equally far: mounting fails.",
            "A power cut between the writes of the copies, or a program reset, finished or wrote one of the zones.",
            "appends the tail of the longest copy to the shorter ones; without asking where every node of the group "
            "can be read in a copy. By hand, where copying is not possible: zoned zone finish of both zones, which "
            "costs the rest of the group",
            kernel="write pointer offset mismatch of zones in the profile: it refuses every mount but rescue=all.",
            asks=Consent.GUESSES,
        ),
        "bg-zone-dead": Rule(
            _ERROR,
            "A zone of a block group is read-only or offline.",
            "The drive gave the zone up.",
            kernel="It refuses every mount but ro,rescue=all; stripes of RAID1 other than the first are passed over.",
        ),
        "bg-extents-beyond-wp": Rule(
            _ERROR,
            "Extents of a block group lie where its zone was never written.",
            "The zone was reset, or an image was cut short.",
            "finishes the zone, so that nothing is written over the addresses of what is lost; beside a conventional "
            "copy appends what that has",
            kernel="It mounts single and equal copies, and the next data write to the group ends in a failed commit; "
            "beside a conventional copy it refuses (write pointer offset mismatch).",
        ),
        "bg-striping": Rule(
            _ERROR,
            "The zones of a striped block group are not written in the order of its rows.",
            _CUT,
            kernel=_REFUSED,
        ),
        "bg-wp-over-capacity": Rule(
            _ERROR,
            "A block group reaches behind the capacity of its zone.",
            _OTHER_DRIVE,
            kernel="invalid write pointer: " + _REFUSED[0].lower() + _REFUSED[1:],
        ),
        "bg-unmatched": Rule(
            _ERROR,
            "A chunk has no block group item, or a block group item no chunk.",
            _OVERWRITTEN,
            kernel=_REFUSED,
        ),
        "bg-used-differs": Rule(
            _WARNING,
            "The extents of a block group are not what its item says to be in use.",
            "A fault in a kernel, or damage; btrfs check looks further.",
        ),
        "active-zones-exceeded": Rule(
            _ERROR,
            "More zones are active than the drive allows; finishing zones of full block groups helps.",
            "The image is restored to a drive with another limit.",
            kernel=_REFUSED,
        ),
        "zone-orphan": Rule(
            _INFO,
            "A zone that nothing owns is not empty.",
            "mkfs.btrfs -m dup leaves one; or another program wrote it.",
            "resets the zone; older generations may still name what lies there",
            asks=Consent.LOSES,
            kernel="The allocator skips it for ever.",
        ),
        # features
        "zoned-flag-clear": Rule(
            _ERROR,
            "The file system on a zoned drive lacks the ZONED feature: the kernel refuses it.",
            _MADE_WRONG,
            kernel=_REFUSED,
        ),
        "not-zoned": Rule(_INFO, "The file system is on a regular device and does not use the ZONED feature."),
        "mixed-groups": Rule(_ERROR, "Mixed block groups do not work in zoned mode.", _MADE_WRONG, kernel=_REFUSED),
        "profile-unsupported": Rule(
            _ERROR, "A chunk has a profile that does not work in zoned mode.", _MADE_WRONG, kernel=_REFUSED
        ),
        "feature-unknown": Rule(
            _ERROR, "Incompatible features are on that nobody knows.", "Damage, or a newer kernel.", kernel=_REFUSED
        ),
        "feature-kernel": Rule(
            _WARNING,
            "A feature is on that not every kernel with zoned support knows.",
            "mkfs.btrfs or btrfstune was told to; information only where every kernel of the last years knows it.",
            kernel="One that does not know it refuses the mount.",
        ),
        "btrfstune-unfinished": Rule(
            _ERROR,
            "A conversion by btrfstune was cut off. The way out is to run the same again, which the finding names; "
            "on a host-managed drive that needs btrfs-progs 7.",
            "The program was stopped, or the power failed.",
            kernel=_REFUSED,
        ),
        "space-cache-v1": Rule(
            _WARNING,
            "There is a version 1 free space cache; zoned mode cannot write it and clears it at mount.",
            "The file system was converted.",
            kernel="It refuses to mount with the option space_cache=v1.",
        ),
        "nodatacow": Rule(
            _WARNING,
            "Files carry the NODATACOW attribute, which zoned mode cannot honour: writing them in place is impossible.",
            "chattr +C on another device, before the data were moved here.",
        ),
        # geometry
        "zone-size": Rule(
            _ERROR,
            "The zone size is outside the limits of btrfs (4 MiB to 8 GiB, a power of two).",
            _OTHER_DRIVE,
            kernel=_REFUSED,
        ),
        "zone-size-mismatch": Rule(_ERROR, "The file system was made for another zone size.", _OTHER_DRIVE),
        "zone-size-differs": Rule(
            _ERROR,
            "The devices of the file system have different zone sizes.",
            _OTHER_DRIVE,
            kernel=_REFUSED,
        ),
        "active-zones": Rule(
            _ERROR,
            "The drive allows fewer than 8 active zones: the kernel refuses it.",
            _OTHER_DRIVE,
            kernel=_REFUSED,
        ),
        "chunk-array": Rule(_ERROR, "The system chunk array cannot be decoded.", _OVERWRITTEN, kernel=_REFUSED),
        "chunk-outside": Rule(_ERROR, "A chunk does not lie inside the device.", _OTHER_DRIVE),
        "chunk-unaligned": Rule(_ERROR, "A chunk is not made of whole zones.", _OTHER_DRIVE),
        "chunk-in-reserved-zone": Rule(_ERROR, "A chunk uses a zone that is reserved for super blocks.", _MADE_WRONG),
        # devices
        "device-item": Rule(_ERROR, "The device item of the super block cannot be right.", _OVERWRITTEN),
        "device-too-small": Rule(_ERROR, "The device is smaller than its device item says.", _OTHER_DRIVE),
        "device-uuid": Rule(_ERROR, "A system chunk names another device under this device's number.", _OTHER_DRIVE),
        "device-duplicate": Rule(_ERROR, "Two devices have the same number.", "A device was copied."),
        "device-foreign": Rule(_ERROR, "A device belongs to another file system.", "The wrong device was named."),
        "device-missing": Rule(
            _WARNING,
            "Not all devices of the file system were given; block groups on the others were not checked.",
            "A device is not connected, or was not named.",
            kernel="It refuses the mount without the option degraded.",
        ),
        "device-behind": Rule(
            _WARNING,
            "A device is more than one commit behind the others.",
            "It was missing for some time, or its writes failed.",
        ),
        **rescue_rules(repair=_APPEND, kernel="Mounting fails where it is the newest super block of mirror 0."),
        **derived_rule(),
    },
)
"""Codes in the order in which the check looks for them."""
