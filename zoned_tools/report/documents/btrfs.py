"""Documents of ``zoned btrfs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.btrfs.supers import CopyRow, RingRow
    from zoned_tools.formats.btrfs.survey import DeviceSurvey
    from zoned_tools.formats.btrfs.zone_accounts import DeviceRow, ZoneAccounts
    from zoned_tools.formats.contract import Target


class BtrfsSupersDocument(TypedDict):
    """``zoned.btrfs.supers/1``; ``derived``: a raw copy whose zones are derived from the content."""

    schema: Literal["zoned.btrfs.supers/1"]
    device: str
    model: str
    derived: bool
    zone_size_bytes: int | None
    rings: list[RingRow]


class BtrfsSuperDocument(BtrfsSupersDocument):
    """The same with one super block in full, by its dump-super names."""

    super_block: dict[str, object]


def btrfs_supers_document(survey: DeviceSurvey) -> BtrfsSupersDocument:
    """Every super block of a device."""
    from zoned_tools.formats.btrfs.supers import ring_as_json

    return {
        "schema": "zoned.btrfs.supers/1",
        "device": survey.device.path,
        "model": str(survey.device.geometry.model),
        "derived": survey.placement.derived,
        "zone_size_bytes": survey.placement.zone_bytes or None,
        "rings": [ring_as_json(mirror) for mirror in survey.mirrors],
    }


def btrfs_super_document(survey: DeviceSurvey, block: bytes) -> BtrfsSuperDocument:
    """Every super block of a device, and one of them in full."""
    from zoned_tools.formats.btrfs.inspect import as_tree

    return {**btrfs_supers_document(survey), "super_block": as_tree(block)}


class BtrfsLatestDocument(TypedDict):
    """``zoned.btrfs.latest/1``; ``kernel_choice`` is null where the kernel finds none."""

    schema: Literal["zoned.btrfs.latest/1"]
    device: str
    mirror: int
    kernel_choice: CopyRow | None


def btrfs_latest_document(device: str, mirror: int, copy: CopyRow | None) -> BtrfsLatestDocument:
    """What the kernel takes for the newest super block."""
    return {"schema": "zoned.btrfs.latest/1", "device": device, "mirror": mirror, "kernel_choice": copy}


class BtrfsZonesDocument(TypedDict):
    """``zoned.btrfs.zones/1``: who owns each zone, and how much of it is in use."""

    schema: Literal["zoned.btrfs.zones/1"]
    fsid: str
    generation: int
    devices: list[DeviceRow]


def btrfs_zones_document(accounts: ZoneAccounts) -> BtrfsZonesDocument:
    """Every zone of every device."""
    return {
        "schema": "zoned.btrfs.zones/1",
        "fsid": str(accounts.block.fsid),
        "generation": accounts.block.generation,
        "devices": accounts.devices,
    }


class BtrfsRollbackDocument(TypedDict):
    """``zoned.btrfs.rollback/1``."""

    schema: Literal["zoned.btrfs.rollback/1"]
    devices: list[str]
    generation: int
    changed: bool
    messages: list[str]
    steps: list[str]


def btrfs_rollback_document(target: Target, generation: int, plan: Plan, *, changed: bool) -> BtrfsRollbackDocument:
    """Going back to an older super block."""
    return {
        "schema": "zoned.btrfs.rollback/1",
        "devices": list(target.paths),
        "generation": generation,
        "changed": changed,
        "messages": plan.messages,
        "steps": list(plan.describe(target.paths)),
    }
