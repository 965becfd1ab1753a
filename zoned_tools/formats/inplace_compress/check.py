"""Read-only check of a volume: super block, bitmap, payloads; with ``deep`` also what the bitmap hides."""

from __future__ import annotations

from dataclasses import dataclass
from errno import EIO

from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.formats.contract import CheckOptions, Evidence, Settings, Target
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.assume import assume_volume
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.findings import (
    bitmap_lost,
    data_unreadable,
    super_block_finding,
    super_block_lost,
    survey_findings,
)
from zoned_tools.formats.inplace_compress.judge import BLOCKING, sizes_are_possible, super_block_faults
from zoned_tools.formats.inplace_compress.layout import SuperBlock
from zoned_tools.formats.inplace_compress.open import Volume, is_old_series, read_super_block, volume_of
from zoned_tools.formats.inplace_compress.rules import RULES
from zoned_tools.formats.inplace_compress.survey import Survey, is_other_byte_order, take_survey
from zoned_tools.formats.inplace_compress.table import arguments_from_settings, known_data_blocks
from zoned_tools.formats.inplace_compress.workers import judging


@dataclass(slots=True)
class InplaceEvidence(Evidence):
    """What a check found.

    Attributes:
        super_block: as it is stored; None where it cannot be read.
        assumed: what the super block most likely was, where it cannot be read.
        faults: codes of the super block's rules that it violates.
        is_old_series: a volume of the 2013 series; nothing else was looked at.
        survey: None when the super block tells nothing and no size was given.
        other_byte_order: the bitmap makes sense only with its words reversed.
        deep: whether payloads behind wrong entries were to be looked for.
    """

    super_block: SuperBlock | None = None
    assumed: SuperBlock | None = None
    faults: tuple[str, ...] = ()
    is_old_series: bool = False
    survey: Survey | None = None
    other_byte_order: bool = False
    deep: bool = False


def check(target: Target, options: CheckOptions) -> InplaceEvidence:
    """Test every rule of the layout.

    Raises:
        DeviceError: the device is too small to hold a super block.
        UsageError: settings contradict each other or cannot be meant.
    """
    device = target.device
    require_consistent(options.settings)
    evidence = InplaceEvidence(target, deep=options.deep or wants_shadows(options.settings))
    try:
        super_block = read_super_block(device, target.start_bytes)
    except DeviceError as error:
        if error.errno != EIO:
            raise
        _check_without_super_block(evidence, options)
        return evidence
    if super_block is None:
        raise DeviceError("too small for a super block", device=device.path)
    evidence.super_block = super_block
    if is_old_series(device, target.start_bytes):
        evidence.is_old_series = True
        evidence.findings.add(RULES.finding("OLD_SERIES", offset_bytes=target.start_bytes))
        return evidence
    size_bytes = device.geometry.size_bytes - target.start_bytes
    evidence.faults = super_block_faults(super_block, size_bytes)
    evidence.findings += [super_block_finding(c, super_block, size_bytes) for c in evidence.faults if c != "SB_ALG"]
    volume = volume_of(device, target.start_bytes, super_block)
    if BLOCKING & set(evidence.faults):
        forced = _forced_volume(target, super_block, options.settings)
        if forced is None:
            return evidence
        volume = forced
    expected = known_data_blocks(options.settings)
    if expected is not None:
        evidence.facts["table_matches"] = expected == volume.data_blocks
    _check_volume(volume, options, evidence)
    return evidence


def _check_without_super_block(evidence: InplaceEvidence, options: CheckOptions) -> None:
    """Check the volume that is most likely there; rescues, section 1.5."""
    target = evidence.target
    volume = assume_volume(target.device, target.start_bytes, known_data_blocks(options.settings))
    evidence.findings.add(super_block_lost(target.start_bytes, volume))
    if volume is not None:
        evidence.assumed = volume.super_block
        _check_volume(volume, options, evidence)


def require_consistent(settings: Settings) -> None:
    """Refuse settings that contradict each other or cannot be meant.

    Raises:
        UsageError: they do.
    """
    known_data_blocks(settings)
    if settings.on("zero-unreadable") and settings.on("salvage-raw"):
        raise UsageError("zero-unreadable and salvage-raw contradict each other")


def wants_shadows(settings: Settings) -> bool:
    """Whether a repair may use what only the deep check finds."""
    return settings.on("relink")


def _forced_volume(target: Target, super_block: SuperBlock, settings: Settings) -> Volume | None:
    """The volume with the geometry that the user gave, None when the check has to stop."""
    data_blocks = known_data_blocks(settings)
    if data_blocks is None or not settings.on("force"):
        return None
    name = arguments_from_settings(settings).compressor
    by_name = {c.label: int(c) for c in Compressor}
    sizes = SuperBlock(
        layout.MAGIC, layout.meta_blocks_for(data_blocks), data_blocks, by_name.get(name, super_block.comp_alg)
    )
    if not sizes_are_possible(sizes, target.device.geometry.size_bytes - target.start_bytes):
        return None
    return volume_of(target.device, target.start_bytes, sizes)


def survey_volume(volume: Volume, settings: Settings, *, payloads: bool, deep: bool) -> Survey:
    """Survey a volume with as many processes as the settings allow."""
    with judging(volume, settings.number("processes") or 0) as judge:
        return take_survey(volume, payloads=payloads, deep=deep, judge=judge)


def _check_volume(volume: Volume, options: CheckOptions, evidence: InplaceEvidence) -> None:
    settings = options.settings
    deep = evidence.deep
    survey = survey_volume(volume, settings, payloads=settings.on("payloads"), deep=deep)
    evidence.survey = survey
    evidence.facts |= _facts(survey)
    evidence.other_byte_order = is_other_byte_order(survey)
    if evidence.other_byte_order:
        evidence.findings.add(RULES.finding("MAP_ENDIAN", offset_bytes=volume.bitmap_offset_bytes))
        evidence.facts["byte_order"] = "big"
        return
    evidence.findings += survey_findings(survey, deep=deep)
    if len(survey.unknown):
        evidence.findings += bitmap_lost(survey)
    if len(survey.unread) and not len(known_bad_areas(volume.device)):
        evidence.findings.add(data_unreadable(survey))


def _facts(survey: Survey) -> dict[str, object]:
    volume = survey.volume
    return {
        "data_blocks": volume.data_blocks,
        "meta_blocks": volume.meta_blocks,
        "comp_alg": volume.comp_alg,
        "compressor": volume.compressor.label if volume.compressor is not None else None,
        "byte_order": "big" if volume.reversed_words else "little",
        **survey.statistics.as_json(),
        "unreadable_blocks": survey.unreadable_blocks,
    }
