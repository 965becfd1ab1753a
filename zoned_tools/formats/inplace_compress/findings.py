"""What a survey means: findings, a column for each rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.media import assumption, blocks_of_bitmap, unreadable_bitmap
from zoned_tools.formats.inplace_compress.places import Phrases, place
from zoned_tools.formats.inplace_compress.rules import RULES, UNREADABLE_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.open import Volume
    from zoned_tools.formats.inplace_compress.survey import Problems, Survey
    from zoned_tools.formats.inplace_compress.verify import Payloads
    from zoned_tools.formats.shared.columns import Column
    from zoned_tools.formats.shared.findings import FindingGroup


def super_block_finding(code: str, super_block: SuperBlock, size_bytes: int) -> FindingGroup:
    """SB_MAGIC, SB_SIZE or SB_DEVICE; ``size_bytes`` is the device's from the layout's start on."""
    meta, data = super_block.meta_blocks, super_block.data_blocks
    message = {
        "SB_MAGIC": f"the magic is {super_block.magic:#018x}, not {layout.MAGIC:#018x}; "
        "activating the target now would format the device",
        "SB_SIZE": f"{meta} meta blocks do not belong to {data} data blocks",
        "SB_DEVICE": f"{1 + meta + data} blocks do not fit the device of {size_bytes // BLOCK_BYTES}",
    }[code]
    return RULES.finding(code, message, meta_blocks=meta, data_blocks=data)


def super_block_lost(start_bytes: int, volume: Volume | None) -> FindingGroup:
    """``metadata-lost`` of a super block; ``volume`` is what is assumed instead."""
    where: dict[str, Any] = {"offset_bytes": start_bytes, "length_bytes": BLOCK_BYTES}
    if volume is None:
        message = "the super block cannot be read, and no sizes fit what is behind it"
        return RULES.finding("metadata-lost", message, what="super", repairable=False, **where)
    where |= {"meta_blocks": volume.meta_blocks, "data_blocks": volume.data_blocks, "comp_alg": volume.comp_alg}
    return RULES.finding("metadata-lost", assumption(volume), what="super", **where)


def bitmap_lost(survey: Survey) -> Iterator[FindingGroup]:
    """``metadata-lost`` for each run of blocks of the bitmap, with the data blocks that depend on it."""
    volume, unknown = survey.volume, survey.unknown
    ends = unknown.block + unknown.blocks
    for first, end, _ in unreadable_bitmap(volume):
        low, high = blocks_of_bitmap(volume, first, end)
        inside = slice(int(np.searchsorted(ends, low, "left")), int(np.searchsorted(unknown.block, high, "left")))
        if inside.start >= inside.stop:  # it could be read a moment ago
            continue
        low, high = int(unknown.block[inside][0]), int(ends[inside][-1])
        offset = volume.bitmap_offset_bytes + first * BLOCK_BYTES
        what = "block" if end == first + 1 else "blocks"
        message = (
            f"{end - first} {what} of the bitmap at byte {offset} cannot be read: {place(low, high - low)} are lost"
        )
        yield RULES.finding(
            "metadata-lost", message, what="bitmap", repairable=False,
            offset_bytes=offset, length_bytes=(end - first) * BLOCK_BYTES, block=low, blocks=high - low,
        )  # fmt: skip


def data_unreadable(survey: Survey) -> FindingGroup:
    """``data-unreadable`` of payloads that a drive did not give while they were tested."""
    blocks, extents = int(survey.unread.blocks.sum()), len(survey.unread)
    what = "extent" if extents == 1 else "extents"
    message = f"the payload of {extents} {what} cannot be read, {blocks} blocks; the first is {survey.unread.block[0]}"
    return RULES.finding("data-unreadable", message, blocks=blocks, ranges=extents)


def survey_findings(survey: Survey, *, deep: bool) -> Iterator[FindingGroup]:
    """What is wrong with compressor, bitmap and payloads.

    Args:
        deep: also say what payload verifies at the head of an unreadable extent.
    """
    volume = survey.volume
    if volume.compressor is None:
        yield RULES.finding("SB_ALG", _unknown_compressor(survey), comp_alg=volume.comp_alg)
    elif survey.accepting:
        names = " or ".join(sorted(c.label for c in survey.accepting))
        message = f"no compressed extent decodes with {volume.compressor.label}, all do with {names}"
        yield RULES.finding("SB_ALG_MISMATCH", message, comp_alg=volume.comp_alg)
    for code, problems in survey.problems.items():
        verifying = survey.find_verifying() if deep and code in UNREADABLE_CODES else None
        yield from _problem_findings(code, problems, verifying)
    if survey.shadows is not None:
        yield from _shadow_findings(survey)


def _unknown_compressor(survey: Survey) -> str:
    message = f"the super block names compressor {survey.volume.comp_alg}, which is unknown; streams were not tested"
    if survey.accepting:
        names = " or ".join(sorted(c.label for c in survey.accepting))
        return f"{message}, but {names} decodes every compressed extent"
    if survey.payloads and survey.statistics.compressed_extents:
        return f"{message}; no known compressor decodes every compressed extent"
    return message


def _problem_findings(code: str, problems: Problems, verifying: Payloads | None) -> Iterator[FindingGroup]:
    if verifying is None:
        yield _group(code, problems, np.ones(len(problems), bool), {})
        return
    found, rows = verifying.find(problems.block)
    yield _group(code, problems, ~found, {})
    yield _group(code, problems, found, _verifying_columns(verifying, rows[found]))


def _group(code: str, problems: Problems, mask: Array, more: dict[str, Column]) -> FindingGroup:
    columns: dict[str, Column] = {"block": problems.block[mask], "blocks": problems.blocks[mask]}
    if code == "EXT_SHORT":
        columns["decoded_bytes"] = problems.decoded_bytes[mask]
    words = {"place": Phrases(place, problems.block[mask], problems.blocks[mask])}
    meaning = RULES[code].meaning
    return RULES.findings(code, f"{{place}}: {meaning}", words=words, repairable=True, **columns, **more)


def _verifying_columns(payloads: Payloads, rows: Array) -> dict[str, Column]:
    return {
        "verifying_blocks": payloads.blocks[rows],
        "verifying_payload_sectors": payloads.payload_sectors[rows],
        "verifying_crc32": np.char.mod("%08x", payloads.crc32[rows]),
    }


_SHADOW = (
    "{place}: the WHAT begins with a payload of {verifying_payload_sectors} sectors "
    "that decodes to {verifying_blocks} blocks"
)


def _shadow_findings(survey: Survey) -> Iterator[FindingGroup]:
    shadows = survey.find_shadows()
    for code, what, mask in (
        ("RAW_SHADOW", "raw extent", shadows.is_raw),
        ("HOLE_SHADOW", "hole", ~shadows.is_raw),
    ):
        rows = np.flatnonzero(mask)
        block, blocks = shadows.payloads.block[rows], shadows.blocks[rows]
        yield RULES.findings(
            code,
            _SHADOW.replace("WHAT", what),
            words={"place": Phrases(place, block, blocks)},
            repairable=True,
            block=block,
            blocks=blocks,
            **_verifying_columns(shadows.payloads, rows),
        )
