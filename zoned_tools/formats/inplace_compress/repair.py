"""Plans repairs: the safe ones always, those that guess or lose data only with consent.

Consent comes as settings (``yes``): ``relink`` (use payloads that verify behind wrong
entries), ``zero-unreadable`` (unreadable extents become holes), ``salvage-raw``
(unreadable extents become raw), ``decode-mistagged``, ``swap-words``, ``clear-slack``; or as
a finding's code in ``allow``, which means relink for the EXT_, MAP_NIBBLE and SHADOW codes
and the one repair that there is for EXT_MISTAG, MAP_ENDIAN and MAP_SLACK.

The order is data, flush, bitmap, flush, super block, flush: after an interruption the
volume can be checked and repaired again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.findings import CheckReport
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.analysis import KEPT_MAX, UNREADABLE_CODES, Analysis, Problem, analyse
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.check import expected_geometry
from zoned_tools.formats.inplace_compress.choices import switch
from zoned_tools.formats.inplace_compress.compressors import Compressor, decode_many
from zoned_tools.formats.inplace_compress.deep import Shadow
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, NIBBLE, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.metadata import extent_entries, swap_words
from zoned_tools.formats.inplace_compress.recovery import find_super_block
from zoned_tools.formats.inplace_compress.rejection import Rejected
from zoned_tools.formats.inplace_compress.slack import Meaning, judge_slack
from zoned_tools.formats.inplace_compress.verify import VerifyingPayload, verifying_payload
from zoned_tools.formats.inplace_compress.volume import SuperBlock, Volume, read_super_block, volume_of
from zoned_tools.formats.registry import RepairOptions, Target

_SWAP_CHUNK_BYTES = 1 << 20
_SHADOWS = {"RAW_SHADOW", "HOLE_SHADOW"}


@dataclass(slots=True)
class _Work:
    """A repair in the making: changed entries in memory, data writes in order, messages."""

    volume: Volume
    options: RepairOptions
    bitmap: Bitmap
    slack_is_doubtful: bool = False
    data: list[tuple[int, bytes, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def agreed(self, setting: str, code: str) -> bool:
        return switch(self.options.settings, setting) or code in self.options.allow

    def set_extent(self, block: int, blocks: int, payload_sectors: int, cleared_blocks: int = 0) -> None:
        """Make an extent, and holes of the rest of ``cleared_blocks``."""
        self.bitmap.put(block, extent_entries(blocks, payload_sectors))
        if cleared_blocks > blocks:
            self.bitmap.put(block + blocks, np.zeros(cleared_blocks - blocks, np.uint8))


def plan_repair(target: Target, report: CheckReport, options: RepairOptions) -> Plan:
    """The changes that repair what ``report`` found; see the module for consent.

    The plan's messages say what stays broken and why, and which blocks lose content.
    """
    plan = Plan(f"repair {layout.NAME} metadata")
    codes = {finding.code for finding in report.findings}
    hidden = switch(options.settings, "relink") or bool(options.allow & _SHADOWS)
    if "OLD_SERIES" in codes or not (codes or hidden):
        return plan
    device, start = target.device, target.start_bytes
    stored = read_super_block(device, start)
    if stored is None:
        return plan
    wanted = stored
    if codes & {"SB_MAGIC", "SB_SIZE", "SB_DEVICE"}:
        found, reason = _lost_super_block(target, stored, codes, options)
        if found is None:
            plan.messages.append(f"the super block is left alone: {reason}")
            return plan
        plan.messages.append(f"super block of {found.data_blocks} data blocks: {reason}")
        wanted = found
    volume = volume_of(device, start, wanted)
    if "MAP_ENDIAN" in codes:
        _plan_swap(plan, volume, options)
    else:
        volume = _plan_map(plan, volume, codes, options)
    if volume.super_block != stored:
        _plan_super_block(plan, volume)
    return plan


def _lost_super_block(
    target: Target, stored: SuperBlock, codes: set[str], options: RepairOptions
) -> tuple[SuperBlock | None, str]:
    given = {"table", "data-blocks"} & set(options.settings)
    if "SB_DEVICE" in codes and not codes & {"SB_MAGIC", "SB_SIZE"} and not given:
        return None, "the device may have been shrunk; enlarge it, or give the volume's table line"
    return find_super_block(target.device, target.start_bytes, stored, options.settings)


def _plan_super_block(plan: Plan, volume: Volume) -> None:
    raw = volume.super_block.build()
    rest = volume.device.read(volume.start_bytes + len(raw), SECTOR_BYTES - len(raw))
    plan.write(0, volume.start_bytes, raw + rest, "super block")
    plan.flush(0)


def _plan_swap(plan: Plan, volume: Volume, options: RepairOptions) -> None:
    if not switch(options.settings, "swap-words") and "MAP_ENDIAN" not in options.allow:
        plan.messages.append("the bitmap of a big-endian host is left alone; --swap-words turns it round")
        return
    for offset in range(0, volume.bitmap_bytes, _SWAP_CHUNK_BYTES):
        length = min(_SWAP_CHUNK_BYTES, volume.bitmap_bytes - offset)
        present = -(-length // SECTOR_BYTES) * SECTOR_BYTES
        raw = volume.device.read(volume.bitmap_offset_bytes + offset, present)
        plan.write(0, volume.bitmap_offset_bytes + offset, swap_words(raw[:length]) + raw[length:], "bitmap")
    plan.flush(0)


def _plan_map(plan: Plan, volume: Volume, codes: set[str], options: RepairOptions) -> Volume:
    """Plan changes of data and bitmap; returns the volume with the compressor that it should name."""
    relink = switch(options.settings, "relink")
    deep = relink or bool(options.allow & _SHADOWS)
    analysis = analyse(volume, deep=deep)
    if volume.compressor is None or analysis.accepting:
        volume = _choose_compressor(plan, analysis)
        if volume.compressor is None:
            return volume
        analysis = analyse(volume, deep=deep)
    doubtful = False
    if "MAP_SLACK" in analysis.counts:
        slack = judge_slack(volume, expected_geometry(options.settings))
        doubtful = slack.meaning is Meaning.DOUBTFUL
        if slack.meaning is Meaning.ENTRIES:
            volume = slack.volume
            plan.messages.append(f"{volume.data_blocks} data blocks: the bits behind the last entry are entries")
            analysis = analyse(volume, deep=deep)
    work = _Work(volume, options, Bitmap(volume, SECTOR_BYTES), doubtful)
    unreadable = {p.block for p in analysis.problems if p.code in UNREADABLE_CODES}
    for problem in analysis.problems:
        _repair_problem(work, problem, unreadable)
    for shadow in analysis.shadows:
        if work.agreed("relink", shadow.code):
            _relink_shadow(work, shadow)
    for code, count in analysis.counts.items():
        if count > KEPT_MAX:
            work.messages.append(f"{count} findings of {code}: repair again for those behind the first {KEPT_MAX}")
    _plan_changes(plan, work)
    return volume


def _choose_compressor(plan: Plan, analysis: Analysis) -> Volume:
    volume = analysis.volume
    if len(analysis.accepting) == 1:
        chosen = next(iter(analysis.accepting))
        plan.messages.append(f"compressor {chosen.label}: it decodes every compressed extent")
        return replace(volume, comp_alg=int(chosen))
    if volume.compressor is None:
        plan.messages.append("the compressor is left alone: not exactly one decodes every compressed extent")
    return volume


def _plan_changes(plan: Plan, work: _Work) -> None:
    for offset, content, note in work.data:
        plan.write(0, offset, content, note)
    if work.data:
        plan.flush(0)
    base = work.volume.bitmap_offset_bytes
    runs = work.bitmap.dirty_writes()
    for first, last in runs:
        length = (last - first + 1) * SECTOR_BYTES
        plan.write(0, base + first * SECTOR_BYTES, work.bitmap.encoded(first * SECTOR_BYTES, length), "bitmap")
    if runs:
        plan.flush(0)
    plan.messages += work.messages


def _repair_problem(work: _Work, problem: Problem, unreadable: set[int]) -> None:
    block, blocks = problem.block, problem.blocks
    match problem.code:
        case "MAP_TAIL0":
            work.bitmap.put(0, work.bitmap.entries(0, 1) & NIBBLE)
        case "MAP_ORPHAN":
            _repair_orphan(work, problem)
        case "MAP_CANON" if block not in unreadable:
            work.set_extent(block, blocks, problem.payload_sectors)
        case "MAP_SLACK":
            _clear_slack(work, block)
        case "EXT_MISTAG":
            _decode_mistagged(work, problem)
        case "EXT_SHORT" if _shorten(work, problem):
            pass
        case code if code in UNREADABLE_CODES:
            _repair_unreadable(work, problem)


def _clear_slack(work: _Work, block: int) -> None:
    if work.slack_is_doubtful and not work.agreed("clear-slack", "MAP_SLACK"):
        work.messages.append(
            f"the bits behind the last entry (MAP_SLACK) are left alone: block {block} may hold raw data that "
            "the super block left out; give the volume's table line, or agree with --clear-slack"
        )
    else:
        work.bitmap.touch(block - 1)


def _shorten(work: _Work, problem: Problem) -> bool:
    """Cut an extent to what its payload decodes to; the rest reads as zeroes as before."""
    blocks, rest = divmod(problem.decoded_bytes, BLOCK_BYTES)
    if rest or blocks == 0 or problem.payload_sectors >= blocks * BLOCK_SECTORS:
        return False
    work.set_extent(problem.block, blocks, problem.payload_sectors, problem.blocks)
    work.messages.append(
        f"blocks {problem.block + blocks} to {problem.block + problem.blocks - 1} become holes; "
        "the driver returned zeroes for them"
    )
    return True


def _holes(work: _Work, first: int, end: int) -> bool:
    """Whether blocks are holes that nothing continues."""
    if end > work.volume.data_blocks:
        return False
    count = min(end + 1, work.volume.data_blocks) - first
    entries = work.bitmap.entries(first, count)
    return not entries[: end - first].any() and (len(entries) <= end - first or not entries[-1] & layout.TAIL)


def _fitting_payload(work: _Work, block: int, blocks: int) -> VerifyingPayload | None:
    """The verifying payload at ``block`` if it lies in the old extent and holes behind it."""
    payload = verifying_payload(work.volume, block)
    if payload is None or (payload.blocks > blocks and not _holes(work, block + blocks, block + payload.blocks)):
        return None
    return payload


def _repair_unreadable(work: _Work, problem: Problem) -> None:
    block, blocks, code = problem.block, problem.blocks, problem.code
    where = f"block {block}" if blocks == 1 else f"blocks {block} to {block + blocks - 1}"
    payload = _fitting_payload(work, block, blocks)
    if payload is not None and work.agreed("relink", code):
        work.set_extent(block, payload.blocks, payload.payload_sectors, blocks)
        work.messages.append(f"{where} ({code}): linked to a payload that decodes to {payload.blocks} blocks")
    elif switch(work.options.settings, "zero-unreadable"):
        work.bitmap.put(block, np.zeros(blocks, np.uint8))
        work.messages.append(f"{where} ({code}): the content is lost, it becomes zeroes")
    elif switch(work.options.settings, "salvage-raw"):
        work.set_extent(block, blocks, blocks * BLOCK_SECTORS)
        work.messages.append(f"{where} ({code}): the content becomes the bytes as they are stored")
    else:
        ways = "--zero-unreadable or --salvage-raw" if payload is None else "--relink"
        work.messages.append(f"{where} ({code}): left alone, see {ways}")


def _repair_orphan(work: _Work, problem: Problem) -> None:
    """Turn tails without a payload into holes, or with consent into the extent that lost its head."""
    block, blocks = problem.block, problem.blocks
    payload = _fitting_payload(work, block, blocks) if work.agreed("relink", problem.code) else None
    if payload is None:
        work.bitmap.put(block, np.zeros(blocks, np.uint8))
    else:
        work.set_extent(block, payload.blocks, payload.payload_sectors, blocks)
        work.messages.append(f"block {block} (MAP_ORPHAN): linked to a payload that decodes to {payload.blocks} blocks")


def _decode_mistagged(work: _Work, problem: Problem) -> None:
    if not work.agreed("decode-mistagged", problem.code):
        return
    volume, size = work.volume, problem.blocks * BLOCK_BYTES
    offset = volume.block_offset_bytes(problem.block)
    raw = volume.device.read(offset, size)
    length = int.from_bytes(raw[-4:], "little")
    outcome = decode_many(volume.compressor or Compressor.C842, [raw[:length]], [size])[0]
    if not isinstance(outcome, Rejected) and len(outcome) == size:
        work.data.append((offset, outcome, f"decoded content of block {problem.block}"))
        work.messages.append(f"block {problem.block}, {problem.blocks} long (EXT_MISTAG): stored decoded")


def _relink_shadow(work: _Work, shadow: Shadow) -> None:
    """Use the payload; blocks of a raw extent behind it stay raw."""
    payload, block = shadow.payload, shadow.block
    if shadow.code == "RAW_SHADOW":
        if payload.blocks > shadow.blocks and not _holes(work, block + shadow.blocks, block + payload.blocks):
            work.messages.append(f"block {block} (RAW_SHADOW): left alone, the payload reaches into other extents")
            return
        if payload.blocks < shadow.blocks:
            rest = shadow.blocks - payload.blocks
            work.bitmap.put(block + payload.blocks, extent_entries(rest, rest * BLOCK_SECTORS))
    elif not _holes(work, block, block + payload.blocks):
        return
    work.bitmap.put(block, extent_entries(payload.blocks, payload.payload_sectors))
    work.messages.append(f"block {block} ({shadow.code}): linked to a payload that decodes to {payload.blocks} blocks")
