"""From what was read and measured to findings: one for each code that occurs, with how often it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import Severity
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.judge import UNREADABLE
from zoned_tools.formats.zdm.layout import Dialect
from zoned_tools.formats.zdm.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.shared.findings import FindingGroup
    from zoned_tools.formats.zdm.foreign import ForeignZones
    from zoned_tools.formats.zdm.judge import Candidate
    from zoned_tools.formats.zdm.layout import Geometry
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

_LISTED = 100
"""Places of one code that a finding lists."""


def _finding(code: str, count: int, message: str = "", /, **where: object) -> Iterator[FindingGroup]:
    """The finding for ``count`` occurrences of ``code``; none for 0."""
    if not count:
        return
    meaning = RULES[code].meaning.removesuffix(".")
    text = f"{meaning}: {message}" if message else meaning
    times = f" ({count} times)" if count > 1 else ""
    yield RULES.finding(code, text + times, repairable=True, severity=None, count=int(count), **where)


def _listed(code: str, values: list[int], what: str, key: str) -> Iterator[FindingGroup]:
    """The finding for each of ``values``, the first of which are its place."""
    message = f"{what} {values[0]}" if values else ""
    return _finding(code, len(values), message, **{key: values[:_LISTED]})


# -- identity and keys


def of_identity(state: State) -> Iterator[FindingGroup]:
    """Rules over block 0."""
    identity = state.identity
    unread = layout.IDENTITY_BLOCK in state.volume.unread
    if not identity.magic_ok and not unread:
        yield from _finding("ident.magic", 1, block=0)
    if identity.form is None and not unread and (identity.magic_ok or any(state.volume.read(0))):
        yield from _finding("ident.crc", 1, f"stored {identity.crc32:08x}", block=0)
    faults = state.geometry_faults + ([state.refusal] if state.refusal else [])
    if faults:
        yield from _finding("ident.geometry", 1, "; ".join(faults))


def of_keys(state: State) -> Iterator[FindingGroup]:
    """Rules over the keys besides the chosen one."""
    found = state.generations
    bad = [c.block for c in found.candidates if not c.valid]
    yield from _finding("key.crc", len(bad), f"block {bad[0]}" if bad else "", blocks=bad)
    if found.chosen is None:
        return
    torn = found.torn
    if torn:
        numbers = [c.generation for c in torn]
        message = f"generation {numbers[-1]} after {found.chosen.generation}"
        yield from _finding("gen.torn", len(torn), message, generations=numbers)
    for code in dict.fromkeys(c.fault for c in torn if c.fault != UNREADABLE):  # those are told by their blocks
        mine = [c.block for c in torn if c.fault == code]
        yield from _finding(code, len(mine), f"key in block {mine[0]}", blocks=mine)


def of_lost_generations(state: State) -> Iterator[FindingGroup]:
    """There are keys, but none that counts; or none, but traces of sessions."""
    count = len(state.generations.candidates)
    why = state.traces or f"none of {count} keys belongs to a complete generation"
    yield from _finding("key.none", 1, why)


# -- the chosen generation


def of_generation(state: State, current: Candidate) -> Iterator[FindingGroup]:
    """Rules over the chosen generation that need no tables."""
    key = current.key
    third = current.dialect is Dialect.D3 and current.window == layout.AREA_STARTS[Dialect.D3][2]
    yield from _finding("gen.third_slot", third, f"generation {current.generation}", block=current.block)
    yield from _finding("key.dirty", current.dirty, generation=current.generation)
    identity = state.identity
    if identity.usable and identity.data_start != key.super.zdstart:
        message = f"zone {key.super.zdstart} in the key, {identity.data_start} in the identity"
        yield from _finding("key.zdstart", 1, message)
    zones = state.volume.size_blocks // layout.ZONE_BLOCKS - int(key.super.zdstart)
    if key.super.nr_zones != zones:
        yield from _finding("key.nr_zones", 1, f"{key.super.nr_zones} in the key, {zones} on the partition")
    yield from _listed("journal.range", list(state.journal_faults.out_of_range), "slot", "slots")
    yield from _listed("journal.dup", list(state.journal_faults.duplicates), "page", "pages")
    yield from _of_cache(state.geometry, current)
    yield from _of_discards(state, current)
    yield from _of_zone_numbers(state.geometry, current)


def _of_zone_numbers(geometry: Geometry, current: Candidate) -> Iterator[FindingGroup]:
    """Streams and reserves."""
    wrong = np.flatnonzero(current.streams >= geometry.data_zones).tolist()
    yield from _finding("stream.range", len(wrong), f"stream {wrong[0]}" if wrong else "", streams=wrong)
    reserves = {"gc": int(current.key.gc_resv), "metadata": int(current.key.meta_resv)}
    bad = [n for n, value in reserves.items() if value & layout.RESERVE_ZONE_MASK >= geometry.data_zones]
    yield from _finding("resv.range", len(bad), ", ".join(bad), reserves=bad)


def _of_cache(geometry: Geometry, current: Candidate) -> Iterator[FindingGroup]:
    rows = current.cache
    base, end = geometry.table_base, geometry.table_base + geometry.area_blocks
    low, high = rows[:, 2], rows[:, 2] + rows[:, 1]
    wrong = (rows[:, 0] < base) | (rows[:, 0] + rows[:, 1] > end)
    wrong |= (low != 0) & ((low < base) | (high > end))
    if wrong.any():
        first = int(rows[int(np.argmax(wrong)), 0]) - geometry.data_start
        count = int(np.count_nonzero(wrong))
        yield from _finding("cache.range", count, f"logical block {first}", logical_block=first)
    order = np.argsort(rows[:, 0], kind="stable")
    starts, ends = rows[order, 0], rows[order, 0] + rows[order, 1]
    doubled = _overlapping(starts, ends)
    if len(doubled):
        first = int(starts[doubled[0]]) - geometry.data_start
        yield from _finding("cache.dup", len(doubled), f"logical block {first}", logical_block=first)
    if current.dialect is not Dialect.D5:
        yield from _finding("cache.zero", int(np.count_nonzero(low == 0)))


def _overlapping(starts: IntArray, ends: IntArray) -> IntArray:
    """Which of some extents, ascending by start, begin before an earlier one ends."""
    if not len(starts):
        return np.zeros(0, np.int64)
    overlapping: IntArray = np.flatnonzero(starts[1:] < np.maximum.accumulate(ends)[:-1]) + 1
    return overlapping


def _of_discards(state: State, current: Candidate) -> Iterator[FindingGroup]:
    geometry = state.geometry
    rows = current.discards[np.argsort(current.discards[:, 0], kind="stable")]
    starts, ends = rows[:, 0], rows[:, 0] + rows[:, 1]
    limit = geometry.data_start + state.logical_blocks
    wrong = (starts < geometry.data_start) | (ends > limit)
    yield from _finding("discard.range", int(np.count_nonzero(wrong)))
    yield from _finding("discard.overlap", len(_overlapping(starts, ends)))


# -- tables and zones


def of_fresh(survey: Survey) -> Iterator[FindingGroup]:
    """A format that was never started: tables must be empty."""
    if any(survey.used_pages):
        used = survey.used_pages
        message = f"{used[0]} forward and {used[1]} reverse table pages are in use, but no key is left"
        yield from _finding("key.none", 1, message)
        return
    yield RULES.finding(
        "key.none", "freshly formatted, never started", severity=Severity.INFO, repairable=False, count=1
    )
    yield from _finding("crcpage.crc", sum(len(pages) for pages in survey.bad_crc_pages))


def of_tables(state: State, survey: Survey) -> Iterator[FindingGroup]:
    """Checksums, and agreement of the tables."""
    for code, bad, unread in (("wp.crc", state.wp_bad, state.wp_unread), ("zf.crc", state.zf_bad, state.zf_unread)):
        groups = [group for group in bad if group not in unread]
        yield from _finding(code, len(groups), groups=groups)
    yield from _finding("crcpage.crc", sum(len(pages) for pages in survey.bad_crc_pages))
    for name, pages in zip(("fwd", "rev"), survey.bad_pages, strict=True):
        first = int(pages[0]) if len(pages) else 0
        yield from _finding(f"lut.crc.{name}", len(pages), f"page {first}", page=first)
    for code, count, what in (
        ("fwd.range", survey.fwd_range, "logical"),
        ("fwd.norev", survey.fwd_norev, "logical"),
        ("rev.range", survey.rev_range, "physical"),
        ("rev.nofwd", survey.rev_nofwd, "physical"),
        ("map.double", survey.doubles, "physical"),
        ("fwd.beyond_wp", int(survey.beyond.sum()), "logical"),
    ):
        first = survey.samples.get(code, -1)
        where: dict[str, object] = {} if first < 0 else {f"{what}_block": first}
        yield from _finding(code, count, f"first {what} block {first}" if where else "", **where)


def of_zones(state: State, survey: Survey) -> Iterator[FindingGroup]:
    """What is recorded about zones against the drive and the tables."""
    zones = state.zones
    recorded = (state.wp & layout.WP_MASK).astype(np.int64)
    tested = zones.sequential & ~zones.dead & (zones.wp_blocks >= 0)
    estimate = layout.ZONE_BLOCKS - (state.zf & layout.ZF_MASK).astype(np.int64)
    # In a group with a wrong checksum they say nothing that could be an error.
    estimated = ~np.isin(np.arange(len(estimate)) // layout.GROUP_ZONES, np.array(state.zf_bad, np.int64))
    # What is mapped by a page that cannot be read is not counted.
    drifts = (estimate > survey.live) & ~np.isin(np.arange(len(estimate)) // layout.GROUP_ZONES, state.zf_unread)
    drifts &= not len(survey.unread_pages[0])
    for code, mask in (
        ("wp.behind", tested & (recorded < zones.wp_blocks)),
        ("wp.ahead", tested & (recorded > zones.wp_blocks)),
        ("zf.low_live", estimated & (estimate < survey.live)),
        ("zf.drift", drifts),
        ("zone.cond", zones.dead & (survey.live > 0)),
    ):
        yield from _listed(code, np.flatnonzero(mask).tolist(), "data zone", "data_zones")


def of_foreign_zones(found: ForeignZones) -> Iterator[FindingGroup]:
    """One finding in place of everything that compares with write pointers."""
    yield RULES.finding("zones-foreign", found.sentence, zones=found.zones, empty=found.empty)
