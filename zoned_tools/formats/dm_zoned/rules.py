"""Every finding of the dm-zoned check: severity, meaning, causes, what the kernel does, what repair does and asks.

Source: section 8 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from zoned_tools.formats.dm_zoned.constants import NAME
from zoned_tools.formats.shared.derived import derived_rule
from zoned_tools.formats.shared.findings import Severity
from zoned_tools.formats.shared.losses import rescue_rules
from zoned_tools.formats.shared.rules import Consent, Rule, Rules

_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.INFO
_GUESSES, _LOSES = Consent.GUESSES, Consent.LOSES

_REWRITE = "rewritten from the good metadata set"
_USED_ZONE = (
    "also in the first zone of a member that holds more than a super block: that zone is reset, and whatever it holds "
    "is lost"
)
_PAIRED = "the zone without a chunk that certainly belongs to it is named instead"
_UNMAP = f"{_PAIRED}; where none could belong to it the chunk is unmapped, else with consent"
_PROMOTE = (
    "the buffer zone that holds valid blocks becomes the data zone; the rest of the logical range reads as zeroes"
)
_UNMAP_RIVALS = (
    "the chunk is unmapped although several zones without a chunk could belong to it (their valid bits stay; setting "
    "pair=CHUNK:ZONE[+BUFFER] says which does); where none could belong to it, " + _PROMOTE
)
_DROP_BUFFER = "the buffer zone is dropped; valid blocks in it only with consent"
_DROP_VALID = "the buffer zone is dropped although it holds valid blocks, which are lost"
_MEDIUM = "a medium error, or something overwrote the metadata zones"
_SOFTWARE = "a bug in a driver or a repair tool, or a hand-edited table"
_REFUSES = "refuses to activate"


RULES = Rules(
    NAME,
    {
        "sb-bad-magic": Rule(
            _ERROR,
            "a super block does not start with the dm-zoned magic",
            _MEDIUM,
            _REWRITE,
            kernel="takes the other set; crashes when both are bad",
            asks=_GUESSES,
            allow=_USED_ZONE,
        ),
        "sb-bad-crc": Rule(
            _ERROR,
            "a super block's checksum does not match its content",
            _MEDIUM,
            _REWRITE,
            kernel="takes the other set; crashes when both are bad",
            asks=_GUESSES,
            allow=_USED_ZONE,
        ),
        "sb-bad-version": Rule(
            _ERROR,
            "a super block has metadata version 0 or one above 2",
            "metadata of a newer tool, or damage",
            _REWRITE,
            kernel="takes 0 for 1 and refuses versions above 2",
        ),
        "sb-null-uuid": Rule(
            _ERROR,
            "a version 2 super block has no target UUID; the kernel refuses it",
            "dmzadm --repair or --relabel of a version 1 device",
            _REWRITE,
            kernel="refuses the super block",
        ),
        "sb-uuid-mismatch": Rule(
            _ERROR,
            "a super block belongs to another target",
            "a member of another target, wrong device order, or leftovers of an earlier format",
            _REWRITE,
            kernel="overlooks it in a member that is not the last one",
            asks=_GUESSES,
            allow="also that of a member: the device is taken over into this target",
        ),
        "sb-null-label": Rule(
            _ERROR,
            "a version 2 super block has an empty label",
            "an interrupted relabel",
            _REWRITE,
            kernel="adopts the next label",
        ),
        "sb-label-mismatch": Rule(
            _ERROR,
            "the label differs from the first good super block's",
            "an interrupted relabel",
            _REWRITE,
            kernel="refuses the super block",
        ),
        "sb-null-dev-uuid": Rule(
            _ERROR,
            "a super block has no device UUID; the kernel refuses it",
            "dmzadm --relabel with a damaged tertiary super block",
            f"{_REWRITE}, with a new device UUID",
            kernel="refuses the super block",
        ),
        "sb-bad-location": Rule(
            _ERROR,
            "a super block says that it belongs elsewhere",
            "a copied or shifted image, wrong device order",
            _REWRITE,
            kernel=_REFUSES,
        ),
        "sb-bad-meta-blocks": Rule(
            _ERROR,
            "the number of metadata blocks is not the sum of its parts",
            _MEDIUM,
            _REWRITE,
            kernel="does not test it",
        ),
        "sb-bad-map-blocks": Rule(
            _ERROR,
            "the number of mapping table blocks does not fit the number of chunks; the kernel indexes past its array",
            _MEDIUM,
            _REWRITE,
            kernel="indexes past its array",
        ),
        "sb-bad-bitmap-blocks": Rule(
            _ERROR,
            "the number of bitmap blocks does not fit the number of zones",
            "another zone size or damage",
            _REWRITE,
            kernel="does not test it",
        ),
        "sb-bad-reserved": Rule(
            _ERROR,
            "the number of reserved sequential zones is 0 or above the number of cache zones",
            _MEDIUM,
            _REWRITE,
            kernel="refuses 0, and a reserve as large as the drive",
        ),
        "sb-bad-chunks": Rule(
            _ERROR,
            "the number of chunks is 0 or more than the usable zones allow; the kernel refuses the set",
            "damage, or zones that became read-only or offline after the format",
            f"{_REWRITE}; when zones died, the reserve is lowered",
            kernel="refuses the set",
            asks=_GUESSES,
            allow="the reserve is lowered although no zones that died explain the excess, or hardly any is left",
        ),
        "sb-short-chunks": Rule(
            _NOTE, "fewer chunks than would fit", "an older tool, or the reference tool's estimate of the table size"
        ),
        "sb-reserved-nonzero": Rule(
            _NOTE, "bytes that the format reserves are not zero", "an unknown tool", "zeroed", kernel="keeps them"
        ),
        "sb-tertiary-gen": Rule(
            _NOTE,
            "a tertiary super block has a generation",
            "an unknown tool",
            "rewritten with 0",
            kernel="warns",
        ),
        "sb-lost": Rule(
            _ERROR,
            "no metadata set has a super block; where the metadata are follows from the zones and from their content",
            _MEDIUM,
            "nothing; with consent the super blocks are made anew, after both sets are made equal",
            kernel="crashes while activating",
            asks=_GUESSES,
            allow="super blocks are made anew: with the counts and names of a member's, or with a reserve, a label and "
            "UUIDs that nothing tells (settings seq, label, uuid and version say them)",
        ),
        "sets-gen-differ": Rule(
            _WARNING,
            "the metadata sets have different generations and need a sync",
            "a power cut during a commit; the kernel then logs into the older set without completing it, "
            "and after the next commit a whole commit can be lost",
            "the newer set is copied to the older one, super block last; when it has errors that the older one has "
            "not, nothing is written until --use-set N says which set is copied",
            kernel="takes the newer set and does not bring the older one up to date",
            asks=_GUESSES,
        ),
        "sets-content-differ": Rule(
            _ERROR,
            "the metadata sets have the same generation but different content",
            "the kernel target ran after a power cut between its two super block writes, which leaves a set without "
            "the blocks of one commit; or a power cut while the kernel filled the other set",
            "decided block by block: what can be read, breaks no rule or fits the drive in one set alone is copied to "
            "the other; where both are equally good nothing is written until --use-set N says which set is right "
            "(setting bits=union: the valid bits of both, where only bitmaps differ)",
            kernel="takes set 0",
            asks=_GUESSES,
        ),
        "map-dzone-range": Rule(
            _ERROR,
            "a chunk names a data zone that does not exist; the kernel refuses to activate",
            _MEDIUM,
            _UNMAP,
            kernel=_REFUSES,
            asks=_LOSES,
            allow=_UNMAP_RIVALS,
        ),
        "map-bzone-range": Rule(
            _ERROR,
            "a chunk names a buffer zone that does not exist; the kernel refuses to activate",
            _MEDIUM,
            f"{_PAIRED}; where none could belong to it the buffer zone is dropped, else with consent",
            kernel=_REFUSES,
            asks=_LOSES,
            allow="the buffer zone is dropped although several zones without a chunk could be it; their valid bits "
            "stay (setting pair=CHUNK:ZONE+BUFFER says which is)",
        ),
        "map-meta-zone": Rule(
            _ERROR,
            "a chunk names a zone that holds metadata; the kernel activates and exposes or overwrites its own super "
            "block",
            _SOFTWARE,
            f"{_UNMAP}; a buffer zone is dropped",
            kernel="activates, and exposes or overwrites its own super block",
            asks=_LOSES,
            allow=f"{_UNMAP_RIVALS}; a buffer zone is dropped",
        ),
        "map-zone-shared": Rule(
            _ERROR,
            "a zone is named by two chunks or in two roles; the kernel stops with a BUG while activating",
            _SOFTWARE,
            "the one chunk that it fits keeps the zone, and the others get the zones without a chunk that certainly "
            "belong to them, or are unmapped where none could; else only with consent",
            kernel="stops with a BUG while activating",
            asks=_GUESSES,
            allow="the lowest chunk that it fits keeps the zone; the others are unmapped, or their buffer zone becomes "
            "the data zone (setting pair=CHUNK:ZONE[+BUFFER] says which zone a chunk has)",
        ),
        "map-bzone-without-dzone": Rule(
            _ERROR,
            "a chunk has a buffer zone but no data zone",
            _SOFTWARE,
            "the buffer zone is dropped when it holds nothing; else the zone without a chunk that certainly belongs to "
            "it becomes the data zone, or with consent the buffer zone",
            kernel="activates",
            asks=_GUESSES,
            allow=f"{_PROMOTE} (setting bzone=drop: it is dropped and its blocks are lost)",
        ),
        "map-bzone-not-random": Rule(
            _ERROR,
            "a buffer zone is not a conventional or cache zone; the kernel refuses to activate",
            _SOFTWARE,
            _DROP_BUFFER,
            kernel=_REFUSES,
            asks=_LOSES,
            allow=_DROP_VALID,
        ),
        "map-bzone-on-random": Rule(
            _ERROR,
            "a chunk on a conventional zone has a buffer zone",
            _SOFTWARE,
            _DROP_BUFFER,
            kernel="activates",
            asks=_LOSES,
            allow=_DROP_VALID,
        ),
        "map-bzone-is-dzone": Rule(
            _ERROR,
            "a chunk's buffer zone is its data zone; the kernel refuses to activate",
            _SOFTWARE,
            "the buffer zone is dropped",
            kernel="refuses to activate, or stops with a BUG",
        ),
        "map-empty-seq": Rule(
            _WARNING,
            "a chunk without a buffer is on an empty sequential zone",
            "a zone was reset behind the target's back, or a stale metadata set",
            "unmapped: it reads as zeroes already",
            kernel="activates; the chunk reads as zeroes",
        ),
        "map-tail": Rule(
            _NOTE,
            "an entry after the last chunk is in use",
            "a shrunk target, or a super block that has forgotten chunks",
            "set to all ones; one that names a zone with valid bits only with consent",
            kernel="ignores it",
            asks=_LOSES,
            allow="set to all ones although its zones hold valid blocks, whose bits stay (setting chunks=N gives the "
            "chunks back instead)",
        ),
        "bits-after-wp": Rule(
            _ERROR,
            "blocks are marked valid at or after the write pointer",
            "a zone was reset or lost writes; the kernel's reclaim resets a zone before it commits the move to the "
            "buffer",
            "cleared; when the zone is empty and the chunk buffered, the bits move to the buffer zone where it "
            "certainly has the blocks, else they stay until --set reclaim=move or reclaim=clear decides",
            kernel="may read beyond the write pointer, or return zeroes",
            asks=_GUESSES,
        ),
        "bits-overlap-buffer": Rule(
            _ERROR,
            "blocks are marked valid in a data zone and in its buffer zone",
            _SOFTWARE,
            "the data zone wins as in the kernel: the buffer's bits are cleared (setting overlap=buffer: the other "
            "way)",
            kernel="reads the data zone",
        ),
        "bits-unmapped": Rule(
            _ERROR,
            "blocks are marked valid in a zone that no chunk names",
            "a lost entry of the mapping table, of which they are all that is left; or a half written set",
            "cleared where nothing but zeroes can be read there, at or after a write pointer, and in metadata zones; "
            "else only with consent",
            kernel="ignores them until the zone is used again",
            asks=_LOSES,
            allow="the bits are cleared although the blocks hold data, which cannot be found again (setting "
            "pair=CHUNK:ZONE[+BUFFER] gives the zone to a chunk)",
        ),
        "bits-beyond-zone": Rule(
            _NOTE, "bits are set past the end of a zone", "an unknown tool", "cleared", kernel="ignores them"
        ),
        "zone-unmapped-not-empty": Rule(
            _WARNING,
            "a sequential zone that no chunk names has been written",
            "a power cut during reclaim, which is normal; or a stale metadata set that does not know the zone",
            "kept; reset only with consent, as it may hold lost data",
            kernel="resets it when it needs the zone",
            asks=_LOSES,
            allow="the zone is reset, and what was written to it is lost",
        ),
        "zone-offline-mapped": Rule(
            _ERROR, "a mapped zone is offline: its data are lost", "a dying drive", kernel="fails reads and writes"
        ),
        "zone-readonly-mapped": Rule(
            _WARNING, "a mapped zone is read-only: writes to the chunk fail", "a dying drive", kernel="fails writes"
        ),
        "zones-foreign": Rule(
            _ERROR,
            "the zone table contradicts the metadata everywhere: it is another drive's, or the drive was reset",
            "a new drive's report or an old table beside an image, a foreign member of the same model, or a drive that "
            "was reset",
            "nothing is written; with consent the chunks are unmapped and the bits cleared that the zone table "
            "contradicts",
            kernel="activates, and returns zeroes",
            asks=_LOSES,
            allow="the zone table is right and the data are gone: chunks on empty zones are unmapped, valid bits after "
            "write pointers cleared",
        ),
        "zone-runt": Rule(
            _WARNING,
            "a zone is shorter than the others; the kernel (6.1) may pick it for reclaim and then retries for ever",
            "a drive whose size is not a multiple of its zone size",
            kernel="may pick it for reclaim and then retries for ever",
        ),
        "regular-size-changed": Rule(
            _ERROR,
            "the regular device has more or fewer zones than at format",
            "it was copied to a partition of another size, or its volume was resized",
            kernel=_REFUSES,
        ),
        **rescue_rules(
            repair="rewritten from the other metadata set; from an older set, and the super block of a member, only "
            "with consent",
            asks=_GUESSES,
            allow="blocks that only the older metadata set has are taken from it, which may lack the last commit; the "
            "super block of a member is made anew, with a new device UUID",
            lost_repair="nothing; an entry of the mapping table whose zone pair=CHUNK:ZONE[+BUFFER] names is kept when "
            "no other zone is left without a chunk, else only with consent",
            lost_asks=_LOSES,
            lost_allow="chunks of a lost block of the mapping table that the setting pair= does not name are unmapped "
            "(the bits of their zones stay), and of a zone whose bitmap is lost every block that was written is valid",
        ),
        **derived_rule(),
    },
)
"""Specification code to rule; printed by ``zoned explain``."""
