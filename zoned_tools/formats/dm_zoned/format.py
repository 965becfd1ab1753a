"""mkfs: a plan that turns devices into an empty dm-zoned target.

The order survives a power cut at any step: old super blocks are invalidated and flushed
before anything else, both sets' tables are durable before the first super block is
written, and the primary super block, which activates the target, is durable before the
secondary one is written. A cut leaves either no target at all, or a complete one that may
lack its secondary super block, which check reports and repair writes.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.device.identity import identify
from zoned_tools.device.plan import Plan
from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, read_state
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    LABEL_BYTES,
    MAGIC,
    MAX_VERSION,
    NR_SETS,
    MetadataLayout,
    SuperBlock,
    encode_label,
)
from zoned_tools.formats.dm_zoned.open import TargetBlocks, open_blocks
from zoned_tools.formats.dm_zoned.settings import DEVICE_UUID, LABEL, METADATA_VERSION, SEQ, UUID
from zoned_tools.formats.dm_zoned.sizing import size_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.formats.contract import Settings, Target
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry

_MAP_PATTERN = 0xFFFF
FIRST_GENERATION = 1


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What a user can choose.

    Attributes:
        reserved: zones kept for reclaim (``--seq``), None for the default.
        label: name of the target; version 2 needs one.
        dmz_uuid: uuid of the target, None for a random one.
        device_uuids: uuids of the devices in order; missing ones are random.
        metadata_version: 1 (one device, no names) or 2.
    """

    reserved: int | None = None
    label: str = ""
    dmz_uuid: uuid.UUID | None = None
    device_uuids: Sequence[uuid.UUID] = ()
    metadata_version: int = MAX_VERSION


@dataclass(frozen=True, slots=True)
class FormatResult:
    """Everything that was decided.

    Attributes:
        geometry, layout: what the target consists of and where its metadata go.
        version, label, dmz_uuid, device_uuids: what the super blocks say.
        plan: the changes, in order.
        warnings: sentences about a result that works worse than the user may expect.
    """

    geometry: TargetGeometry
    layout: MetadataLayout
    version: int
    label: str
    dmz_uuid: uuid.UUID
    device_uuids: tuple[uuid.UUID, ...]
    plan: Plan
    warnings: tuple[str, ...] = field(default_factory=tuple)


def format_target(target: Target, options: FormatOptions) -> FormatResult:
    """Decide everything about a new target; nothing is written.

    Raises:
        GeometryError: the devices cannot carry one.
        UsageError: the options cannot be meant.
        DeviceError: a device cannot be read.
    """
    _check_options(target, options)
    blocks = open_blocks(target)
    sizing = size_metadata(blocks.geometry, options.reserved)
    device_uuids = tuple(
        options.device_uuids[i] if i < len(options.device_uuids) else uuid.uuid4() for i in range(len(target.devices))
    )
    named = options.metadata_version > 1
    result = FormatResult(
        geometry=blocks.geometry,
        layout=sizing.layout,
        version=options.metadata_version,
        label=options.label if named else "",
        dmz_uuid=(options.dmz_uuid or uuid.uuid4()) if named else NIL_UUID,
        device_uuids=device_uuids if named else (NIL_UUID,) * len(device_uuids),
        plan=Plan("format dm-zoned"),
        warnings=sizing.warnings,
    )
    result.plan.messages.extend(sizing.warnings)
    _plan_format(blocks, result)
    return result


def plan_format(target: Target, settings: Settings) -> Plan:
    """A new, empty target; the settings are those of the declaration.

    Raises:
        GeometryError: the devices cannot carry one.
        UsageError: the settings cannot be meant.
        DeviceError: a device cannot be read.
    """
    given = settings.text(UUID)
    return format_target(
        target,
        FormatOptions(
            reserved=settings.number(SEQ),
            label=settings.text(LABEL) or default_label(target.device),
            dmz_uuid=uuid.UUID(given) if given else None,
            device_uuids=tuple(_uuid(word) for word in settings.text(DEVICE_UUID).split(",") if word),
            metadata_version=settings.number(METADATA_VERSION) or MAX_VERSION,
        ),
    ).plan


def default_label(device: Device) -> str:
    """``dmz-`` and the serial number or name of the first device, cut to 30 bytes."""
    serial = "" if device.emulated else identify(device.path).serial
    name = serial or os.path.basename(os.path.realpath(device.path))
    return os.fsencode(f"dmz-{name}")[:30].decode("utf-8", "ignore")


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None


