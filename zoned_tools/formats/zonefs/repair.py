"""Repair of a zonefs volume: a new super block from what is left of the old one and what is given.

The super block is all the metadata there is, so no repair touches a file. In a conventional
zone 0 it is overwritten in place. A sequential zone 0 has to be reset first; a power cut
between the reset and the write leaves ``zone0-empty``, which is repaired with the parameters
that the plan's messages name.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import DEAD_CONDITIONS, has_condition, is_conventional
from zoned_tools.errors import UsageError
from zoned_tools.findings import CheckReport
from zoned_tools.formats.registry import RepairOptions, Target
from zoned_tools.formats.zonefs import layout
from zoned_tools.formats.zonefs.constants import INVALID_ID, KNOWN_FEATURES, LABEL_BYTES, PERM_MASK, Feature
from zoned_tools.formats.zonefs.features import FeatureSet, parse_features
from zoned_tools.formats.zonefs.format import plan_super_block
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES, SuperBlock
from zoned_tools.formats.zonefs.volume import target_volume

_REWRITTEN = frozenset(
    {"sb-magic", "sb-crc", "sb-features", "sb-uid", "sb-gid", "sb-reserved", "sb-perm-bits", "zone0-empty"}
)
SETTINGS = ("features", "label", "uuid")
"""Keys of ``--set``; ``features`` is a list as for ``mkzonefs -o``."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A super block made from a damaged one, and how sure it is."""

    block: SuperBlock
    how: str


def plan_repair(target: Target, report: CheckReport, options: RepairOptions) -> Plan:
    """Plan what mends the findings of ``report``.

    Raises:
        UsageError: unknown settings, or a bad value.
        DeviceError: the super block cannot be read.
    """
    given = _check_settings(options.settings)
    plan = Plan("repair the zonefs super block")
    codes = {finding.code for finding in report.findings}
    if "not-zoned" in codes:
        return plan
    volume = target_volume(target)
    if has_condition(volume.table[:1], *DEAD_CONDITIONS)[0]:
        plan.messages.append("zone 0 cannot be written, the super block stays as it is")
        return plan
    conventional = bool(is_conventional(volume.table[:1])[0])
    if codes & _REWRITTEN or ("sb-uuid-nil" in codes and "uuid" in given):
        recovered = recover(volume.read_super_block())
        agreed = bool(given) or bool(options.allow & codes)
        if recovered is None and not agreed:
            plan.messages.append(
                "no super block is left to take the parameters from: give them with --set features=LIST, "
                "--set label=TEXT, --set uuid=UUID, or agree to the defaults with --allow "
                + ("zone0-empty" if "zone0-empty" in codes else "sb-magic")
            )
            return plan
        how = recovered.how if recovered else "no super block is left: parameters that were not given are the defaults"
        block = _with_settings(recovered.block if recovered else SuperBlock(uuid=uuid.uuid4()), given)
        plan.messages.append(how)
        plan.messages.append(f"the super block is written with {describe(block)}")
        if not conventional:
            plan.manage(0, ZoneOperation.RESET, 0, note="only the super block is in this zone")
        plan_super_block(plan, target.device, block, conventional=conventional)
    elif "zone0-not-full" in codes:
        plan.manage(0, ZoneOperation.FINISH, 0, note="close the super block's zone")
        plan.flush(0)
    return plan


def describe(block: SuperBlock) -> str:
    """The parameters of a super block as ``--set`` takes them."""
    parts = ["aggr_cnv"] if block.aggregated else []
    if block.features & Feature.UID:
        parts.append(f"uid={block.uid}")
    if block.features & Feature.GID:
        parts.append(f"gid={block.gid}")
    if block.features & Feature.PERM:
        parts.append(f"perm={block.perm:o}")
    return f"features={','.join(parts)} label={block.label!r} uuid={block.uuid}"


def _check_settings(settings: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise UsageError(f"zonefs has no setting '{unknown[0]}'", hint=f"settings: {', '.join(SETTINGS)}")
    return dict(settings)


def _with_settings(block: SuperBlock, given: Mapping[str, str]) -> SuperBlock:
    if "features" in given:
        chosen: FeatureSet = parse_features(given["features"])
        block = replace(block, features=chosen.features, uid=chosen.uid, gid=chosen.gid, perm=chosen.perm)
    if "label" in given:
        label = given["label"].encode("utf-8", "surrogateescape")
        if len(label) > LABEL_BYTES:
            raise UsageError(f"a label has at most {LABEL_BYTES} bytes")
        block = replace(block, label_bytes=label)
    if "uuid" in given:
        try:
            block = replace(block, uuid=uuid.UUID(given["uuid"]))
        except ValueError:
            raise UsageError(f"'{given['uuid']}' is not a UUID") from None
    return block


def recover(raw: bytes) -> Recovered | None:
    """The best super block that can be made from ``raw``; None when there is nothing of one.

    Looked for in this order: a block that is right but for its checksum field, magic, reserved
    area, invalid ids or permission bits; a block with one damaged byte, which the checksum
    finds; a block whose fields have to be taken as they are.
    """
    damaged = layout.recognise(raw)
    mended = _one_byte_mended(raw)
    if mended is not None and _mounts(mended):
        return Recovered(layout.decode(mended), "one damaged byte was found with the checksum and put right")
    if damaged is None:
        return None
    block = _legal(damaged)
    if layout.checksum_fits(raw):
        return Recovered(block, "the checksum was right; only what a kernel refuses is changed")
    cleared = layout.with_magic(raw[: SUPER_BLOCK_BYTES - len(block.reserved)] + bytes(len(block.reserved)))
    if damaged.crc == layout.checksum(cleared):
        return Recovered(block, "only the reserved area was damaged")
    return Recovered(block, "the checksum was wrong and its cause is unknown: verify the parameters taken as found")


def _mounts(raw: bytes) -> bool:
    return next(layout.mount_faults(raw), None) is None


def _legal(block: SuperBlock) -> SuperBlock:
    """The fields as found, without what a kernel refuses."""
    features = block.features & KNOWN_FEATURES
    uid, gid = block.uid, block.gid
    if features & Feature.UID and uid == INVALID_ID:
        features, uid = features & ~Feature.UID, 0
    if features & Feature.GID and gid == INVALID_ID:
        features, gid = features & ~Feature.GID, 0
    return SuperBlock(
        label_bytes=block.label_bytes,
        uuid=block.uuid,
        features=features,
        uid=uid,
        gid=gid,
        perm=block.perm & PERM_MASK if features & Feature.PERM else block.perm,
    )


def _one_byte_mended(raw: bytes) -> bytes | None:
    """``raw`` with the one byte changed that makes its checksum right, None if there is no such byte.

    CRC-32 is linear: a changed byte changes the checksum by a pattern that depends on the change
    and its distance from the end only. The patterns of all 255 changes are stepped back from the
    end of the block together, one byte at a time.
    """
    wanted = layout.checksum(raw) ^ int.from_bytes(raw[4:8], "little")
    if not wanted:
        return None
    steps = np.array([zlib.crc32(bytes([b]), 0xFFFFFFFF) ^ 0xFFFFFFFF for b in range(256)], np.uint32)
    patterns = steps.copy()
    for position in range(SUPER_BLOCK_BYTES - 1, -1, -1):
        if not 4 <= position < 8:
            change = np.flatnonzero(patterns[1:] == wanted)
            if len(change):
                mended = bytearray(raw)
                mended[position] ^= int(change[0]) + 1
                return bytes(mended)
        patterns = steps[patterns & 0xFF] ^ (patterns >> np.uint32(8))
    return None
