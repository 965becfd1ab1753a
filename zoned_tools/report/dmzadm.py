"""What dmzadm prints: the lines that scripts written for the original look for."""

from __future__ import annotations

from collections.abc import Iterator

from zoned_tools.device.base import Geometry
from zoned_tools.device.plan import Fill, Flush, ManageZones, Step, Write
from zoned_tools.device.zones import SECTOR_BYTES, Model
from zoned_tools.formats.dm_zoned.format import FormatResult
from zoned_tools.formats.dm_zoned.layout import NR_SETS, TargetGeometry
from zoned_tools.formats.registry import Target

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
        self._syncing = False

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
            case Write() | Flush():
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
