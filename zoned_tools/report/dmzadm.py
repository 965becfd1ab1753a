"""What dmzadm prints: the lines that scripts written for the original look for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zoned_tools.device.base import Geometry
from zoned_tools.device.plan import Copy, Fill, Flush, ManageZones, Step, Write
from zoned_tools.device.zones import SECTOR_BYTES, Model
from zoned_tools.findings import CheckReport, Finding, Severity
from zoned_tools.formats.dm_zoned.check import CheckResult
from zoned_tools.formats.dm_zoned.format import FormatResult
from zoned_tools.formats.dm_zoned.layout import NR_SETS, TargetGeometry
from zoned_tools.formats.dm_zoned.superblocks import SuperblockState, TargetState
from zoned_tools.formats.registry import Target
from zoned_tools.report.findings import MAX_LINES, finding_line

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


class FormatProgress:
    """Prints the original's progress lines as the steps of a format plan are reached."""

    def __init__(self, target: Target, result: FormatResult) -> None:
        self._target = target
        self._result = result
        self._title = ""

    def __call__(self, step: Step) -> None:
        match step:
            case ManageZones():
                self._section("Resetting sequential zones")
            case Fill():
                name, _, what = step.note.partition(" ")
                self._section(f"Writing {name} metadata set")
                print(f"  Writing {what}")
            case Write() if "super block" in step.note and not step.note.startswith("invalidate"):
                self._super_block(step)
            case Write() | Copy() | Flush():
                pass

    def _section(self, title: str) -> None:
        if title != self._title:
            print(title)
            self._title = title

    def _super_block(self, step: Write) -> None:
        name = step.note.split(" ", 1)[0]
        self._section("Writing tertiary metadata" if name == "tertiary" else f"Writing {name} metadata set")
        member = self._result.geometry.members[step.device]
        block = member.block_offset + (step.offset_bytes - member.start_bytes) // 4096
        print(f"  Writing super block to {_name(self._target.devices[step.device].path)} block {block}")


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def metadata_line(name: str, block: int, geometry: TargetGeometry) -> str:
    """Where a metadata set is."""
    return f"  {name} metadata set at block {block} (zone {block // geometry.zone_blocks})"


def unusable_lines(report: CheckReport) -> Iterator[str]:
    """The findings when no super block is valid."""
    yield "Locating metadata..."
    for finding in report.findings:
        yield f"  {finding_line(finding)}"
    yield "  No valid superblock found"


def _set_lines(state: TargetState) -> Iterator[str]:
    yield "Locating metadata..."
    for name, found in zip(("Primary", "Secondary"), state.sets, strict=True):
        yield metadata_line(name, found.block, state.geometry)
        yield f"    Checking super block... {_verdict(found)}"


def _verdict(found: SuperblockState) -> str:
    if found.faults or found.superblock is None:
        return found.faults[0].message if found.faults else "unreadable"
    return f"OK (version {found.superblock.version}, generation {found.superblock.gen})"


def _section(findings: Sequence[Finding], good: str) -> Iterator[str]:
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    for finding in findings[:MAX_LINES]:
        yield f"    {finding_line(finding)}"
    if len(findings) > MAX_LINES:
        yield f"    ... and {len(findings) - MAX_LINES} more"
    yield f"    {'No error' if not errors else _count(errors, 'error') + ' found'}: {good}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def check_lines(result: CheckResult, *, verbose: bool = False) -> Iterator[str]:
    """The course of a check as the original tells it, with our findings in their places."""
    state, report, examined = result.state, result.report, result.examined[0]
    yield from _set_lines(state)
    names = ("primary", "secondary")
    chosen = names[state.chosen or 0]
    yield f"Checking {chosen} metadata set"
    own = [finding for finding in report.findings if "set" not in finding.where or finding.code.startswith("sb-")]
    mapping = [finding for finding in own if finding.code.startswith("map-")]
    bitmaps = [finding for finding in own if finding.code.startswith(("bits-", "zone-"))]
    yield "  Checking data chunk mapping..."
    counts = examined.map
    yield from _section(mapping, f"{counts.nr_mapped} mapped chunks ({counts.nr_buffered} buffered) checked")
    yield "  Checking zone bitmaps..."
    mapped = int(counts.owners.named.sum())
    unmapped = state.geometry.nr_zones - len(state.geometry.tertiary_zones) - mapped
    yield from _section(bitmaps, f"{unmapped} unmapped zones + {mapped} mapped zones checked")
    yield from _comparison_lines(result, chosen, names[1 - (state.chosen or 0)])
    for found in state.tertiary:
        yield f"  Tertiary superblock at block {found.block} (zone {found.block // state.geometry.zone_blocks})"
        yield f"    Checking super block... {_verdict(found)}"
    rest = [finding for finding in report.findings if finding.code.startswith("sb-")]
    if verbose or any(finding.severity is not Severity.INFO for finding in rest):
        yield from (f"  {finding_line(finding)}" for finding in rest)
    yield "Errors detected: running repair is recommended" if report.has_errors else "No error detected"


def _comparison_lines(result: CheckResult, chosen: str, other: str) -> Iterator[str]:
    if not result.state.both_valid:
        return
    yield f"  Validating {other} metadata set against {chosen} metadata set..."
    compared = {finding.code: finding for finding in result.report.findings if finding.code.startswith("sets-")}
    if "sets-gen-differ" in compared:
        yield f"    {finding_line(compared['sets-gen-differ'])}"
        yield f"    {other.capitalize()} metadata set generation differs: not checking"
    elif "sets-content-differ" in compared:
        yield f"    {finding_line(compared['sets-content-differ'])}"
        yield f"    {_count(result.examined[0].differing_blocks, 'block')} differ"
        theirs = [finding for finding in result.report.findings if "set" in finding.where and "sb-" not in finding.code]
        yield from (f"    {other} set: {finding_line(finding)}" for finding in theirs[:MAX_LINES])
    else:
        yield f"    No error: {result.examined[0].layout.nr_meta_blocks} blocks checked"
