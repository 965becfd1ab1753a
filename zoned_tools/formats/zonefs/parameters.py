"""The parameters of a volume: label, UUID and features, as settings give them and as a super block holds them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from zoned_tools.formats.zonefs.constants import Feature
from zoned_tools.formats.zonefs.features import FeatureSet, parse_features
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.settings import check_label, label_of

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Settings


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a new volume is to be; ``uuid`` None draws a random one."""

    label: bytes = b""
    features: FeatureSet = field(default_factory=FeatureSet)
    uuid: uuid.UUID | None = None

    def super_block(self) -> SuperBlock:
        """The super block: the same bytes for the same parameters.

        Raises:
            UsageError: the label is too long or holds a NUL.
        """
        return SuperBlock(
            label_bytes=check_label(self.label),
            uuid=self.uuid or uuid.uuid4(),
            features=self.features.features,
            uid=self.features.uid,
            gid=self.features.gid,
            perm=self.features.perm,
        )


def with_settings(block: SuperBlock, given: Settings) -> SuperBlock:
    """``block`` with the parameters that a user gave."""
    if "features" in given:
        chosen = parse_features(given["features"])
        block = replace(block, features=chosen.features, uid=chosen.uid, gid=chosen.gid, perm=chosen.perm)
    if "label" in given:
        block = replace(block, label_bytes=label_of(given["label"]))
    if "uuid" in given:
        block = replace(block, uuid=uuid.UUID(given["uuid"]))
    return block


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
