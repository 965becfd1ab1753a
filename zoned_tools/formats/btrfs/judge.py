"""Which super block counts, and why: what is wrong with the kernel's choice, and what may be written instead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.btrfs.checksum import seal
from zoned_tools.formats.btrfs.copies import Copy, Csum, Magic, copy_fsid
from zoned_tools.formats.btrfs.layout import SUPER_BLOCK_OFFSETS, parse
from zoned_tools.formats.btrfs.ring import Fill, RingState, older_zone, smallest_generations
from zoned_tools.formats.btrfs.validate import field_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.survey import FileSystem, MirrorSurvey

MAX_ROOT_TESTS = 4096
"""Super blocks whose roots are tried when a good one is looked for; those of older ones are gone anyway."""


UNREADABLE = "block-unreadable"

_COMMIT_FIELDS = ("generation", "root", "chunk_root", "log_root", "fsid")
"""What two copies of one commit have in common."""

# -- the kernel's choice


def mirror_is_absent(survey: MirrorSurvey) -> bool:
    """Whether a mirror other than the first was never written: its ring is empty, or its regular place all zero.

    The kernel does not read it at mount, and the next commit starts it (btrfs-zoned.md 7).
    """
    if survey.number == 0 or survey.is_dead:
        return False
    if survey.mirror.pair is not None:
        return survey.state is RingState.ABSENT
    return survey.head is not None and bool(survey.head["zero"])


def head_fault(survey: MirrorSurvey) -> tuple[str, str] | None:
    """``(code, sentence)`` of what is wrong with what the kernel takes for the newest; None when it is valid."""
    if survey.state is RingState.INVALID:
        return None
    head = survey.head
    if head is None:
        return "head-none", "both zones of the ring are empty"
    at = f"the block at byte {int(head['offset_bytes'])}"
    if head["unreadable"]:
        return UNREADABLE, f"{at} cannot be read"
    if head["magic"] != Magic.OK:
        return _magic_fault(head, at)
    if head["csum"] != Csum.OK:
        return _checksum_fault(survey, head, at)
    if not head["bytenr_ok"]:
        return "head-bytenr", f"{at} says that it belongs at byte {int(head['bytenr'])}"
    if not head["fsid_ok"]:
        return "head-fsid", f"{at} has fsid {copy_fsid(head)}, which does not match its device item"
    return None


def _magic_fault(head: Copy, at: str) -> tuple[str, str]:
    if head["magic"] == Magic.TEMPORARY:
        return "head-magic", f"{at} has the temporary magic of an unfinished mkfs"
    return ("head-none", f"{at} is all zero") if head["zero"] else ("head-magic", f"{at} has no btrfs magic")


def _checksum_fault(survey: MirrorSurvey, head: Copy, at: str) -> tuple[str, str]:
    """A good magic and the next generation with a bad checksum: the write did not end."""
    if head["csum"] == Csum.UNKNOWN_TYPE:
        return "head-csum", f"{at} has a checksum of an unknown type"
    generation = int(head["generation"])
    if survey.newest is not None and generation - survey.newest_generation in (0, 1):
        return "head-torn", f"{at} (generation {generation}) was written only in part"
    return "head-csum", f"{at} (generation {generation}) has a bad checksum"


def _takes_newest(survey: MirrorSurvey) -> bool:
    """Whether the kernel's choice is the newest valid super block: that copy, or a copy of the same commit.

    A repair writes a good block again, and where the two stand at the starts of both zones their order is a tie.
    """
    if survey.newest is None or not survey.head_is_valid:
        return False
    head, newest = survey.head, survey.newest_copy
    assert head is not None
    assert newest is not None
    return survey.head_row == survey.newest or all(head[name] == newest[name] for name in _COMMIT_FIELDS)


def wrong_choice(survey: MirrorSurvey) -> bool:
    """Whether a damaged last block makes the kernel take another than the newest valid super block."""
    if not survey.slots_decide() or survey.newest is None or _takes_newest(survey):
        return False
    if survey.head is not None and survey.head["unreadable"]:
        return False  # it takes none
    pair = survey.mirror.pair
    assert pair is not None
    lasts = np.isin(survey.copies["offset_bytes"], [zone.last_slot_bytes for zone in pair])
    sound = (survey.copies["magic"] == Magic.OK) & (survey.copies["csum"] == Csum.OK)
    return not bool(sound[lasts].all())


def unaligned_zone(survey: MirrorSurvey) -> int | None:
    """0 or 1: the zone in use whose write pointer is inside a block; None without any."""
    pair = survey.mirror.pair or ()
    return next((i for i, zone in enumerate(pair) if zone.fill is Fill.IN_USE and not zone.wp_is_aligned), None)


def repair_code(survey: MirrorSurvey) -> str | None:
    """The finding for which a mirror has to be repaired; None when the kernel finds its newest good super block."""
    if survey.state is RingState.INVALID:
        return "ring-invalid"
    if mirror_is_absent(survey):
        return None
    fault = head_fault(survey)
    if fault is not None:
        return fault[0]
    if wrong_choice(survey):
        return "choice-influenced"
    return "wp-unaligned" if unaligned_zone(survey) is not None else None


# -- what may be written instead


@dataclass(frozen=True, slots=True)
class Good:
    """A super block that may be written again.

    Attributes:
        block: its 4096 bytes, fit for the mirror it is meant for.
        offset_bytes: where it comes from.
        mirror: the mirror it comes from.
        readable: whether its roots can be read; None when that cannot be told.
        passed_over: generation of the newest valid super block, when it is another one
            because that one's roots cannot be read; None when this is the newest.
    """

    block: bytes
    generation: int
    offset_bytes: int
    mirror: int
    readable: bool | None
    passed_over: int | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it has a field for which the kernel refuses it."""
        return any(field_faults(parse(self.block)))

    def without_log(self) -> Good:
        """The same without its tree log."""
        return replace(self, block=without_log(self.block))


