"""The check: every rule of the format, read-only and in one streamed pass over the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zoned_tools.findings import CheckReport, Finding, Severity
from zoned_tools.formats.registry import CheckOptions, Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.codes import CODES
from zoned_tools.formats.zdm.layout import Dialect
from zoned_tools.formats.zdm.state import State, load
from zoned_tools.formats.zdm.survey import Survey, Surveyor

__all__ = ["CODES", "Checked", "check", "check_state"]


@dataclass(slots=True)
class Checked:
    """A report together with what it was derived from; repair continues from there.

    ``survey`` is None where the tables could not be judged.
    """

    state: State
    report: CheckReport
    survey: Survey | None = None
    counts: dict[str, int] = field(default_factory=dict)


def check(target: Target, options: CheckOptions) -> CheckReport:
    """Check the ZDM at ``target.start_bytes``.

    Raises:
        MetadataError: there is no ZDM.
        GeometryError: its numbers cannot be those of this partition.
    """
    return check_state(load(target)).report


def check_state(state: State) -> Checked:
    """The check of metadata that are loaded already."""
    checked = Checked(state, CheckReport("zdm", (state.path,)))
    report = _Reporter(checked)
    _check_identity(state, report)
    _check_keys(state, report)
    _note_facts(state, checked.report)
    if state.current is None and not state.fresh:
        report.add("key.none", 1, f"none of {len(state.generations.candidates)} keys belongs to a complete generation")
        return checked
    if state.refusal:
        return checked
    if state.current is not None:
        _check_generation(state, report)
    survey = Surveyor(state).run()
    checked.survey = survey
    if state.current is None:
        _check_fresh(survey, report)
        return checked
    _check_tables(state, survey, report)
    _check_zones(state, survey, report)
    checked.report.facts["mapped_blocks"] = survey.mapped
    return checked


class _Reporter:
    """Adds findings, one a code, with the number of occurrences."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked

    def add(
        self,
        code: str,
        count: int,
        message: str = "",
        *,
        severity: Severity | None = None,
        where: Mapping[str, object] | None = None,
    ) -> None:
        """Report ``code`` when ``count`` is not 0."""
        if not count:
            return
        rule = CODES[code]
        text = f"{rule.meaning[:-1]}: {message}" if message else rule.meaning[:-1]
        if count > 1:
            text += f" ({count} times)"
        if severity is Severity.INFO:  # not the fault that the rule is about
            self._checked.report.findings.append(Finding(f"zdm.{code}", severity, message, {"count": int(count)}))
            return
        self._checked.counts[code] = self._checked.counts.get(code, 0) + int(count)
        self._checked.report.findings.append(
            Finding(f"zdm.{code}", rule.severity, text, {"count": int(count), **(where or {})}, rule.repair)
        )


def _note_facts(state: State, report: CheckReport) -> None:
    geometry, current = state.geometry, state.current
    report.facts.update(
        start_sector=geometry.start_sector,
        data_zones=geometry.data_zones,
        logical_blocks=state.logical_blocks,
        dialect=str(state.dialect),
        generation=current.generation if current else None,
    )


def _check_identity(state: State, report: _Reporter) -> None:
    identity = state.identity
    if not identity.magic_ok:
        report.add("ident.magic", 1, where={"block": 0})
    if identity.form is None and (identity.magic_ok or any(state.volume.read(0))):
        report.add("ident.crc", 1, f"stored {identity.crc32:08x}", where={"block": 0})
    faults = state.geometry_faults + ([state.refusal] if state.refusal else [])
    if faults:
        report.add("ident.geometry", 1, "; ".join(faults))


def _check_keys(state: State, report: _Reporter) -> None:
    found = state.generations
    bad = [c.block for c in found.candidates if not c.valid]
    report.add("key.crc", len(bad), f"block {bad[0]}" if bad else "", where={"blocks": bad})
    if found.chosen is None:
        return
    torn = found.torn
    if torn:
        numbers = [c.generation for c in torn]
        report.add(
            "gen.torn",
            len(torn),
            f"generation {numbers[-1]} after {found.chosen.generation}",
            where={"generations": numbers},
        )
    for code in dict.fromkeys(c.fault for c in torn):
        mine = [c for c in torn if c.fault == code]
        report.add(code, len(mine), f"key in block {mine[0].block}", where={"blocks": [c.block for c in mine]})


def _check_generation(state: State, report: _Reporter) -> None:
    """Rules over the chosen generation that need no tables."""
    current, geometry = state.current, state.geometry
    assert current is not None
    key = current.key
    third = current.dialect is Dialect.D3 and current.window == layout.AREA_STARTS[Dialect.D3][2]
    report.add("gen.third_slot", int(third), f"generation {current.generation}", where={"block": current.block})
    report.add("key.dirty", int(current.dirty), where={"generation": current.generation})
    identity = state.identity
    if identity.usable and identity.data_start != key.super.zdstart:
        report.add("key.zdstart", 1, f"zone {key.super.zdstart} in the key, {identity.data_start} in the identity")
    zones = state.volume.size_blocks // layout.ZONE_BLOCKS - int(key.super.zdstart)
    if key.super.nr_zones != zones:
        report.add("key.nr_zones", 1, f"{key.super.nr_zones} in the key, {zones} on the partition")
    outside, doubled = state.journal_faults.out_of_range, state.journal_faults.duplicates
    report.add(
        "journal.range", len(outside), f"slot {outside[0]}" if outside else "", where={"slots": list(outside[:100])}
    )
    report.add(
        "journal.dup", len(doubled), f"page {doubled[0]}" if doubled else "", where={"pages": list(doubled[:100])}
    )
    _check_cache(state, report)
    _check_discards(state, report)
    streams = current.streams
    wrong = np.flatnonzero(streams >= geometry.data_zones).tolist()
    report.add("stream.range", len(wrong), f"stream {wrong[0]}" if wrong else "", where={"streams": wrong})
    reserves = {"gc": int(key.gc_resv), "metadata": int(key.meta_resv)}
    bad = [n for n, value in reserves.items() if value & layout.RESERVE_ZONE_MASK >= geometry.data_zones]
    report.add("resv.range", len(bad), ", ".join(bad), where={"reserves": bad})


