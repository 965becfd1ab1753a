"""Read-only check of a volume: super block, bitmap, payloads; with ``deep`` also what the bitmap hides.

Settings: ``table`` (a table line: the geometry where the super block is damaged),
``data-blocks``, ``force`` (``yes``: go on with that geometry), ``payloads`` (``no``:
structure only), ``processes`` (how many decode; 0 for as many as there are cores).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from zoned_tools.errors import DeviceError, UsageError
from zoned_tools.findings import CheckReport, Finding
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.analysis import (
    UNREADABLE_CODES,
    Analysis,
    Problem,
    analyse,
    is_other_byte_order,
)
from zoned_tools.formats.inplace_compress.choices import CONSENTS, switch
from zoned_tools.formats.inplace_compress.codes import CODES
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.deep import Shadow
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS
from zoned_tools.formats.inplace_compress.table import OPTIONS, arguments_from_options
from zoned_tools.formats.inplace_compress.verify import verifying_payload
from zoned_tools.formats.inplace_compress.volume import (
    SuperBlock,
    Volume,
    is_old_series,
    read_super_block,
    super_block_faults,
    volume_of,
)
from zoned_tools.formats.inplace_compress.workers import judging
from zoned_tools.formats.registry import CheckOptions, Target, require_known

__all__ = ["CODES", "LISTED_MAX", "check", "expected_geometry", "finding"]

LISTED_MAX = 10_000
"""Findings of one code that are listed; the rest is counted in one more finding."""

_BLOCKING = {"SB_MAGIC", "SB_SIZE", "SB_DEVICE"}


def finding(rule: str, message: str = "", **where: object) -> Finding:
    """A finding of this layout with the severity of its code ``rule``."""
    known = CODES[rule]
    return Finding(f"{layout.NAME}.{rule}", known.severity, message or known.meaning, where, known.repair)


SETTINGS = (*OPTIONS, "data-blocks", "force", "payloads", "processes", *CONSENTS)
"""Settings that check and repair understand: both are given the same ones."""


def expected_geometry(settings: Mapping[str, str]) -> int | None:
    """Data blocks that the user knows the volume to have (from ``table`` or ``data-blocks``).

    Raises:
        UsageError: the two contradict each other or cannot be meant.
    """
    from_table = arguments_from_options(settings).length_sectors
    known = None if from_table is None else from_table // BLOCK_SECTORS
    if "data-blocks" in settings:
        text = settings["data-blocks"]
        if not text.isdecimal() or len(text) > 19 or int(text) == 0:
            raise UsageError(f"{text!r} is not a number of data blocks")
        if known not in (None, int(text)):
            raise UsageError("the table line and the number of data blocks contradict each other")
        known = int(text)
    return known


def check(target: Target, options: CheckOptions) -> CheckReport:
    """Test every rule of the layout.

    Raises:
        DeviceError: the device is too small to hold a super block.
        UsageError: a setting is unknown or cannot be meant.
    """
    require_known(options.settings, SETTINGS)
    device = target.device
    report = CheckReport(layout.NAME, target.paths)
    super_block = read_super_block(device, target.start_bytes)
    if super_block is None:
        raise DeviceError("too small for a super block", device=device.path)
    if super_block.magic == layout.MAGIC and is_old_series(device, target.start_bytes):
        report.findings.append(finding("OLD_SERIES", offset_bytes=target.start_bytes))
        return report
    size_bytes = device.geometry.size_bytes - target.start_bytes
    faults = super_block_faults(super_block, size_bytes)
    report.findings += [_super_block_finding(code, super_block, size_bytes) for code in faults if code != "SB_ALG"]
    volume = volume_of(device, target.start_bytes, super_block)
    if _BLOCKING & set(faults):
        forced = _forced_volume(target, super_block, options.settings)
        if forced is None:
            return report
        volume = forced
    expected = expected_geometry(options.settings)
    if expected is not None:
        report.facts["table_matches"] = expected == volume.data_blocks
    _check_volume(volume, options, report)
    return report


def _forced_volume(target: Target, super_block: SuperBlock, settings: Mapping[str, str]) -> Volume | None:
    """The volume with the geometry that the user gave, None when the check has to stop."""
    data_blocks = expected_geometry(settings)
    if data_blocks is None or not switch(settings, "force"):
        return None
    name = arguments_from_options(settings).compressor
    by_name = {c.label: int(c) for c in Compressor}
    sizes = SuperBlock(
        layout.MAGIC, layout.meta_blocks_for(data_blocks), data_blocks, by_name.get(name, super_block.comp_alg)
    )
    size_bytes = target.device.geometry.size_bytes - target.start_bytes
    if {"SB_SIZE", "SB_DEVICE"} & set(super_block_faults(sizes, size_bytes)):
        return None
    return volume_of(target.device, target.start_bytes, sizes)


def _super_block_finding(code: str, super_block: SuperBlock, size_bytes: int) -> Finding:
    meta, data = super_block.meta_blocks, super_block.data_blocks
    message = {
        "SB_MAGIC": f"the magic is {super_block.magic:#018x}, not {layout.MAGIC:#018x}; "
        "activating the target now would format the device",
        "SB_SIZE": f"{meta} meta blocks do not belong to {data} data blocks",
        "SB_DEVICE": f"{1 + meta + data} blocks do not fit the device of {size_bytes // BLOCK_BYTES}",
    }[code]
    return finding(code, message, meta_blocks=meta, data_blocks=data)


def _check_volume(volume: Volume, options: CheckOptions, report: CheckReport) -> None:
    settings = options.settings
    payloads = switch(settings, "payloads", default=True)
    with judging(volume, settings.get("processes", "0")) as judge:
        analysis = analyse(volume, payloads=payloads, deep=options.deep, judge=judge)
    _add_facts(analysis, report)
    if is_other_byte_order(analysis):
        report.findings.append(finding("MAP_ENDIAN", offset_bytes=volume.bitmap_offset_bytes))
        report.facts["byte_order"] = "big"
        return
    if volume.compressor is None:
        report.findings.append(_unknown_compressor(analysis, payloads))
    elif analysis.accepting:
        names = " or ".join(sorted(c.label for c in analysis.accepting))
        message = f"no compressed extent decodes with {volume.compressor.label}, all do with {names}"
        report.findings.append(finding("SB_ALG_MISMATCH", message, comp_alg=volume.comp_alg))
    report.findings += _problem_findings(analysis, verifying=options.deep)
    report.findings += [_shadow_finding(shadow) for shadow in analysis.shadows[:LISTED_MAX]]


def _unknown_compressor(analysis: Analysis, payloads: bool) -> Finding:
    number = analysis.volume.comp_alg
    message = f"the super block names compressor {number}, which is unknown; streams were not tested"
    if analysis.accepting:
        names = " or ".join(sorted(c.label for c in analysis.accepting))
        message += f", but {names} decodes every compressed extent"
    elif payloads and analysis.statistics.compressed_extents:
        message += "; no known compressor decodes every compressed extent"
    return finding("SB_ALG", message, comp_alg=number)


def _add_facts(analysis: Analysis, report: CheckReport) -> None:
    volume = analysis.volume
    report.facts.update(
        {
            "data_blocks": volume.data_blocks,
            "meta_blocks": volume.meta_blocks,
            "comp_alg": volume.comp_alg,
            "compressor": volume.compressor.label if volume.compressor is not None else None,
            "byte_order": "big" if volume.reversed_words else "little",
            **analysis.statistics.as_json(),
            "unreadable_blocks": analysis.unreadable_blocks,
        }
    )


def _where_text(problem: Problem) -> str:
    if problem.blocks == 0:
        return "behind the last entry"
    if problem.blocks == 1:
        return f"block {problem.block}"
    return f"blocks {problem.block} to {problem.block + problem.blocks - 1}"


def _problem_findings(analysis: Analysis, *, verifying: bool) -> Iterator[Finding]:
    listed: dict[str, int] = {}
    for problem in analysis.problems:
        code = problem.code
        listed[code] = listed.get(code, 0) + 1
        if listed[code] > LISTED_MAX:
            continue
        where: dict[str, object] = {"block": problem.block, "blocks": problem.blocks}
        if code == "EXT_SHORT":
            where["decoded_bytes"] = problem.decoded_bytes
        if verifying and code in UNREADABLE_CODES:
            where.update(_verifying(analysis.volume, problem.block))
        yield finding(code, f"{_where_text(problem)}: {CODES[code].meaning}", **where)
    for code, count in analysis.counts.items():
        if count > LISTED_MAX:
            yield finding(
                "MORE", f"{count - LISTED_MAX} further findings of {code}", code=code, count=count - LISTED_MAX
            )


def _verifying(volume: Volume, block: int) -> dict[str, object]:
    payload = verifying_payload(volume, block)
    if payload is None:
        return {}
    return {
        "verifying_blocks": payload.blocks,
        "verifying_payload_sectors": payload.payload_sectors,
        "verifying_crc32": f"{zlib.crc32(payload.content):08x}",
    }


def _shadow_finding(shadow: Shadow) -> Finding:
    payload = shadow.payload
    what = "raw extent" if shadow.code == "RAW_SHADOW" else "hole"
    message = (
        f"{_where_text(Problem(shadow.code, shadow.block, shadow.blocks))}: the {what} begins with a payload of "
        f"{payload.payload_sectors} sectors that decodes to {payload.blocks} blocks"
    )
    return finding(
        shadow.code,
        message,
        block=shadow.block,
        blocks=shadow.blocks,
        verifying_blocks=payload.blocks,
        verifying_payload_sectors=payload.payload_sectors,
        verifying_crc32=f"{zlib.crc32(payload.content):08x}",
    )