def rows_newest_first(survey: MirrorSurvey) -> Iterator[int]:
    """Rows of the valid copies of a mirror, from the newest back, in the order of the ring."""
    copies = survey.copies
    newer = 1 - older_zone(smallest_generations(copies["zone"], copies["valid"], copies["generation"]))
    for zone in (newer, 1 - newer):
        yield from np.flatnonzero(copies["valid"] & (copies["zone"] == zone))[::-1].tolist()


def for_mirror(block: bytes, bytenr: int) -> bytes:
    """A super block changed to belong to the mirror with this ``bytenr``, its checksum computed anew."""
    at = SUPER_BLOCK_OFFSETS["bytenr"]
    if block[at : at + 8] == bytenr.to_bytes(8, "little"):
        return block
    return _sealed(block[:at] + bytenr.to_bytes(8, "little") + block[at + 8 :])


def without_log(block: bytes) -> bytes:
    """A super block without a tree log, its checksum computed anew."""
    changed = bytearray(block)
    for name, size in (("log_root", 8), ("log_root_level", 1)):
        at = SUPER_BLOCK_OFFSETS[name]
        changed[at : at + size] = bytes(size)
    return _sealed(bytes(changed))


def _sealed(block: bytes) -> bytes:
    at = SUPER_BLOCK_OFFSETS["csum_type"]
    return seal(block, int.from_bytes(block[at : at + 2], "little"))


def make_good(fs: FileSystem, index: int, source: MirrorSurvey, row: int, bytenr: int) -> Good:
    """The copy in ``row`` of ``source``, fit for the mirror with ``bytenr``."""
    copy = source.copies[row]
    block = for_mirror(fs.surveys[index].block(copy), bytenr)
    return Good(block, source.generation(row), int(copy["offset_bytes"]), source.number, source.roots_readable(row))


def choose_good(fs: FileSystem, index: int, survey: MirrorSurvey) -> Good | None:
    """The super block to write again to a mirror: the newest with readable roots.

    The mirror's own copies are preferred; another mirror's newest is taken when its
    generation is higher or the mirror has none. What is gone back to has no field for which the
    kernel refuses it. If no roots can be read at all, the newest valid one is taken. None when no
    mirror of the device has a valid copy.
    """
    newest: Good | None = None
    for source, row in _candidates(fs, index, survey):
        readable = fs.readability(index, source, row).readable is not False
        if newest is not None and not readable:
            continue
        good = make_good(fs, index, source, row, survey.mirror.bytenr)
        if newest is None and readable:
            return good
        if newest is not None and not good.is_refused:
            return replace(good, passed_over=newest.generation)
        newest = newest or good
    return newest


def _candidates(fs: FileSystem, index: int, survey: MirrorSurvey) -> Iterator[tuple[MirrorSurvey, int]]:
    """Copies for a mirror, the best first: newer ones of other mirrors, its own, older ones of other mirrors."""
    others = [m for m in fs.surveys[index].mirrors if m is not survey and m.newest is not None]
    others.sort(key=lambda m: m.newest_generation, reverse=True)
    own = [(survey, row) for row in rows_newest_first(survey)][:MAX_ROOT_TESTS]
    yield from (
        (m, m.newest) for m in others if m.newest is not None and m.newest_generation > survey.newest_generation
    )
    yield from own
    for source in others:
        yield from ((source, row) for row in list(rows_newest_first(source))[:MAX_ROOT_TESTS])
