"""What dmzadm prints: the lines that scripts written for the original look for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Step, Write
from zoned_tools.device.zones import SECTOR_BYTES, Model
from zoned_tools.formats.contract import RepairPlan, Severity, Target
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, SuperBlockState, TargetState
from zoned_tools.formats.dm_zoned.layout import NR_SETS
from zoned_tools.report.check import finding_line
from zoned_tools.report.stream import write_line
from zoned_tools.report.zones import zbd_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Geometry
    from zoned_tools.engine.checking import Outcome
    from zoned_tools.formats.dm_zoned.check import DmZonedEvidence
    from zoned_tools.formats.dm_zoned.format import FormatResult
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.shared.findings import FindingGroup, Findings

MAX_LINES = 200
"""Findings of one section that are shown; JSON has them all."""

_MODELS = {
    Model.HOST_MANAGED: "Host-managed device",
    Model.HOST_AWARE: "Host-aware device",
    Model.REGULAR: "Regular block device",
}


def header_lines(target: Target, geometry: TargetGeometry) -> Iterator[str]:
    """The devices and their zones."""
    for member, device in zip(geometry.members, target.devices, strict=True):
        facts: Geometry = device.geometry
        sectors = facts.size_bytes // SECTOR_BYTES
        yield f"{device.path}: {sectors} 512-byte sectors ({facts.size_bytes >> 30} GiB)"
        yield f"  {_MODELS[facts.model]}"
        yield f"  {member.nr_zones} zones, offset {member.block_offset}"
    zone_sectors = geometry.zone_bytes // SECTOR_BYTES
    total = sum(device.geometry.size_bytes for device in target.devices) // SECTOR_BYTES
    whole, rest = divmod(total, zone_sectors)
    yield f"  {whole} zones of {zone_sectors} 512-byte sectors ({geometry.zone_bytes >> 20} MiB)"
    if rest:
        yield f"  1 runt zone of {rest} 512-byte sectors ({rest * SECTOR_BYTES >> 20} MiB)"
    yield f"  {geometry.zone_blocks} 4KB data blocks per zone"


def format_details(target: Target, result: FormatResult) -> Iterator[str]:
    """What ``--format --verbose`` adds before anything is written."""
    geometry, layout = result.geometry, result.layout
    yield "Locating metadata..."
    yield f"Format metadata {result.version}:"
    if result.version > 1:
        yield f"  DM-Zoned UUID {result.dmz_uuid}"
        yield f"  DM-Zoned Label {result.label}"
        for member, device, dev_uuid in zip(geometry.members, target.devices, result.device_uuids, strict=True):
            yield f"  Device {_name(device.path)} UUID {dev_uuid}"
            yield f"  Device {_name(device.path)} block offset {member.block_offset}"
    yield f"  {geometry.nr_usable} useble zones"
    first = layout.set_block(0)
    yield (
        f"  Primary meta-data set: {layout.nr_meta_blocks} metadata blocks from block {first} "
        f"(zone {first // geometry.zone_blocks})"
    )
    yield f"    Super block at block {first} and {layout.set_block(1)}"
    yield f"    {layout.nr_map_blocks} chunk mapping table blocks"
    yield f"    {layout.nr_bitmap_blocks} bitmap blocks"
    yield f"    Using {layout.set_zones} zones per meta-data set ({NR_SETS * layout.set_zones} total)"
    yield f"  {layout.nr_chunks} data chunks capacity"
    yield f"    {geometry.nr_cache - NR_SETS * layout.set_zones} cache zone(s)"
    yield f"    {max(geometry.nr_usable - geometry.nr_cache - layout.nr_reserved_seq, 0)} data zone(s)"
    yield f"  {layout.nr_reserved_seq} sequential zone(s) reserved for reclaim"


FORMAT_END = ("Syncing disk(s)", "Done.")


class FormatProgress:
    """Prints the original's progress lines as the steps of a format plan are reached, in the original's order.

    The original writes the secondary set when the primary one is complete; here both have their content before the
    first super block is written. What is said of the secondary set waits for the primary super block.
    """

    def __init__(self, target: Target, result: FormatResult) -> None:
        self._target = target
        self._result = result
        self._title = ""
        self._waiting: list[tuple[str, str]] | None = []

    def __call__(self, step: Step) -> None:
        match step:
            case ManageZones():
                self._say("Resetting sequential zones")
            case Fill():
                name, _, what = step.note.partition(" ")
                self._say(f"Writing {name} metadata set", f"  Writing {what}")
            case Write() if "super block" in step.note and not step.note.startswith("invalidate"):
                self._super_block(step)
            case Write() | Copy() | Flush():
                pass

    def _say(self, title: str, line: str = "") -> None:
        if self._waiting is not None and title == "Writing secondary metadata set":
            self._waiting.append((title, line))
            return
        if title != self._title:
            write_line(title)
            self._title = title
        if line:
            write_line(line)

    def _super_block(self, step: Write) -> None:
        name = step.note.split(" ", 1)[0]
        member = self._result.geometry.members[step.device]
        block = member.block_offset + (step.offset_bytes - member.start_bytes) // 4096
        where = f"{_name(self._target.devices[step.device].path)} block {block}"
        title = "Writing tertiary metadata" if name == "tertiary" else f"Writing {name} metadata set"
        self._say(title, f"  Writing super block to {where}")
        if name == "primary" and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for told, line in waiting:
                self._say(told, line)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def zone_lines(target: Target) -> Iterator[str]:
    """What ``--vverbose`` prints: every zone."""
    for device in target.devices:
        if device.geometry.is_zoned:
            zones = device.zones()
            yield from zbd_lines(zones, np.arange(len(zones)))


def metadata_line(name: str, block: int, geometry: TargetGeometry) -> str:
    """Where a metadata set is."""
    return f"  {name} metadata set at block {block} (zone {block // geometry.zone_blocks})"


def unusable_lines(findings: Findings) -> Iterator[str]:
    """The findings when no super block is valid."""
    yield "Locating metadata..."
    for finding in findings:
        yield f"  {finding_line(finding)}"
    yield "  No valid superblock found"


def _set_lines(state: TargetState) -> Iterator[str]:
    yield "Locating metadata..."
    for name, found in zip(("Primary", "Secondary"), state.sets, strict=True):
        yield metadata_line(name, found.block, state.geometry)
        yield f"    Checking super block... {_verdict(found)}"


def _verdict(found: SuperBlockState) -> str:
    if found.faults or found.superblock is None:
        return found.faults[0].message if found.faults else "unreadable"
    return f"OK (version {found.superblock.version}, generation {found.superblock.gen})"


def _section(groups: Sequence[FindingGroup], good: str) -> Iterator[str]:
    errors = sum(len(group) for group in groups if group.severity is Severity.ERROR)
    yield from (f"    {line}" for line in _first_lines(groups))
    more = sum(map(len, groups)) - MAX_LINES
    if more > 0:
        yield f"    ... and {more} more"
    yield f"    {'No error' if not errors else _count(errors, 'error') + ' found'}: {good}"


def _first_lines(groups: Sequence[FindingGroup]) -> Iterator[str]:
    """As many findings as are shown."""
    left = MAX_LINES
    for group in groups:
        yield from map(finding_line, group.first(left))
        left = max(left - len(group), 0)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def check_lines(evidence: DmZonedEvidence, *, verbose: bool = False) -> Iterator[str]:
    """The course of a check as the original tells it, with our findings in their places."""
    state, counts = evidence.state, evidence.chosen.map
    yield from _set_lines(state)
    chosen = state.chosen or 0
    yield f"Checking {SET_NAMES[chosen]} metadata set"
    own = [group for group in evidence.findings.groups if not _of_the_other_set(group)]
    mapping = [group for group in own if group.code.startswith("map-")]
    bitmaps = [group for group in own if group.code.startswith(("bits-", "zone-"))]
    yield "  Checking data chunk mapping..."
    yield from _section(mapping, f"{counts.nr_mapped} mapped chunks ({counts.nr_buffered} buffered) checked")
    yield "  Checking zone bitmaps..."
    mapped = int(counts.owners.named.sum())
    unmapped = state.geometry.nr_zones - len(state.geometry.tertiary_zones) - mapped
    yield from _section(bitmaps, f"{unmapped} unmapped zones + {mapped} mapped zones checked")
    yield from _comparison_lines(evidence, SET_NAMES[chosen], SET_NAMES[1 - chosen])
    for found in state.tertiary:
        yield f"  Tertiary superblock at block {found.block} (zone {found.block // state.geometry.zone_blocks})"
        yield f"    Checking super block... {_verdict(found)}"
    rest = [group for group in evidence.findings.groups if group.code.startswith("sb-")]
    if verbose or any(group.severity is not Severity.INFO for group in rest):
        yield from (f"  {finding_line(finding)}" for group in rest for finding in group)
    yield "Errors detected: running repair is recommended" if evidence.has_errors else "No error detected"


def _of_the_other_set(group: FindingGroup) -> bool:
    """Findings of the set that was not chosen say so; those of super blocks always name their set."""
    return "set" in group.rows.places and not group.code.startswith("sb-")


def _comparison_lines(evidence: DmZonedEvidence, chosen: str, other: str) -> Iterator[str]:
    if not evidence.state.both_valid:
        return
    yield f"  Validating {other} metadata set against {chosen} metadata set..."
    older, different = (evidence.findings.of(code) for code in ("sets-gen-differ", "sets-content-differ"))
    if older:
        yield from (f"    {line}" for line in _first_lines(older))
        yield f"    {other.capitalize()} metadata set generation differs: not checking"
    elif different:
        yield from (f"    {line}" for line in _first_lines(different))
        yield f"    {_count(len(evidence.chosen.differing), 'block')} differ"
        theirs = [group for group in evidence.findings.groups if _of_the_other_set(group)]
        yield from (f"    {other} set: {line}" for line in _first_lines(theirs))
    else:
        yield f"    No error: {evidence.chosen.layout.nr_meta_blocks} blocks checked"


# -- a repair

_SILENT = frozenset({"map-tail", "bits-beyond-zone"})
"""What repair does about these has never been told; scripts read the lines."""


def notes(repair: RepairPlan) -> Iterator[str]:
    """What a human should know about a repair; super blocks of the sets that are rewritten are not told."""
    yield from repair.plan.messages
    for action in repair.actions:
        if "set" not in action.rows.places and action.id.split(".", 1)[1] not in _SILENT:
            yield from action.sentences()


def plan_lines(repair: RepairPlan, paths: Sequence[str]) -> Iterator[str]:
    """What ``--dry-run`` shows."""
    plan = repair.plan
    yield f"would {plan.title}:" if plan else f"nothing to do: {plan.title}"
    yield from (f"  note: {note}" for note in notes(repair))
    yield from (f"  {line}" for line in plan.describe(paths))


def repair_lines(outcome: Outcome, *, dry_run: bool) -> Iterator[str]:
    """How a repair ended."""
    evidence = outcome.evidence
    assert evidence is not None
    if outcome.repaired is not None:
        left, errors = evidence.findings.count(Severity.ERROR), outcome.repaired.count(Severity.ERROR)
        others = len(outcome.repaired) - errors
        too = f", and {others} warnings and notes put right" if others else ""
        yield f"{left} errors are left" if left else f"{errors} errors found and repaired{too}"
    elif not dry_run or not (outcome.plan and outcome.plan.plan):
        yield "nothing was repaired" if evidence.has_errors else "nothing to repair"


# -- labels, and the running kernel's target


def relabel_line(old: str, wanted: str, *, changes: bool) -> str:
    """What ``--relabel`` does."""
    return f"Relabeling from {old} to {wanted}" if changes else f"Device label already set to {wanted}"


def table_line(name: str, line: str) -> str:
    """The table line that ``--start`` hands to device-mapper."""
    return f"{name}: table {line}"


def relabelling_line(device: str, name: str) -> str:
    """Another mapping has the label already."""
    return f"WARNING {device}: label {name} is already used, relabelling to dmz-{device}"


def synchronized_line(name: str, generation: int) -> str:
    """What ``--start`` did first."""
    return f"{name}: metadata sets synchronized (generation {generation})"


def starting_line(device: str, name: str, version: int, uuid: str) -> str:
    """What ``--start`` starts; version 1 has no uuid."""
    return f"{device}: starting {name}, metadata ver. {version}{f', uuid {uuid}' if uuid else ','}"


def stopping_line(device: str, name: str) -> str:
    """What ``--stop`` stops."""
    return f"{device}: stopping {name}"
