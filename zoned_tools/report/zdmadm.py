"""What zdmadm prints, in the original's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.zdm.layout import (
    EMPTY_CRC_PAGE_CRC,
    EMPTY_PAGE_CRC,
    ZEROED_BLOCKS,
    ZONE_BLOCKS,
    ZONE_BYTES,
    ZONE_SECTORS,
)
from zoned_tools.report.check import outcome_lines
from zoned_tools.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.engine.checking import Outcome
    from zoned_tools.formats.zdm.layout import CreateLayout
    from zoned_tools.formats.zdm.superblock import SuperBlock


def probe_lines(identity: SuperBlock, path: str) -> Iterator[str]:
    """An identity."""
    yield from _identity_lines(identity, path)
    yield "---"
    yield from _run_time_lines(identity)


def _identity_lines(identity: SuperBlock, path: str) -> Iterator[str]:
    start = identity.data_start
    trim = ("ON+raid5" if identity.discard >> 16 else "ON") if identity.discard & 1 else "OFF"
    yes = {False: "No", True: "Yes"}
    aware, managed = bool(identity.disk_type >> 16 & 1), bool(identity.disk_type >> 17 & 1)
    yield f"Device {path} is configured for ZDM:"
    yield f"crc     - {identity.crc32:x}"
    yield "magic   - 7a6f6e6563444556 8265f57f48ba6d81"
    yield f"uuid    - {identity.uuid}"
    yield f"version - {identity.version_text}"
    if identity.label:
        yield f"label   - {identity.label}"
    yield f"start   - {identity.sect_start}"
    yield f"data    - {start * 524288:x} [zone {start} @ {start * 65536:x}]"
    yield f"size    - {identity.sect_size}"
    yield f"zdm sz  - {identity.zdm_blocks}"
    yield f"resv    - {identity.reserved} [3: metadata + {identity.mz_over_provision}: over provision]"
    yield f"trim    - {trim}"
    yield f"ha/hm   - HostAware {yes[aware]} / HostManaged {yes[managed]}"
    yield f"zac/zbc - ZAC: {yes[bool(identity.zac_zbc & 2)]} / ZBC: {yes[bool(identity.zac_zbc & 1)]}"
    yield f"is_meta - {identity.is_meta}"


def _run_time_lines(identity: SuperBlock) -> Iterator[str]:
    prio, wm = identity.gc_prio, identity.gc_wm
    yield f"io queue depth:            {identity.io_queue}"
    yield f"gc prio def/low/high/crit: {'/'.join(f'0x{p:04x}' for p in prio)}"
    yield f"gc wm low/high/crit:       {wm[2]}%/{wm[1]}%/{wm[0]}"
    yield f"gc state:                  {identity.gc_status}"
    yield f"cache size:                {identity.cache_size}"
    yield f"cache read ahead:          {identity.cache_reada}"
    yield f"cache ageout:              {identity.cache_ageout_ms} (ms)"
    yield f"cache to pagecache:        {identity.cache_to_pagecache}"
    yield f"metadata journal age:      {identity.journal_age}"


def check_lines(outcome: Outcome) -> Iterator[str]:
    """Every finding, and the original's verdict."""
    yield from outcome_lines(outcome, everything=True)
    yield "ZDM check failed." if outcome.fsck_status else "ZDM check passed."


def scan_lines(path: str, created: CreateLayout, *, verbose: bool) -> Iterator[str]:
    """What is told about a partition before the verb is carried out."""
    if verbose:
        yield f"Scanning device {path}"
        yield " ... No ZAC/ZAC support detected."
        yield f" ... partition {created.start_sector:x}, len {created.size_sectors} (512 byte sectors)"
    if created.aligning_blocks:
        yield "Using non-aligned space start of partition for metadata."
    if verbose:
        blocks = created.size_sectors // ZONE_SECTORS * ZONE_BLOCKS
        yield f"Reserved zones {created.metadata_zones} for metadata"
        yield f"{created.logical_sectors % (1 << 64) // 8} blocks on ZDM - {blocks} blocks on part"


def size_lines(size_bytes: int, needed_bytes: int) -> Iterator[str]:
    """Whether a metadata device is large enough."""
    yield f"MD Size: {size_bytes}, need {needed_bytes}"
    if size_bytes < needed_bytes:
        yield "Metatdata device is too small."
        yield f"  must be at least {needed_bytes} bytes [{needed_bytes // ZONE_BYTES} zones]"


def pool_lines(path: str, created: CreateLayout, *, verbose: bool) -> Iterator[str]:
    """Progress of writing empty metadata."""
    pool, zones, shift = created.pool_start, 2 * created.table_zones, created.start_sector // 8
    crc_start, crc_pages = pool + zones * ZONE_BLOCKS, 64 * created.table_zones
    yield f"ZDM: Initialize metadata pool for {path}"
    yield "ZDM: Initialize Metadata pool"
    yield f" ... initializing cache blocks from 1 - 0x{ZEROED_BLOCKS:x}"
    if created.aligning_blocks:
        yield f" ... used 0x{created.aligning_blocks:x} 4k blocks for zone-alignment"
    yield f" ... clearing {zones} ZTL zones from {pool:x} - {crc_start:x}"
    if verbose:
        yield " ... including reverse ZTL zones"
    yield f" ... {256 * zones} writes of 256 4k blocks [1048576 bytes]"
    yield "         lba of partition | drive"
    for block in range(pool, crc_start, ZONE_BLOCKS):
        yield f"    ... writing .. {block:6x} | {block + shift:6x}"
    yield f" ... inititalize Meta CRCs {crc_start:6x} - {crc_start + crc_pages:6x}"
    yield f" ...              absolute {crc_start + shift:6x} - {crc_start + crc_pages + shift:6x}"
    if verbose:
        yield f" ... Initial MetaCRC {EMPTY_PAGE_CRC:x}"
        yield f" ... Initial MetaMetaCRC {EMPTY_CRC_PAGE_CRC:x}"
    yield "Metadata pool initialized."


# -- commands, as a user can paste them


def start_command(name: str, line: str) -> str:
    """What starts a mapping."""
    return _command("create", name, "--table", line)


def message_commands(name: str, messages: Iterable[str]) -> list[str]:
    """What sets run-time parameters."""
    return [_command("message", name, "0", text) for text in messages]


def remove_command(name: str) -> str:
    """What stops a mapping."""
    return _command("remove", name)


def _command(*words: str) -> str:
    return " ".join(map(shell_word, ("dmsetup", *words)))
