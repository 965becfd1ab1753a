"""Every finding of the dm-zoned check: severity, meaning, causes, and what repair does."""

from __future__ import annotations

from zoned_tools.findings import Severity
from zoned_tools.formats.registry import Code

_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.INFO

_REWRITE = "rewritten from the good metadata set"
_UNMAP = "the chunk is unmapped; the lost logical range is named"
_DROP_BUFFER = "the buffer zone is dropped; valid blocks in it only with consent"
_MEDIUM = "a medium error, or something overwrote the metadata zones"
_SOFTWARE = "a bug in a driver or a repair tool, or a hand-edited table"

CODES: dict[str, Code] = {
    "sb-bad-magic": Code(_ERROR, "a super block does not start with the dm-zoned magic", _MEDIUM, _REWRITE),
    "sb-bad-crc": Code(_ERROR, "a super block's checksum does not match its content", _MEDIUM, _REWRITE),
    "sb-bad-version": Code(
        _ERROR, "a super block has metadata version 0 or one above 2", "metadata of a newer tool, or damage", _REWRITE
    ),
    "sb-null-uuid": Code(
        _ERROR,
        "a version 2 super block has no target UUID; the kernel refuses it",
        "dmzadm --repair or --relabel of a version 1 device",
        _REWRITE,
    ),
    "sb-uuid-mismatch": Code(
        _ERROR,
        "a super block belongs to another target",
        "a member of another target, wrong device order, or leftovers of an earlier format",
        _REWRITE,
    ),
    "sb-null-label": Code(_ERROR, "a version 2 super block has an empty label", "an interrupted relabel", _REWRITE),
    "sb-label-mismatch": Code(
        _ERROR, "the label differs from the first good super block's", "an interrupted relabel", _REWRITE
    ),
    "sb-null-dev-uuid": Code(
        _ERROR,
        "a super block has no device UUID; the kernel refuses it",
        "dmzadm --relabel with a damaged tertiary super block",
        f"{_REWRITE}, with a new device UUID",
    ),
    "sb-bad-location": Code(
        _ERROR,
        "a super block says that it belongs elsewhere",
        "a copied or shifted image, wrong device order",
        _REWRITE,
    ),
    "sb-bad-meta-blocks": Code(_ERROR, "the number of metadata blocks is not the sum of its parts", _MEDIUM, _REWRITE),
    "sb-bad-map-blocks": Code(
        _ERROR,
        "the number of mapping table blocks does not fit the number of chunks; the kernel indexes past its array",
        _MEDIUM,
        _REWRITE,
    ),
    "sb-bad-bitmap-blocks": Code(
        _ERROR, "the number of bitmap blocks does not fit the number of zones", "another zone size or damage", _REWRITE
    ),
    "sb-bad-reserved": Code(
        _ERROR, "the number of reserved sequential zones is 0 or above the number of cache zones", _MEDIUM, _REWRITE
    ),
    "sb-bad-chunks": Code(
        _ERROR,
        "the number of chunks is 0 or more than the usable zones allow; the kernel refuses the set",
        "damage, or zones that became read-only or offline after the format",
        f"{_REWRITE}; when zones died, the reserve is lowered",
    ),
    "sb-short-chunks": Code(
        _NOTE, "fewer chunks than would fit", "an older tool, or the reference tool's estimate of the table size"
    ),
    "sb-reserved-nonzero": Code(_NOTE, "bytes that the format reserves are not zero", "an unknown tool", "zeroed"),
    "sb-tertiary-gen": Code(_NOTE, "a tertiary super block has a generation", "an unknown tool", "rewritten with 0"),
    "sets-gen-differ": Code(
        _WARNING,
        "the metadata sets have different generations and need a sync",
        "a power cut during a commit; the kernel then logs into the older set without completing it, "
        "and after the next commit a whole commit can be lost",
        "the newer set is copied to the older one, super block last",
    ),
    "sets-content-differ": Code(
        _ERROR,
        "the metadata sets have the same generation but different content",
        "the kernel target ran after a power cut between its two super block writes, which leaves a set without "
        "the blocks of one commit; or a power cut while the kernel filled the other set",
        "both sets are checked, the one with fewer findings is copied (set 0 on a tie); --use-set decides otherwise",
    ),
    "map-dzone-range": Code(
        _ERROR, "a chunk names a data zone that does not exist; the kernel refuses to activate", _MEDIUM, _UNMAP
    ),
    "map-bzone-range": Code(
        _ERROR,
        "a chunk names a buffer zone that does not exist; the kernel refuses to activate",
        _MEDIUM,
        "the buffer zone is dropped",
    ),
    "map-meta-zone": Code(
        _ERROR,
        "a chunk names a zone that holds metadata; the kernel activates and exposes or overwrites its own super block",
        _SOFTWARE,
        f"data zone: {_UNMAP}; buffer zone: dropped",
    ),
    "map-zone-shared": Code(
        _ERROR,
        "a zone is named by two chunks or in two roles; the kernel stops with a BUG while activating",
        _SOFTWARE,
        "the chunk whose write pointer and bits fit keeps the zone, else the lowest; only with consent",
    ),
    "map-bzone-without-dzone": Code(
        _ERROR,
        "a chunk has a buffer zone but no data zone",
        _SOFTWARE,
        "the buffer zone is dropped when it holds nothing, else it becomes the data zone with consent",
    ),
    "map-bzone-not-random": Code(
        _ERROR,
        "a buffer zone is not a conventional or cache zone; the kernel refuses to activate",
        _SOFTWARE,
        _DROP_BUFFER,
    ),
    "map-bzone-on-random": Code(_ERROR, "a chunk on a conventional zone has a buffer zone", _SOFTWARE, _DROP_BUFFER),
    "map-bzone-is-dzone": Code(
        _ERROR,
        "a chunk's buffer zone is its data zone; the kernel refuses to activate",
        _SOFTWARE,
        "the buffer zone is dropped",
    ),
    "map-empty-seq": Code(
        _WARNING,
        "a chunk without a buffer is on an empty sequential zone",
        "a zone was reset behind the target's back, or a stale metadata set",
        "unmapped: it reads as zeroes already",
    ),
    "map-tail": Code(_NOTE, "an entry after the last chunk is in use", "a shrunk target", "set to all ones"),
    "bits-after-wp": Code(
        _ERROR,
        "blocks are marked valid at or after the write pointer",
        "a zone was reset or lost writes; the kernel's reclaim resets a zone before it commits the move to the buffer",
        "cleared; when the zone is empty and the chunk buffered, the bits move to the buffer zone, which has the bytes",
    ),
    "bits-overlap-buffer": Code(
        _ERROR,
        "blocks are marked valid in a data zone and in its buffer zone",
        _SOFTWARE,
        "the data zone wins as in the kernel: the buffer's bits are cleared (setting overlap=buffer: the other way)",
    ),
    "bits-unmapped": Code(
        _ERROR,
        "blocks are marked valid in a zone that no chunk names",
        "an interrupted write of the bitmaps",
        "cleared",
    ),
    "bits-beyond-zone": Code(_NOTE, "bits are set past the end of a zone", "an unknown tool", "cleared"),
    "zone-unmapped-not-empty": Code(
        _WARNING,
        "a sequential zone that no chunk names has been written",
        "a power cut during reclaim, which is normal; or a stale metadata set that does not know the zone",
        "kept; reset only with consent, as it may hold lost data",
    ),
    "zone-offline-mapped": Code(_ERROR, "a mapped zone is offline: its data are lost", "a dying drive"),
    "zone-readonly-mapped": Code(_WARNING, "a mapped zone is read-only: writes to the chunk fail", "a dying drive"),
    "zone-runt": Code(
        _WARNING,
        "a zone is shorter than the others; the kernel (6.1) may pick it for reclaim and then retries for ever",
        "a drive whose size is not a multiple of its zone size",
    ),
}
"""Specification code to description; printed by ``zoned explain``."""
