"""fsck, read-only: every rule of the format over the super blocks, both sets and the zones.

The set that is reported is the one that the kernel would activate: the only valid one, the
newer one, or set 0 when the generations are equal. Equal generations with different
content are not trusted: the other set is examined too (its findings carry ``"set"``), and
:data:`RECOMMENDED_SET` among the report's facts is the one with fewer findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from zoned_tools.findings import CheckReport, Finding, NothingToCheckError
from zoned_tools.formats.dm_zoned.codes import CODES
from zoned_tools.formats.dm_zoned.examine import NO_CHUNK, MapExamination, SetExamination, examine_set
from zoned_tools.formats.dm_zoned.layout import (
    LAYOUT_NAME,
    MetadataLayout,
    TargetGeometry,
    ZoneKind,
    held_zones,
    nr_first_write_zones,
)
from zoned_tools.formats.dm_zoned.metadata import open_blocks
from zoned_tools.formats.dm_zoned.superblocks import SuperblockState, TargetState, read_state
from zoned_tools.formats.registry import CheckOptions, Target

__all__ = ["CODES", "NoValidSuperblockError", "check"]

SET_USED = "set_used"
RECOMMENDED_SET = "recommended_set"


class NoValidSuperblockError(NothingToCheckError):
    """Neither metadata set can be used.

    ``found_any`` is False when there is no trace of dm-zoned at all.
    """

    clone_status = 255

    def __init__(self, report: CheckReport, *, found_any: bool, plausible: int | None = None) -> None:
        hint = "" if plausible is None else f"set {plausible} looks plausible: repair with --use-set {plausible}"
        super().__init__("No valid superblock found", report, hint=hint)
        self.found_any = found_any


def finding(code: str, message: str, **where: object) -> Finding:
    """A finding with the severity and the repair text of its code."""
    about = CODES[code]
    return Finding(f"{LAYOUT_NAME}.{code}", about.severity, message, where, about.repair)


@dataclass(slots=True)
class CheckResult:
    """The report, and the arrays that repair works on.

    ``examined`` has the chosen set first, then the other one if it was examined.
    """

    report: CheckReport
    state: TargetState
    examined: list[SetExamination]

    @property
    def recommended_set(self) -> int:
        """Set with fewer findings; on a tie the one that the kernel would use."""
        value = self.report.facts[RECOMMENDED_SET]
        assert isinstance(value, int)
        return value


def check(target: Target, options: CheckOptions) -> CheckReport:
    """Check a target.

    Raises:
        NoValidSuperblockError: no metadata set can be used (exit status 255 of the clone).
        GeometryError: the devices cannot form a target.
        DeviceError: metadata cannot be read.
    """
    del options  # there is nothing to choose: every rule is always checked
    return check_target(target).report


def check_target(target: Target, trust: int | None = None) -> CheckResult:
    """Check a target and keep what was examined; raises what :func:`check` does.

    ``trust`` is a set to look at whatever the other one says.
    """
    state = read_state(open_blocks(target), trust)
    report = CheckReport(LAYOUT_NAME, target.paths)
    report.findings.extend(_superblock_findings(state))
    if state.chosen is None or state.layout is None:
        plausible = next((n for n, s in enumerate(state.sets) if s.plausible), None)
        raise NoValidSuperblockError(report, found_any=state.found_magic, plausible=plausible)
    layout, chosen = state.layout, state.chosen
    generations = [s.superblock.gen if s.superblock is not None else 0 for s in state.sets]
    compare = 1 - chosen if state.both_valid and generations[0] == generations[1] else None
    examined = [examine_set(state.blocks, layout, chosen, compare)]
    own = list(_set_findings(state.geometry, layout, examined[0]))
    recommended = chosen
    if state.both_valid and compare is None:
        report.findings.append(_generations_differ(generations))
    elif compare is not None and (examined[0].differing_blocks or state.layout_of(compare) != layout):
        other = examine_set(state.blocks, state.layout_of(compare), compare)
        examined.append(other)
        theirs = list(_set_findings(state.geometry, other.layout, other))
        recommended = compare if len(theirs) < len(own) else chosen
        if examined[0].differing_blocks:  # else only the super blocks disagree, about the number of chunks
            report.findings.append(_content_differs(examined[0], len(own), len(theirs), recommended))
            own.extend(replace(f, where={**f.where, "set": compare}) for f in theirs)
    report.findings.extend(own)
    report.findings.extend(_runt_findings(state.geometry))
    report.facts.update(_facts(state, examined[0], recommended))
    return CheckResult(report, state, examined)


def _facts(state: TargetState, examined: SetExamination, recommended: int) -> dict[str, object]:
    sb = state.superblock
    return {
        SET_USED: state.chosen,
        RECOMMENDED_SET: recommended,
        "version": sb.version,
        "generation": sb.gen,
        "uuid": str(sb.dmz_uuid) if sb.version > 1 else "",
        "label": sb.label,
        "zones": state.geometry.nr_zones,
        "chunks": sb.nr_chunks,
        "mapped_chunks": examined.map.nr_mapped,
        "buffered_chunks": examined.map.nr_buffered,
        "valid_blocks": int(examined.bits.weight.sum()),
        "kernel_dangers": list(kernel_dangers(state.geometry, examined.layout)),
    }


def kernel_dangers(geometry: TargetGeometry, layout: MetadataLayout) -> Iterator[str]:
    """What the kernel target does badly with sound metadata on these zones."""
    if not nr_first_write_zones(geometry, layout):
        yield "no conventional or cache zone is left for data: it activates, but every write waits for ever"
    zones = layout.metadata_zones
    if not bool(geometry.cache[zones.start : zones.stop].all()):
        yield "metadata are outside of the conventional or cache zones: activating fails or crashes the kernel"


def _generations_differ(generations: list[int]) -> Finding:
    return finding(
        "sets-gen-differ",
        f"metadata sets have generations {generations[0]} and {generations[1]} and need a sync "
        "(the kernel would go on without one and can lose a commit)",
        gen=generations,
    )


def _content_differs(chosen: SetExamination, own: int, theirs: int, recommended: int) -> Finding:
    other = 1 - chosen.number
    return finding(
        "sets-content-differ",
        f"metadata sets have the same generation but {chosen.differing_blocks} blocks differ; set {chosen.number} has "
        f"{own} findings, set {other} has {theirs}: set {recommended} is the better one"
        + (f" (the kernel would use set {chosen.number})" if recommended != chosen.number else ""),
        blocks=chosen.differing_blocks,
    )


# -- super blocks


def _superblock_findings(state: TargetState) -> Iterator[Finding]:
    both_bad = not any(s.valid for s in state.sets)
    for found in (*state.sets, *state.tertiary):
        if found.faults:
            fault = found.faults[0]
            danger = _kernel_danger(state, found, both_bad=both_bad)
            yield finding(fault.code, f"{_superblock_name(found)}: {fault.message}{danger}", **found.where)
        for code, message in found.notes:
            yield finding(code, f"{_superblock_name(found)}: {message}", **found.where)


def _superblock_name(found: SuperblockState) -> str:
    if "device" in found.where:
        return f"tertiary super block of device {found.where['device']}"
    return f"{('primary', 'secondary')[int(found.where['set'] == 1)]} super block"


def _kernel_danger(state: TargetState, found: SuperblockState, *, both_bad: bool) -> str:
    """What the 6.1 kernel target does with this fault, when that is worse than refusing."""
    if "device" in found.where:
        return ""
    if both_bad:
        return "; both super blocks are bad: activating crashes the kernel"
    if found.where["set"] != 0:
        return ""
    geometry = state.geometry
    conventional = int(np.count_nonzero((geometry.kinds == ZoneKind.RANDOM) & ~geometry.dead))
    if conventional <= 1:
        return "; activating crashes the kernel, repair first"
    if state.layout is not None and state.layout.set_zones > 1:
        return "; the kernel looks for the other set in the wrong place and refuses, repair first"
    return ""


# -- one set


def _set_findings(geometry: TargetGeometry, layout: MetadataLayout, examined: SetExamination) -> Iterator[Finding]:
    yield from _chunk_findings(examined.map)
    for zone, chunks in examined.map.owners.shared:
        yield finding(
            "map-zone-shared",
            f"zone {zone} is named by {_chunk_list(chunks)} (activating it crashes the kernel)",
            zone=zone,
            chunks=list(chunks),
        )
    for entry in examined.map.tail.tolist():
        yield finding("map-tail", f"mapping table entry {entry} after the last chunk is in use", entry=entry)
    yield from _zone_findings(geometry, layout, examined)


def _chunk_list(chunks: tuple[int, ...]) -> str:
    shown = ", ".join(str(c) for c in chunks[:8])
    more = f" and {len(chunks) - 8} more" if len(chunks) > 8 else ""
    return f"chunks {shown}{more}" if len(set(chunks)) > 1 else f"chunk {chunks[0]} twice"


def _chunk_findings(found: MapExamination) -> Iterator[Finding]:
    refused = "(the kernel refuses to activate)"
    exposed = "(the kernel activates and overwrites its own metadata)"
    data_rules = [
        ("map-dzone-range", found.data_range, f"data zone {{zone}} does not exist {refused}"),
        ("map-meta-zone", found.data_meta, f"data zone {{zone}} holds metadata {exposed}"),
        (
            "map-bzone-on-random",
            found.buffer_on_random,
            "data zone {zone} is not sequential but there is a buffer zone",
        ),
        ("map-empty-seq", found.empty_sequential, "data zone {zone} is sequential and empty"),
    ]
    buffer_rules = [
        ("map-bzone-range", found.buffer_range, f"buffer zone {{zone}} does not exist {refused}"),
        ("map-bzone-without-dzone", found.buffer_without_data, "buffer zone {zone} without a data zone"),
        ("map-meta-zone", found.buffer_meta, f"buffer zone {{zone}} holds metadata {exposed}"),
        ("map-bzone-is-dzone", found.buffer_is_data, f"buffer zone {{zone}} is the data zone {refused}"),
        ("map-bzone-not-random", found.buffer_not_random, f"buffer zone {{zone}} is of the wrong kind {refused}"),
    ]
    for rules, zones in ((data_rules, found.data), (buffer_rules, found.buffer)):
        for code, mask, text in rules:
            chunks = np.flatnonzero(mask)
            for chunk, zone in zip(chunks.tolist(), zones[chunks].tolist(), strict=True):
                yield finding(code, f"chunk {chunk}: {text.format(zone=zone)}", chunk=chunk, zone=zone)


def _zone_findings(geometry: TargetGeometry, layout: MetadataLayout, examined: SetExamination) -> Iterator[Finding]:
    bits, owners = examined.bits, examined.map.owners
    for zone in np.flatnonzero(bits.after_wp).tolist():
        count, chunk = int(bits.after_wp[zone]), _owner(examined.map, zone)
        yield finding(
            "bits-after-wp",
            f"zone {zone} of chunk {chunk}: {count} blocks are marked valid at or after the write pointer "
            f"(block {int(geometry.wp_blocks[zone])}){_reclaim_hint(geometry, examined, zone)}",
            zone=zone,
            count=count,
        )
    for chunk in np.flatnonzero(bits.overlap).tolist():
        count = int(bits.overlap[chunk])
        zone, buffer_zone = int(examined.map.data[chunk]), int(examined.map.buffer[chunk])
        yield finding(
            "bits-overlap-buffer",
            f"chunk {chunk}: {count} blocks are marked valid in data zone {zone} and in buffer zone {buffer_zone}",
            zone=zone,
            bzone=buffer_zone,
            count=count,
        )
    for zone in np.flatnonzero(~owners.named & (bits.weight > 0)).tolist():
        count = int(bits.weight[zone])
        yield finding(
            "bits-unmapped",
            f"zone {zone}: {count} blocks are marked valid but no chunk names it",
            zone=zone,
            count=count,
        )
    for zone in np.flatnonzero(bits.beyond).tolist():
        count = int(bits.beyond[zone])
        yield finding("bits-beyond-zone", f"zone {zone}: {count} bits are set past its end", zone=zone, count=count)
    yield from _condition_findings(geometry, layout, examined.map)


def _owner(found: MapExamination, zone: int) -> int:
    chunk = int(found.owners.data[zone])
    return chunk if chunk != NO_CHUNK else int(found.owners.buffer[zone])


def _reclaim_hint(geometry: TargetGeometry, examined: SetExamination, zone: int) -> str:
    if reclaim_crashed(geometry, examined, zone):
        return "; the zone was reset during reclaim, the blocks are still in the buffer zone"
    return ""


def reclaim_crashed(geometry: TargetGeometry, examined: SetExamination, zone: int) -> bool:
    """True for a buffered chunk's data zone that is empty although blocks in it are marked valid.

    The 6.1 target resets the zone after copying it to the buffer zone but before it commits
    that, so the bytes are in the buffer zone at the same places.
    """
    chunk = int(examined.map.owners.data[zone])
    if chunk == NO_CHUNK or not examined.map.buffer_usable[chunk] or geometry.wp_blocks[zone] != 0:
        return False
    buffer_zone = int(examined.map.buffer[chunk])
    return bool(examined.bits.after_wp[zone] and geometry.cache[buffer_zone] and not examined.map.buffer_meta[chunk])


def _condition_findings(geometry: TargetGeometry, layout: MetadataLayout, found: MapExamination) -> Iterator[Finding]:
    named = found.owners.named
    idle = geometry.sequential & ~named & geometry.not_empty & ~geometry.dead & ~held_zones(geometry, layout)
    for zone in np.flatnonzero(idle).tolist():
        wp = int(geometry.wp_blocks[zone])
        yield finding(
            "zone-unmapped-not-empty",
            f"zone {zone}: no chunk names it but {wp} blocks were written (normal after a crash)",
            zone=zone,
            wp=wp,
        )
    conditions = (
        ("zone-offline-mapped", geometry.offline, "is offline: its data are lost"),
        ("zone-readonly-mapped", geometry.read_only, "is read-only: writes to it fail"),
    )
    for code, mask, text in conditions:
        for zone in np.flatnonzero(mask & named).tolist():
            chunk = _owner(found, zone)
            start, end = chunk * geometry.zone_blocks, (chunk + 1) * geometry.zone_blocks - 1
            yield finding(
                code, f"zone {zone} of chunk {chunk} (logical blocks {start} to {end}) {text}", chunk=chunk, zone=zone
            )


def _runt_findings(geometry: TargetGeometry) -> Iterator[Finding]:
    """Runt zones of zoned members; the runt emulated zone of a regular device is never used."""
    for zone in np.flatnonzero(geometry.runt & (geometry.kinds != ZoneKind.CACHE)).tolist():
        yield finding(
            "zone-runt",
            f"zone {zone} is shorter than the others (kernel 6.1 may choose it for reclaim and then hangs all writers)",
            zone=zone,
        )