def _check_options(target: Target, options: FormatOptions) -> None:
    if options.metadata_version not in (1, MAX_VERSION):
        raise UsageError(f"metadata version {options.metadata_version} is not 1 or 2")
    if options.metadata_version == 1 and len(target.devices) > 1:
        raise UsageError("metadata version 1 is for a single device")
    if len(options.device_uuids) > len(target.devices):
        raise UsageError(f"{len(options.device_uuids)} device uuids for {len(target.devices)} devices")
    if options.reserved == 0:
        raise UsageError("Invalid number of sequential zones")
    if options.metadata_version > 1 and not options.label:
        raise UsageError("a label is needed")
    if options.dmz_uuid == NIL_UUID or NIL_UUID in options.device_uuids:
        raise UsageError("the null uuid marks damaged metadata")
    try:
        encode_label(options.label)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _plan_format(blocks: TargetBlocks, result: FormatResult) -> None:
    plan = result.plan
    _invalidate(blocks, result, plan)
    _reset_zones(blocks, plan)
    for number in range(NR_SETS):
        _plan_tables(result, number, plan)
    plan.flush(0)
    for member in result.geometry.members[1:]:
        sb = _superblock(result, member.index, member.block_offset, gen=0)
        plan.write(member.index, member.start_bytes, sb.pack(), f"tertiary super block of {member.path}")
        plan.flush(member.index)
    for number in range(NR_SETS):
        block = result.layout.set_block(number)
        device, offset_bytes = result.geometry.locate(block)
        sb = _superblock(result, device, block, FIRST_GENERATION)
        plan.write(device, offset_bytes, sb.pack(), f"{SET_NAMES[number]} super block")
        plan.flush(device)


def _superblock(result: FormatResult, device: int, block: int, gen: int) -> SuperBlock:
    bare = result.layout.superblock(0, gen, result.version)
    return replace(
        bare,
        sb_block=block,
        label_raw=encode_label(result.label) if result.version > 1 else bytes(LABEL_BYTES),
        dmz_uuid=result.dmz_uuid,
        dev_uuid=result.device_uuids[device],
    )


def _old_superblocks(blocks: TargetBlocks, layout: MetadataLayout) -> list[int]:
    """Absolute blocks outside sequential zones that hold something that looks like a super block."""
    state = read_state(blocks)
    places = {s.block for s in (*state.sets, *state.tertiary)} | {layout.set_block(n) for n in range(NR_SETS)}
    found = []
    for block in sorted(places):
        if blocks.geometry.sequential[block // blocks.geometry.zone_blocks]:
            continue  # the reset takes it away
        try:
            raw = blocks.read(block, 1)
        except DeviceError:
            continue
        if int.from_bytes(raw[:4], "little") == MAGIC:
            found.append(block)
    return found


def _invalidate(blocks: TargetBlocks, result: FormatResult, plan: Plan) -> None:
    """Make old super blocks unreadable before anything that they describe changes."""
    touched: dict[int, None] = {}
    for block in reversed(_old_superblocks(blocks, result.layout)):
        device, offset_bytes = blocks.geometry.locate(block)
        plan.write(device, offset_bytes, bytes(BLOCK_BYTES), "invalidate an old super block")
        touched[device] = None
    for device in touched:
        plan.flush(device)


def _reset_zones(blocks: TargetBlocks, plan: Plan) -> None:
    geometry = blocks.geometry
    for member in geometry.members:
        if not member.is_zoned:
            continue
        first_on_device = member.start_bytes // geometry.zone_bytes
        if not first_on_device:
            plan.manage(member.index, ZoneOperation.RESET, 0, member.nr_zones, "reset sequential zones")
        else:
            part = slice(member.first_zone, member.first_zone + member.nr_zones)
            for start, end in mask_runs(geometry.sequential[part] & ~geometry.dead[part]).tolist():
                first = first_on_device + start
                plan.manage(member.index, ZoneOperation.RESET, first, end - start, "reset sequential zones")
        plan.flush(member.index)


def _plan_tables(result: FormatResult, number: int, plan: Plan) -> None:
    layout = result.layout
    name = SET_NAMES[number]
    device, offset_bytes = result.geometry.locate(layout.map_block(number))
    plan.fill(device, offset_bytes, layout.nr_map_blocks * BLOCK_BYTES, _MAP_PATTERN, f"{name} mapping table")
    device, offset_bytes = result.geometry.locate(layout.bitmap_block(number))
    plan.fill(device, offset_bytes, layout.nr_bitmap_blocks * BLOCK_BYTES, 0, f"{name} bitmap blocks")
