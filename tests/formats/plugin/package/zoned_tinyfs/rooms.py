"""The rooms of tinyfs; a larger layout has a module for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.contract import (
    CheckOptions,
    Consent,
    Consents,
    Evidence,
    Identity,
    NothingToCheckError,
    RepairPlan,
    Target,
)
from zoned_tools.formats.shared.documents import DocumentPart

from . import NAME, ROLES, RULES
from .layout import BLOCK_BYTES, LABEL_BYTES, MAGIC, SuperBlock, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.shared.findings import FindingGroup

DUMP_VERSION = 1


@dataclass(frozen=True, slots=True)
class Survey:
    """The super block, and the blocks that there are."""

    block: SuperBlock
    checksum_fits: bool
    device_blocks: int


@dataclass(slots=True)
class TinyEvidence(Evidence):
    """What a check found; ``survey`` is None where there is no super block."""

    survey: Survey | None = None


def probe(device: Device, start_bytes: int) -> Identity | None:
    """Whether the magic is there."""
    try:
        raw = device.read(start_bytes, BLOCK_BYTES)
    except DeviceError:
        return None
    block = SuperBlock.parse(raw)
    return Identity(NAME, version="1", label=block.label, start_bytes=start_bytes) if block.magic == MAGIC else None


def _read(target: Target) -> Survey:
    raw = target.device.read(0, BLOCK_BYTES)
    block = SuperBlock.parse(raw)
    return Survey(block, block.crc == checksum(raw), target.device.geometry.size_bytes // BLOCK_BYTES)


def check(target: Target, _options: CheckOptions) -> TinyEvidence:
    """Check the super block.

    Raises:
        NothingToCheckError: there is none.
    """
    survey = _read(target)
    if survey.block.magic != MAGIC:
        raise NothingToCheckError("no tinyfs super block found", TinyEvidence(target))
    evidence = TinyEvidence(target, survey=survey)
    evidence.facts["used_blocks"] = survey.block.used_blocks
    evidence.findings.extend(_findings(survey))
    return evidence


def _findings(survey: Survey) -> Iterator[FindingGroup]:
    block, device_blocks = survey.block, survey.device_blocks
    if not survey.checksum_fits:
        yield RULES.finding("sb-crc", offset_bytes=4)
    if any(block.label_rest):
        yield RULES.finding("label-rest", offset_bytes=8)
    if block.used_blocks > device_blocks:
        text = f"{block.used_blocks} blocks are in use, the drive has {device_blocks}"
        yield RULES.finding("used-beyond-end", text, used_blocks=block.used_blocks, device_blocks=device_blocks)


def plan_repair(evidence: TinyEvidence, consents: Consents) -> RepairPlan:
    """Plan what mends the findings; a super block whose checksum is wrong is not touched."""
    result = RepairPlan(Plan("repair the tinyfs super block"))
    survey = evidence.survey
    if survey is None or not survey.checksum_fits:
        return result
    block = survey.block
    if any(block.label_rest):
        result.add(RULES.action("label-rest", "the bytes after the label's end are cleared"))
        block = replace(block, label_bytes=block.label_bytes.split(b"\0", 1)[0])
    if block.used_blocks > survey.device_blocks:
        used = min(consents.settings.number("used") or survey.device_blocks, survey.device_blocks)
        lost = block.used_blocks - used
        text = f"blocks {used} to {block.used_blocks - 1} ({lost} blocks) are lost"
        agreed = "used-beyond-end" in consents.allow
        action = RULES.action("used-beyond-end", text, consent=Consent.LOSES, agreed=agreed, block=used, count=lost)
        if not result.add(action).waits:
            block = replace(block, used_blocks=used)
    if block != survey.block:
        _write(result.plan, block)
    return result


def _write(plan: Plan, block: SuperBlock) -> None:
    plan.write(0, 0, block.pack(), "super block")
    plan.flush(0)


def inspect(target: Target) -> dict[str, object]:
    """The super block field by field."""
    survey = _read(target)
    return {
        "label": survey.block.label,
        "used_blocks": survey.block.used_blocks,
        "checksum": "right" if survey.checksum_fits else "wrong",
    }


def dump(target: Target) -> dict[str, object]:
    """The super block as a document."""
    block = _read(target).block
    return {
        "dump_version": DUMP_VERSION,
        "super_block": {"label_hex": block.label_bytes.hex(), "used_blocks": block.used_blocks},
    }


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """The super block back.

    Raises:
        MetadataError: the document is damaged, or made for a larger drive.
    """
    part = DocumentPart.of(document, target.device.path)
    part.require_version("dump_version", DUMP_VERSION)
    fields = part.part("super_block")
    block = SuperBlock(fields.hex_bytes("label_hex", LABEL_BYTES), fields.number("used_blocks", 1 << 64, 1))
    if block.used_blocks > target.device.geometry.size_bytes // BLOCK_BYTES:
        raise MetadataError("the dump is of a larger drive", device=target.device.path)
    plan = Plan("restore the tinyfs super block")
    _write(plan, block)
    return plan


def zone_roles(target: Target) -> dict[str, IntArray]:
    """The super block's zone, and the others that have blocks in use."""
    survey = _read(target)
    geometry = target.device.geometry
    used = min(survey.block.used_blocks, survey.device_blocks) * BLOCK_BYTES
    super_block, data = (role.name for role in ROLES)
    return {super_block: np.zeros(1, np.int64), data: np.arange(1, -(-used // geometry.zone_bytes))}