def _check_cache(state: State, report: _Reporter) -> None:
    current, geometry = state.current, state.geometry
    assert current is not None
    rows = current.cache
    base, end = geometry.table_base, geometry.table_base + geometry.area_blocks
    low, high = rows[:, 2], rows[:, 2] + rows[:, 1]
    wrong = (rows[:, 0] < base) | (rows[:, 0] + rows[:, 1] > end)
    wrong |= (low != 0) & ((low < base) | (high > end))
    first = int(rows[int(np.argmax(wrong)), 0]) - geometry.data_start if wrong.any() else 0
    report.add("cache.range", int(np.count_nonzero(wrong)), f"logical block {first}", where={"logical_block": first})
    order = np.argsort(rows[:, 0], kind="stable")
    starts, ends = rows[order, 0], rows[order, 0] + rows[order, 1]
    doubled = np.flatnonzero(starts[1:] < np.maximum.accumulate(ends)[:-1]) if len(rows) else np.zeros(0, np.int64)
    first = int(starts[doubled[0] + 1]) - geometry.data_start if len(doubled) else 0
    report.add("cache.dup", len(doubled), f"logical block {first}", where={"logical_block": first})
    if current.dialect is not Dialect.D5:
        zero = low == 0
        report.add("cache.zero", int(np.count_nonzero(zero)))


def _check_discards(state: State, report: _Reporter) -> None:
    current, geometry = state.current, state.geometry
    assert current is not None
    rows = current.discards[np.argsort(current.discards[:, 0], kind="stable")]
    starts, ends = rows[:, 0], rows[:, 0] + rows[:, 1]
    limit = geometry.data_start + state.logical_blocks
    wrong = (starts < geometry.data_start) | (ends > limit)
    report.add("discard.range", int(np.count_nonzero(wrong)))
    if len(rows):
        report.add("discard.overlap", int(np.count_nonzero(starts[1:] < np.maximum.accumulate(ends)[:-1])))


def _check_fresh(survey: Survey, report: _Reporter) -> None:
    """A format that was never started: tables must be empty."""
    if any(survey.used_pages):
        used = survey.used_pages
        report.add("key.none", 1, f"{used[0]} forward and {used[1]} reverse table pages are in use, but no key is left")
        return
    report.add("key.none", 1, "freshly formatted, never started", severity=Severity.INFO)
    bad = sum(len(pages) for pages in survey.bad_crc_pages)
    report.add("crcpage.crc", bad)


def _check_tables(state: State, survey: Survey, report: _Reporter) -> None:
    report.add("wp.crc", len(state.wp_bad), where={"groups": state.wp_bad})
    report.add("zf.crc", len(state.zf_bad), where={"groups": state.zf_bad})
    report.add("crcpage.crc", sum(len(pages) for pages in survey.bad_crc_pages))
    for name, pages in zip(("fwd", "rev"), survey.bad_pages, strict=True):
        first = int(pages[0]) if len(pages) else 0
        report.add(f"lut.crc.{name}", len(pages), f"page {first}", where={"page": first})
    samples = survey.samples
    for code, count, what in (
        ("fwd.range", survey.fwd_range, "logical"),
        ("fwd.norev", survey.fwd_norev, "logical"),
        ("rev.range", survey.rev_range, "physical"),
        ("rev.nofwd", survey.rev_nofwd, "physical"),
        ("map.double", survey.doubles, "physical"),
        ("fwd.beyond_wp", int(survey.beyond.sum()), "logical"),
    ):
        first = samples.get(code, -1)
        where: dict[str, object] = {} if first < 0 else {f"{what}_block": first}
        report.add(code, count, f"first {what} block {first}" if where else "", where=where)


def _check_zones(state: State, survey: Survey, report: _Reporter) -> None:
    zones = state.zones
    recorded = (state.wp & layout.WP_MASK).astype(np.int64)
    tested = zones.sequential & ~zones.dead & (zones.wp_blocks >= 0)
    for code, mask in (
        ("wp.behind", tested & (recorded < zones.wp_blocks)),
        ("wp.ahead", tested & (recorded > zones.wp_blocks)),
    ):
        _add_zones(report, code, np.flatnonzero(mask))
    estimate = layout.ZONE_BLOCKS - (state.zf & layout.ZF_MASK).astype(np.int64)
    _add_zones(report, "zf.low_live", np.flatnonzero(estimate < survey.live))
    _add_zones(report, "zf.drift", np.flatnonzero(estimate > survey.live))
    _add_zones(report, "zone.cond", np.flatnonzero(zones.dead & (survey.live > 0)))


def _add_zones(report: _Reporter, code: str, zones: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    listed = zones[:100].tolist()
    report.add(code, len(zones), f"data zone {listed[0]}" if listed else "", where={"data_zones": listed})
